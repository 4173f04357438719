"""The pointing game: whether the strongest region of a class lies on an object of it.

Zhang et al., Top-Down Neural Attention by Excitation Backprop, ECCV 2016.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.models import build_tagger
from biam_tf.models.head import response_map_layer, with_response_maps
from biam_tf.photos import open_photo
from biam_tf.runs import RunPaths, load_run
from training.config import load_config
from training.data.input.sources import PhotoSource
from training.data.registry import load_dataset
from training.pipeline.examples import final_split
from training.scoring.evaluation import evaluation_vocabulary
from training.scoring.scorer import make_scorer

BATCH = 32
GROUPS = ("seen", "unseen")


@dataclasses.dataclass(frozen=True)
class Localization:
    """How often the strongest region of a class lies on it.

    Attributes:
        hits: share of the pairs of a photo and a class on it.
        chance: share expected of a random region.
        pairs: number of pairs.
    """

    hits: float
    chance: float
    pairs: int


def measure_run(path: pathlib.Path) -> dict[str, Localization]:
    """Plays the pointing game on the test photos of a run's data set; returns it by group.

    Raises:
        UserError: the folder is not a trained run, its head has no response maps, or its data set
            has no boxes.
    """
    trained = load_run(path)
    if response_map_layer(trained.head) is None:
        raise UserError(f"{path}: its head does not classify regions, so it cannot point at any")
    dataset = load_dataset(load_config(RunPaths(path).config).data)
    split = dataset.split(final_split(dataset))
    boxes = read_boxes(dataset.directory)
    vocabulary = evaluation_vocabulary(trained, dataset)
    scorer = make_scorer(build_tagger(trained.backbone, with_response_maps(trained.head)))
    orientation = trained.orientation  # boxes are of the photo as it is read
    source = PhotoSource(
        dataset.directory, split.images, trained.image_size, "stream", orientation=orientation
    )
    embeddings = tf.constant(vocabulary.embeddings, tf.float32)
    found: dict[str, list[tuple[bool, float]]] = {}
    done = 0
    for inputs in source.evaluation_batches(BATCH):
        maps = scorer(inputs, embeddings)["response_maps"].numpy()
        for row in range(len(maps)):
            image = split.images[done + row]
            path_of_photo = dataset.photo_path(image)
            size = open_photo(path_of_photo, at_least=(1, 1), orientation=orientation).size
            for c in np.flatnonzero(split.labels[done + row] > 0).tolist():
                own = boxes.get((image, dataset.names[c]))
                if own:
                    point = play(maps[row, :, :, c], own, size)
                    found.setdefault(dataset.groups[c], []).append(point)
        done += len(maps)
    if not found:
        raise UserError(f"{dataset.directory}/boxes.csv: no box of a class on a photo of {path}")
    results = {}
    for group, points in found.items():
        hits, chance = np.mean(np.array(points, float), axis=0).tolist()
        results[group] = Localization(hits, chance, len(points))
    return results


def play(
    response_map: np.ndarray, boxes: Sequence[Sequence[int]], size: tuple[int, int]
) -> tuple[bool, float]:
    """Returns whether the strongest region's center is in a box, and the share of regions in one.

    Args:
        response_map: (h, w) responses to one class.
        boxes: (x0, y0, x1, y1) each, in pixels.
        size: width and height of the photo in pixels; the map covers all of it.
    """
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
        UserError: there is no such file, or a row has another form.
    """
    path = directory / "boxes.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; the pointing game needs the objects' boxes")
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


def format_localization(runs: Mapping[str, Mapping[str, Localization]]) -> str:
    """Returns the results of runs, by their folders, as plain text in per cent."""
    lines = ["per cent".ljust(40) + "".join(name.rjust(9) for name in (*GROUPS, "chance"))]
    for run, groups in runs.items():
        cells = [groups[name].hits if name in groups else float("nan") for name in GROUPS]
        pairs = sum(own.pairs for own in groups.values())
        chance = sum(own.chance * own.pairs for own in groups.values()) / pairs
        line = "".join(f"{100 * value:9.1f}" for value in [*cells, chance])
        lines.append(f"{run[-38:]:40}{line}")
    return "\n".join(lines)
