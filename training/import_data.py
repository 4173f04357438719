"""Converts CSV, Parquet or COCO lists of labeled photos to a folder data set.

`python -m training.import_data --help` lists the options.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from training.cli import run_command

DESCRIPTION = """\
Creates a folder data set (images/, annotations.csv, classes.csv) from lists in other formats:

  csv    a CSV or Parquet file with one row per photo, or one row per label of a photo; photos are
         paths relative to the folder of the file, or http(s) URLs, which are downloaded
  coco   JSON files in COCO's format, one per split; the labels of a photo are the categories of
         its objects

Classes can be renamed (--rename, --lower-case); classes that get the same name are merged.
Photos are hard links if the file system supports them (--photos copy always copies). Downloads use
16 connections and up to four attempts per photo. To continue a stopped import, repeat the command.
Photos that are missing are listed in failed_photos.csv. annotations.csv is written last: if it
exists, the import is complete.
"""

EXAMPLES = """\
examples:
  python -m training.import_data csv labels.csv my-photos --unseen zebra,okapi
  python -m training.import_data csv urls.parquet my-photos --image-column url \\
      --labels-column tag --max-broken-share 0.1
  python -m training.import_data csv labels.csv my-photos --lower-case \\
      --rename "TV set=television" --rename Telly=television
  python -m training.import_data coco my-photos \\
      --annotations train=instances_train2017.json --images train=train2017 \\
      --annotations test=instances_val2017.json --images test=val2017 --unseen unseen.txt
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.import_data",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    forms = parser.add_subparsers(dest="form", required=True, metavar="csv|coco")
    table = forms.add_parser("csv", help="a CSV or Parquet file", allow_abbrev=False)
    table.add_argument("table", type=pathlib.Path, metavar="FILE", help=".csv or .parquet file")
    coco = forms.add_parser("coco", help="JSON files in COCO's format", allow_abbrev=False)
    for form in (table, coco):
        _add_common_arguments(form)
    for column in ("image", "labels"):
        table.add_argument(
            f"--{column}-column", default=column, metavar="NAME", help=f"default: {column}"
        )
    table.add_argument(
        "--separator", default=";", help="text between two labels in a cell (default: ;)"
    )
    table.add_argument(
        "--split-column",
        metavar="NAME",
        help="column with train, val or test (default: the split is chosen by the file name)",
    )
    for split in ("val", "test"):
        table.add_argument(
            f"--{split}-share",
            type=float,
            default=0.1,
            metavar="SHARE",
            help=f"share of the photos in {split} if there is no --split-column (default: 0.1)",
        )
    for name, what in (("annotations", "JSON file"), ("images", "folder of the photos")):
        coco.add_argument(
            f"--{name}",
            action="append",
            required=True,
            metavar="SPLIT=PATH",
            help=f"{what} of train, val or test; give it once per split",
        )
    return run_command(parser, _command, argv)


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=pathlib.Path, metavar="FOLDER", help="the new data set")
    parser.add_argument(
        "--rename",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="rename a class; may be given many times",
    )
    parser.add_argument(
        "--lower-case",
        action="store_true",
        help="convert all class names to lower case, after --rename",
    )
    for group, what in (("unseen", "not trained on"), ("ignored", "neither trained nor scored")):
        parser.add_argument(
            f"--{group}",
            metavar="FILE|NAMES",
            help=f"classes that are {what}: a file, or names separated by commas",
        )
    parser.add_argument(
        "--photos",
        choices=["link", "copy"],
        default="link",
        help="hard links or copies (default: link; copy if the file system has no hard links)",
    )
    parser.add_argument(
        "--max-broken-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the photos that may be missing; they are left out (default: 0)",
    )


def _command(arguments: argparse.Namespace) -> None:
    from training.data.imports.folder_import import ImportOptions, import_folder

    names = {field.name for field in dataclasses.fields(ImportOptions)}
    options = {name: value for name, value in vars(arguments).items() if name in names}
    import_folder(ImportOptions(**options))


if __name__ == "__main__":
    sys.exit(main())
