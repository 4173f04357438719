"""The options that commands which tag photos share: photos, classes, tags, the model's name."""

import argparse
import math
import pathlib

from biam_tf.class_calibration import Selection
from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME


def add_photos(parser: argparse.ArgumentParser, metavar: str) -> None:
    """Adds the photos, at least one, as `photos`."""
    parser.add_argument(
        "photos",
        metavar=metavar,
        nargs="+",
        help="JPEG, PNG, GIF, BMP, WebP, TIFF; with the extra [formats] HEIC, AVIF, JPEG XL",
    )


def add_model_name(parser: argparse.ArgumentParser) -> None:
    """Adds `--model-name`, of the model on a server."""
    parser.add_argument(
        "--model-name",
        metavar="NAME",
        default=DEFAULT_MODEL_NAME,
        help=f"name of the model on the server (default: {DEFAULT_MODEL_NAME})",
    )


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--classes` and `--classes-file`, which `named_classes` reads."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--classes", metavar="NAMES", help='names separated by commas: "dog, red car"'
    )
    group.add_argument("--classes-file", metavar="FILE", help="text file with one name per line")


def add_selection_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--present`, `--probability` and `--threshold`, which `selection_of` reads."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--present",
        action="store_true",
        help="leave out classes below their threshold, which was chosen on validation photos",
    )
    group.add_argument(
        "--probability",
        type=float,
        metavar="P",
        help="leave out classes of a lower probability, from 0 to 1, whatever their thresholds",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="leave out lower scores, whatever the classes' thresholds",
    )


def selection_of(arguments: argparse.Namespace, top: int | None) -> Selection:
    """Returns what the options of `add_selection_options` and a largest number of tags say.

    Raises:
        UserError: the probability is not from 0 to 1.
    """
    probability = arguments.probability
    if probability is not None and not 0 <= probability <= 1:
        raise UserError(f"--probability {probability:g}: use a number from 0 to 1, such as 0.5")
    if arguments.threshold is not None and math.isnan(arguments.threshold):
        raise UserError("--threshold nan: use a number")
    return Selection(top, arguments.present, probability, arguments.threshold)


def named_classes(arguments: argparse.Namespace) -> list[str] | None:
    """Returns the class names of the two options without repetitions; None without either.

    Raises:
        UserError: the file can't be read, or there is no name in it or in the option.
    """
    if arguments.classes is not None:
        where, names = "--classes", arguments.classes.split(",")
    elif arguments.classes_file is not None:
        where = str(arguments.classes_file)
        try:
            names = pathlib.Path(where).read_bytes().decode("utf-8-sig").splitlines()
        except OSError as error:
            raise UserError(f"{where}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error})") from error
    else:
        return None
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not names:
        raise UserError(f"{where}: no class is named")
    return names
