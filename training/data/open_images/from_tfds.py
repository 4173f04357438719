"""Open Images out of TensorFlow Datasets' `open_images_v4`, written in the official layout.

`open_images_v4` is prepared by TensorFlow Datasets itself (1.7 million training photos, 565 GiB
to download). Its photos are encoded files inside of records; here they are written once, as the
bytes they are, with label files beside them, and `read_open_images` reads the result:

    python -m training.data.open_images.from_tfds \\
        ~/tensorflow_datasets/open_images_v4/200k/2.0.0 data/open-images --limit 10000
"""

import argparse
import contextlib
import csv
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from biam_tf.command_line import run_command
from biam_tf.progress import progress_of_total
from training.data.from_tfds.builders import builder_in
from training.data.open_images import layout

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

CHECKED_SOURCES = ("verification", "crowdsource-verification")
FULL_CONFIDENCE = 10  # TensorFlow Datasets has tenths as whole numbers


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.open_images.from_tfds",
        description="Writes open_images_v4 of TensorFlow Datasets, as it lies prepared on the "
        "disk, in the official layout, for data.name: open_images. class-descriptions.csv comes "
        "from the download page.",
    )
    parser.add_argument("prepared", metavar="DIR", help="its folder, which ends in a version")
    parser.add_argument("output", type=pathlib.Path, metavar="OUT", help="where everything goes")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="the first N photos of each split (default: all)"
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    builder = builder_in(arguments.prepared)
    with progress_of_total("writing photos", "photo") as written:
        write_official_layout(builder, arguments.output, arguments.limit, written)
    print(f"{arguments.output}: written; add {layout.DESCRIPTIONS} of the download page")


def write_official_layout(
    builder: "tfds.core.DatasetBuilder",
    directory: str | os.PathLike,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes photos, label files and classes-trainable.txt of a prepared `open_images_v4`.

    class-descriptions.csv, which has the names of the classes, is not among what TensorFlow
    Datasets has; it comes from the download page.

    Args:
        builder: a `tfds.core.DatasetBuilder` of `open_images_v4`, in any of its configurations,
            prepared.
        directory: where everything goes.
        limit: of each split no more than so many photos, the first ones; None: all.
        progress: called with (photos written, photos in all).
    """
    import tensorflow_datasets as tfds

    from biam_tf.files import write_text

    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    trainable = builder.info.features["objects_trainable"]["label"].names
    write_text(directory / layout.TRAINABLE, "\n".join(trainable) + "\n")
    splits = {
        split: official
        for split, official in layout.OFFICIAL_SPLITS.items()
        if official in builder.info.splits
    }
    counts = {
        split: min(builder.info.splits[official].num_examples, limit or 2**63)
        for split, official in splits.items()
    }
    done = 0
    for split, official in splits.items():
        photos = builder.as_dataset(
            split=f"{official}[:{counts[split]}]",
            decoders={"image": tfds.decode.SkipDecoding()},
            shuffle_files=False,
        )
        (directory / official).mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            human = stack.enter_context(_label_file(directory / layout.human_labels(split)))
            machine = stack.enter_context(_label_file(directory / layout.machine_labels(split)))
            labels = builder.info.features["objects"]
            for photo in tfds.as_numpy(photos):
                name = photo["image/filename"].decode()
                (directory / official / name).write_bytes(photo["image"])
                for label, confidence, source in zip(
                    *(photo["objects"][key] for key in ("label", "confidence", "source")),
                    strict=True,
                ):
                    source = labels["source"].int2str(source)
                    to = human if source in CHECKED_SOURCES else machine
                    number = name.split(".")[0]
                    to.writerow(
                        [
                            number,
                            source,
                            labels["label"].int2str(label),
                            f"{confidence / FULL_CONFIDENCE:g}",
                        ]
                    )
                done += 1
                if progress:
                    progress(done, sum(counts.values()))


@contextlib.contextmanager
def _label_file(path: pathlib.Path):
    """A CSV writer with the official header; the file is there when all rows are in it."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageID", "Source", "LabelName", "Confidence"])
        yield writer
    os.replace(aside, path)


if __name__ == "__main__":
    sys.exit(main())
