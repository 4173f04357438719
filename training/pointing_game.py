"""Whether response maps point at what they name: `python -m training.pointing_game RUN`."""

import argparse
import csv
import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from training.cli import run_command

DESCRIPTION = """\
For every test photo and every class on it, takes the region with the highest response to the class;
it is a hit if the region's center lies within one of the class's boxes (the pointing game of Zhang
et al., ECCV 2016). The data set has the boxes as boxes.csv (image,class,x0,y0,x1,y1 in pixels), as
the drawn data set `scenes` does. Chance is what a region drawn at random would hit.
"""

EXAMPLES = """\
example:
  python -m training.run && python -m training.pointing_game runs/quickstart
"""

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Localization:
    """How often the strongest region of a class lies on it.

    Attributes:
        hits: over pairs of a photo and a class on it, fraction.
        chance: expected of a region drawn at random, fraction.
        pairs: how many there are.
    """

    hits: float
    chance: float
    pairs: int


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.pointing_game",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=pathlib.Path, metavar="RUN", help="folders of trained runs"
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    print("per cent".ljust(40) + "".join(name.rjust(9) for name in ("seen", "unseen", "chance")))
    for run in arguments.runs:
        groups = measure_run(run)
        cells = [groups[name].hits if name in groups else float("nan") for name in GROUPS]
        pairs = sum(own.pairs for own in groups.values())
        chance = sum(own.chance * own.pairs for own in groups.values()) / pairs
        line = "".join(f"{100 * value:9.1f}" for value in [*cells, chance])
        print(f"{str(run)[-38:]:40}{line}")


GROUPS = ("seen", "unseen")


def measure_run(path: pathlib.Path) -> dict[str, Localization]:
    """Plays the pointing game on the test photos of a run's own data set, by group of classes.

    Raises:
        UserError: it is no trained run, its head has no response maps, or its data set has no
            boxes.
    """
    import numpy as np
    import tensorflow as tf

    from biam_tf.errors import UserError
    from biam_tf.models import build_tagger
    from biam_tf.models.head import response_map_layer, with_response_maps
    from biam_tf.runs import RunPaths, load_run
    from training.config import load_config
    from training.data.input.sources import PhotoSource
    from training.data.registry import load_dataset
    from training.pipeline.examples import final_split
    from training.scoring.evaluation import evaluation_vocabulary
    from training.scoring.scorer import make_scorer

    trained = load_run(path)
    if response_map_layer(trained.head) is None:
        raise UserError(f"{path}: its head classifies no single regions, so that nothing points")
    dataset = load_dataset(load_config(RunPaths(path).config).data)
    split = dataset.split(final_split(dataset))
    boxes = read_boxes(dataset.directory)
    vocabulary = evaluation_vocabulary(trained, dataset)
    scorer = make_scorer(build_tagger(trained.backbone, with_response_maps(trained.head)))
    source = PhotoSource(dataset.directory, split.images, trained.image_size, cache="stream")
    embeddings = tf.constant(vocabulary.embeddings, tf.float32)
    found: dict[str, list[tuple[bool, float]]] = {}
    done = 0
    for inputs in source.evaluation_batches(BATCH):
        maps = scorer(inputs, embeddings)["response_maps"].numpy()
        for row in range(len(maps)):
            image = split.images[done + row]
            size = _size_of(dataset.photo_path(image))
            for c in np.flatnonzero(split.labels[done + row] > 0):
                own = boxes.get((image, dataset.names[c]))
                if own:
                    point = play(maps[row, :, :, c], own, size)
                    found.setdefault(dataset.groups[c], []).append(point)
        done += len(maps)
    if not found:
        raise UserError(f"{dataset.directory}/boxes.csv: no box of a class on a photo of {path}")
    return {
        group: Localization(*np.mean(np.array(points, float), axis=0).tolist(), len(points))
        for group, points in found.items()
    }


def play(response_map, boxes: Sequence[Sequence[int]], size: tuple[int, int]) -> tuple[bool, float]:
    """Returns whether the strongest region lies in a box, and the share of regions that do.

    Args:
        response_map: (h, w) responses to one class.
        boxes: (x0, y0, x1, y1) each, in pixels.
        size: width and height of the photo in pixels; the map covers all of it.
    """
    import numpy as np

    height, width = response_map.shape
    x = (np.arange(width) + 0.5) * size[0] / width
    y = (np.arange(height) + 0.5) * size[1] / height
    inside = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        inside |= ((y >= y0) & (y <= y1))[:, None] & ((x >= x0) & (x <= x1))[None]
    return bool(inside.flat[np.argmax(response_map)]), float(inside.mean())


def read_boxes(directory: pathlib.Path) -> Mapping[tuple[str, str], list[tuple[int, ...]]]:
    """Returns the boxes of `boxes.csv` by image and class.

    Raises:
        UserError: there is no such file, or a row is not of its form.
    """
    from biam_tf.errors import UserError

    path = directory / "boxes.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; the pointing game needs to know where objects are")
    boxes: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                box = tuple(int(row[key]) for key in ("x0", "y0", "x1", "y1"))
                boxes.setdefault((row["image"], row["class"]), []).append(box)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}: expected image,class,x0,y0,x1,y1 with whole numbers; got {row}"
                ) from error
    return boxes


def _size_of(photo: pathlib.Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(photo) as image:
        return image.size


if __name__ == "__main__":
    sys.exit(main())
