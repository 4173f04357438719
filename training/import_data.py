"""Converts lists of labeled photos in other formats to a folder data set.

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

  csv           a table with a column of labels: CSV, .tsv, .xlsx or Parquet; one row per photo, or
                one row per label of a photo; photos are paths relative to the folder of the table,
                or http(s) URLs, which are downloaded
  one-hot       a table with a column for each class: 1 present, 0 absent, -1 or empty unknown
                (Kaggle, CheXpert, Roboflow's _classes.csv)
  coco          JSON files in the format of COCO, LVIS or Roboflow, one per split; the labels of a
                photo are the categories of its objects
  label-studio  an export of Label Studio as JSON, JSON-MIN or CSV
  cvat          annotations.xml of "CVAT for images 1.1"; labels are those of tags and shapes
  keywords      a folder of photos with keywords in them or in .xmp files beside them, as Lightroom,
                digiKam and others write them

`python -m training.import_data FORMAT --help` lists the options of a format.

Labels in a cell are joined by ';', or are lists as pandas, JSON and Label Studio write them. A
column that can be read in two ways is an error that names the rows and the option to give.
Names that differ only in spaces or in their Unicode form are merged. Names that differ in case are
an error: merge them with --lower-case or --rename, or keep them apart with --keep-case.
Photos are hard links if the file system supports them (--photos copy always copies). Downloads use
16 connections and up to four attempts per photo. To continue a stopped import, repeat the command.
Photos that are missing or broken are listed in failed_photos.csv. annotations.csv is written last:
if it exists, the import is complete. The command prints what it took, and what it left out and why.
"""

EXAMPLES = """\
examples:
  python -m training.import_data csv labels.csv my-photos --unseen zebra,okapi
  python -m training.import_data csv labels.csv my-photos --separator ,
  python -m training.import_data csv urls.parquet my-photos --image-column url \\
      --labels-column tag --max-broken-share 0.1
  python -m training.import_data csv labels.xlsx my-photos --lower-case \\
      --rename "TV set=television" --rename Telly=television
  python -m training.import_data csv labels.tsv my-photos --replace-path 'C:\\photos\\=photos/'
  python -m training.import_data one-hot train.csv my-photos --image-column id \\
      --photo-folder train_images --image-suffix .jpg --skip-columns age,sex
  python -m training.import_data one-hot train=train/_classes.csv val=valid/_classes.csv \\
      test=test/_classes.csv my-photos
  python -m training.import_data coco my-photos \\
      --annotations train=instances_train2017.json --images train=train2017 \\
      --annotations test=instances_val2017.json --images test=val2017 --unseen unseen.txt
  python -m training.import_data label-studio project-1.json my-photos --photo-folder media/upload
  python -m training.import_data cvat train=job-1.xml test=job-2.xml my-photos --photo-folder images
  python -m training.import_data keywords ~/Pictures/birds my-photos --whole-path
"""

_TABLE = ".csv, .tsv, .txt, .xlsx or .parquet file"
_SOURCES = {
    "one-hot": ("a table with a column for each class", _TABLE),
    "label-studio": ("an export of Label Studio", "JSON, JSON-MIN or CSV file"),
    "cvat": ("XML of CVAT for images 1.1", "annotations.xml, or the folder with it"),
    "keywords": ("photos with keywords", "folder of photos"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.import_data",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    forms = parser.add_subparsers(dest="form", required=True, metavar="FORMAT")
    table = forms.add_parser("csv", help="a table with a column of labels", allow_abbrev=False)
    table.add_argument("table", type=pathlib.Path, metavar="FILE", help=_TABLE)
    coco = forms.add_parser(
        "coco", help="JSON files in the format of COCO, LVIS or Roboflow", allow_abbrev=False
    )
    others = {
        name: forms.add_parser(name, help=about, allow_abbrev=False)
        for name, (about, _) in _SOURCES.items()
    }
    for name, form in others.items():
        form.add_argument(
            "sources",
            nargs="+",
            metavar="FILE|SPLIT=FILE",
            help=f"{_SOURCES[name][1]}; several with their splits: train=FILE test=FILE",
        )
    for form in (table, coco, *others.values()):
        _add_common_arguments(form)
    _add_csv_arguments(table)
    _add_one_hot_arguments(others["one-hot"])
    for form in (table, others["one-hot"]):
        _add_table_arguments(form)
    for name, what in (("annotations", "JSON file"), ("images", "folder of the photos")):
        coco.add_argument(
            f"--{name}",
            action="append",
            required=True,
            metavar="SPLIT=PATH",
            help=f"{what} of train, val or test; give it once per split",
        )
    _add_label_studio_arguments(others["label-studio"])
    for name, form in (("csv", table), *others.items()):
        _add_share_arguments(form)
        if name != "keywords":
            form.add_argument(
                "--photo-folder",
                type=pathlib.Path,
                metavar="FOLDER",
                help="folder that the photos' paths start from (default: that of the list)",
            )
    for name in ("label-studio", "keywords"):
        others[name].add_argument(
            "--whole-path",
            action="store_true",
            help="hierarchical names are whole paths, animal/dog (default: their last part, dog)",
        )
    others["keywords"].add_argument(
        "--keep-untagged",
        action="store_true",
        help="keep photos without keywords, as showing no class (default: they are left out)",
    )
    return run_command(parser, _command, argv, resumable=True)


def _add_csv_arguments(parser: argparse.ArgumentParser) -> None:
    for column in ("image", "labels"):
        parser.add_argument(
            f"--{column}-column", default=column, metavar="NAME", help=f"default: {column}"
        )
    parser.add_argument(
        "--separator",
        metavar="TEXT",
        help="text between two labels in a cell (default: ';', or what the whole column shows)",
    )
    parser.add_argument(
        "--no-label",
        metavar="TEXTS",
        help="texts of cells that mean that there is no label, separated by commas; '' for none "
        "(default: nan, None, NULL, N/A and the like)",
    )


def _add_one_hot_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-column",
        metavar="NAME",
        help="default: the first called image, filename, path and the like, or else the first",
    )
    parser.add_argument(
        "--skip-columns", metavar="NAMES", help="columns that are no classes, separated by commas"
    )
    for name, what in (("minus-one", "-1 means"), ("blank", "an empty cell means")):
        parser.add_argument(
            f"--{name}",
            choices=["unknown", "absent"],
            help=f"what {what} (default: unknown, if the table has zeros)",
        )


def _add_label_studio_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-column",
        metavar="NAME",
        help="field of the photo (default: image, or the only field with a photo's path)",
    )
    parser.add_argument(
        "--controls",
        metavar="NAMES",
        help="controls of the labeling interface whose labels are taken, separated by commas "
        "(default: all)",
    )


def _add_table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split-column",
        metavar="NAME",
        help="column with train, val or test (default: the split is chosen by the photo's path)",
    )
    parser.add_argument(
        "--image-suffix",
        default="",
        metavar="TEXT",
        help="added to photos' paths that do not end with it, such as .jpg",
    )
    parser.add_argument(
        "--encoding", metavar="NAME", help="of a text file, e.g. cp1252 (default: UTF-8 or UTF-16)"
    )
    parser.add_argument("--sheet", metavar="NAME", help="of an Excel workbook with several sheets")


def _add_share_arguments(parser: argparse.ArgumentParser) -> None:
    for split in ("val", "test"):
        parser.add_argument(
            f"--{split}-share",
            type=float,
            default=0.1,
            metavar="SHARE",
            help=f"share of the photos in {split} where the list has no splits (default: 0.1)",
        )


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
    parser.add_argument(
        "--keep-case",
        action="store_true",
        help="names that differ only in case are different classes",
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
        "--replace-path",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="replace the beginning of photos' paths; may be given many times",
    )
    parser.add_argument(
        "--max-broken-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the photos that may be missing or broken; they are left out (default: 0)",
    )
    parser.add_argument(
        "--anywhere",
        action="store_true",
        help="also take photos that the list names outside its folder (and --photo-folder), and "
        "from http addresses of this machine or of a private network; for lists that you trust",
    )
    for name, default, unit in (
        ("mb", 200, "largest photo that is downloaded, in MB"),
        ("seconds", 300, "longest time of a download, with all attempts"),
    ):
        parser.add_argument(
            f"--max-download-{name}",
            type=float,
            default=default,
            metavar="N",
            help=f"{unit} (default: {default})",
        )


def _command(arguments: argparse.Namespace) -> None:
    from training.data.imports.folder_import import import_folder
    from training.data.imports.import_options import ImportOptions

    names = {field.name for field in dataclasses.fields(ImportOptions)}
    options = {name: value for name, value in vars(arguments).items() if name in names}
    import_folder(ImportOptions(**options))


if __name__ == "__main__":
    sys.exit(main())
