"""Writes TensorFlow Datasets' `open_images_v4` in the official layout of Open Images.

`open_images_v4` is prepared by TensorFlow Datasets (1.7 million training photos, 565 GiB to
download). Its records contain encoded photos; this command writes them unchanged to files, with
the label files beside them, for `read_open_images`:

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

from biam_tf.command_line import run_command
from biam_tf.files import replacing, write_text
from biam_tf.progress import progress_of_total
from training.data.from_tfds.builders import builder_in
from training.data.open_images import layout

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

CHECKED_SOURCES = ("verification", "crowdsource-verification")
FULL_CONFIDENCE = 10  # TensorFlow Datasets stores confidences as integers, in tenths


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.data.open_images.from_tfds",
        description="Writes a prepared open_images_v4 of TensorFlow Datasets in the official "
        "layout\nof Open Images, for data.name: open_images. Get class-descriptions.csv from the "
        "download\npage of Open Images.",
        epilog="example:\n  python -m training.data.open_images.from_tfds \\\n"
        "      ~/tensorflow_datasets/open_images_v4/200k/2.0.0 data/open-images --limit 10000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prepared", metavar="DIR", help="version folder of the prepared data set")
    parser.add_argument("output", type=pathlib.Path, metavar="OUT", help="output folder")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="write only the first N photos of each split (default: all)",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    builder = builder_in(arguments.prepared)
    with progress_of_total("writing photos", "photo") as written:
        write_official_layout(builder, arguments.output, arguments.limit, written)
    print(f"{arguments.output}: written; add {layout.DESCRIPTIONS} from the download page")


def write_official_layout(
    builder: "tfds.core.DatasetBuilder",
    directory: str | os.PathLike,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes photos, label files and classes-trainable.txt of a prepared `open_images_v4`.

    class-descriptions.csv, which holds the class names, is not in TensorFlow Datasets; get it
    from the download page of Open Images.

    Args:
        builder: a prepared `open_images_v4`, in any of its configurations.
        directory: output folder.
        limit: writes only the first `limit` photos of each split; None: all.
        progress: called with (photos written, total photos).

    Raises:
        UserError: a label file cannot be written.
    """
    import tensorflow_datasets as tfds

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
    """Yields a CSV writer that has written the official header; the file is written whole."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageID", "Source", "LabelName", "Confidence"])
        yield writer


if __name__ == "__main__":
    sys.exit(main())
