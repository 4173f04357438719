"""Other people's lists of labeled photos as a folder data set: `python -m training.import_data`."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from training.cli import run_command

DESCRIPTION = """\
Makes a folder data set (images/, annotations.csv, classes.csv) of labeled photos in another form:

  csv    a CSV or Parquet file with a row for each photo, or for each label of a photo; photos are
         paths, relative to the file's folder, or http(s) addresses, which are fetched
  coco   JSON files in COCO's form, one for each split; the categories of its objects are the labels

Classes can have other names (--rename, --lower-case); those that come to one name become one.
Photos are linked where the file system can (--photos copy copies them), and fetched with 16
connections and four tries each. A stopped import goes on with the same command; photos that cannot
be had stand in failed_photos.csv. annotations.csv is written last: where it is, all is there.
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

MARKER = ".import.json"
FAILED = "failed_photos.csv"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.import_data",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    forms = parser.add_subparsers(dest="form", required=True, metavar="csv|coco")
    table = forms.add_parser("csv", help="a CSV or Parquet file", allow_abbrev=False)
    table.add_argument("table", type=pathlib.Path, metavar="FILE", help="the list")
    coco = forms.add_parser("coco", help="JSON files in COCO's form", allow_abbrev=False)
    for form in (table, coco):
        _add_common_arguments(form)
    for column in ("image", "labels"):
        table.add_argument(
            f"--{column}-column", default=column, metavar="NAME", help=f"default: {column}"
        )
    table.add_argument("--separator", default=";", help="between labels of a cell (default: ;)")
    table.add_argument(
        "--split-column", metavar="NAME", help="train, val or test (default: drawn by file name)"
    )
    for split in ("val", "test"):
        table.add_argument(
            f"--{split}-share",
            type=float,
            default=0.1,
            metavar="SHARE",
            help=f"of the photos, drawn for {split} without --split-column (default: 0.1)",
        )
    for name, what in (("annotations", "JSON file"), ("images", "folder of the photos")):
        coco.add_argument(
            f"--{name}",
            action="append",
            required=True,
            metavar="SPLIT=PATH",
            help=f"{what} of train, val or test; may be given for each",
        )
    return run_command(parser, _command, argv)


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=pathlib.Path, metavar="FOLDER", help="the new data set")
    parser.add_argument(
        "--rename",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="another name for a class; may be given many times",
    )
    parser.add_argument(
        "--lower-case", action="store_true", help="all class names in lower case, after --rename"
    )
    for group, what in (("unseen", "never trained on"), ("ignored", "neither trained nor scored")):
        parser.add_argument(
            f"--{group}", metavar="FILE|NAMES", help=f"classes {what}: a file, or names with commas"
        )
    parser.add_argument(
        "--photos", choices=["link", "copy"], default="link", help="default: link, else copy"
    )
    parser.add_argument(
        "--max-broken-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the photos that may be missing and are left out (default: 0)",
    )


def _command(arguments: argparse.Namespace) -> None:
    from biam_tf.progress import progress
    from training.data.folder.writer import PhotoLabels, check_class_names, write_folder_lists
    from training.data.imports.class_renaming import new_names, rename_labels
    from training.data.imports.photo_collection import collect_photos

    _check_shares(arguments)
    photos, names = _read_coco(arguments) if arguments.form == "coco" else _read_table(arguments)
    renamed = new_names(names, arguments.rename, arguments.lower_case)
    photos = rename_labels(photos, renamed)
    groups = _groups(arguments, list(dict.fromkeys(renamed.values())))
    check_class_names(groups)
    _claim(arguments)
    with progress(len(photos), "Photos", "photo") as bar:
        locations = [photo.location for photo in photos]

        def advance() -> None:
            bar.update()

        found = collect_photos(locations, arguments.directory, arguments.photos, advance)
    _report_failed(found.failed, len(locations), arguments)
    rows = [
        PhotoLabels(found.images[photo.location], photo.split, photo.labels)
        for photo in photos
        if photo.location in found.images
    ]
    write_folder_lists(arguments.directory, rows, groups)
    by_split = {
        split: sum(row.split == split for row in rows) for split in ("train", "val", "test")
    }
    by_group = {
        group: list(groups.values()).count(group) for group in ("seen", "unseen", "ignored")
    }
    print(f"{arguments.directory}: photos {_counts(by_split)}; classes {_counts(by_group)}")
    print(f"Look at it before training: python -m training.describe {arguments.directory}")


def _check_shares(arguments) -> None:
    from biam_tf.errors import UserError

    for name in ("max_broken_share", "val_share", "test_share"):
        value = getattr(arguments, name, 0.0)
        if not 0 <= value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: expected 0 or more, below 1")
    if arguments.form == "csv" and arguments.val_share + arguments.test_share >= 1:
        raise UserError(
            f"--val-share {arguments.val_share:g} and --test-share {arguments.test_share:g} leave "
            "nothing to train on: their sum has to be below 1"
        )


def _read_table(arguments):
    from biam_tf.errors import UserError
    from training.data.imports.label_tables import TableColumns, read_table

    if not arguments.separator:
        raise UserError("--separator: is empty; give the text that stands between two labels")
    columns = TableColumns(
        image=arguments.image_column,
        labels=arguments.labels_column,
        split=arguments.split_column,
        separator=arguments.separator,
        shares=(arguments.val_share, arguments.test_share),
    )
    photos = read_table(arguments.table, columns)
    return photos, sorted({label for photo in photos for label in photo.labels})


def _read_coco(arguments):
    from biam_tf.errors import UserError
    from training.data.imports.coco_lists import read_coco

    files = _by_split("--annotations", arguments.annotations)
    folders = _by_split("--images", arguments.images)
    if files.keys() != folders.keys():
        raise UserError(
            f"--annotations has {', '.join(files)} and --images {', '.join(folders)}; "
            "give both for each split"
        )
    photos, names, split_of = [], {}, {}
    for split, path in files.items():
        listed, categories = read_coco(path, folders[split], split)
        photos += listed
        names |= dict.fromkeys(categories)
        for photo in listed:
            if split_of.setdefault(photo.location, split) != split:
                raise UserError(
                    f"{path}: {photo.location} is in {split_of[photo.location]} already; a photo "
                    "belongs to one split"
                )
    return photos, list(names)


def _by_split(option: str, values: Sequence[str]) -> dict[str, pathlib.Path]:
    from biam_tf.errors import UserError
    from training.data.dataset import SPLITS

    paths: dict[str, pathlib.Path] = {}
    for value in values:
        split, _, path = value.partition("=")
        if split not in SPLITS or not path:
            raise UserError(f"{option} {value!r}: expected SPLIT=PATH with {', '.join(SPLITS)}")
        if split in paths:
            raise UserError(
                f"{option}: {split} has {paths[split]} and {path}; give each split one path"
            )
        paths[split] = pathlib.Path(path)
    return paths


def _groups(arguments, names: Sequence[str]) -> dict[str, str]:
    """Returns the group of each class; one that nobody knows is an error."""
    from biam_tf.errors import UserError, did_you_mean
    from training.data.class_list import read_class_list

    groups = dict.fromkeys(names, "seen")
    for group in ("unseen", "ignored"):
        given = getattr(arguments, group)
        if given is None:
            continue
        is_file = pathlib.Path(given).is_file()
        chosen = read_class_list(given).names if is_file else given.split(",")
        for name in map(str.strip, chosen):
            if name not in groups:
                raise UserError(f"--{group}: no photo has {name!r}{did_you_mean(name, names)}")
            groups[name] = group
    if "seen" not in groups.values():
        raise UserError("no class is left to train on: all are unseen or ignored")
    return groups


def _claim(arguments) -> None:
    """Makes the folder this import's, or finds that it is."""
    from biam_tf.errors import UserError
    from training.data.folder.reader import ANNOTATIONS

    directory, marker = arguments.directory, arguments.directory / MARKER
    ours = {key: value for key, value in vars(arguments).items() if key in ("form", "table")}
    ours["annotations"] = getattr(arguments, "annotations", None)
    text = json.dumps(ours, default=lambda path: str(path.resolve()), indent=2) + "\n"
    if (directory / ANNOTATIONS).exists():
        raise UserError(f"{directory}: holds a data set already; give another folder")
    if directory.exists() and any(directory.iterdir()):
        if not marker.is_file() or marker.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{directory}: is not empty and holds no stopped import of the same lists; give "
                "another folder"
            )
        return
    directory.mkdir(parents=True, exist_ok=True)
    aside = marker.with_name(f"{MARKER}.partial")
    aside.write_text(text, encoding="utf-8")
    aside.replace(marker)


def _report_failed(failed: dict[str, str], count: int, arguments) -> None:
    """Lists what failed, whatever an earlier import listed; too much of it is an error."""
    from biam_tf.errors import UserError
    from training.tables.csv_files import write_rows

    path = arguments.directory / FAILED
    if not failed:
        path.unlink(missing_ok=True)
        return
    write_rows(path, ["photo", "problem"], failed.items())
    location, problem = next(iter(failed.items()))
    message = (
        f"{len(failed)} of {count} photos could not be had, such as {location}: {problem}; "
        f"all of them: {path}"
    )
    if len(failed) == count:
        raise UserError(f"{message}. Mend them and give the same command")
    # The quotient, not the product, is rounded as the share is when it is read.
    if len(failed) / count > arguments.max_broken_share:
        raise UserError(
            f"{message}. What was brought stays: mend them and give the same command, or let "
            f"them go with --max-broken-share {_share_of(len(failed), count)}"
        )
    print(message)


def _share_of(part: int, count: int) -> str:
    """Returns part / count rounded up, with at least two digits and as many as keep it below 1."""
    digits, rounded = 2, -(-part * 100 // count)
    while rounded == 10**digits:
        digits += 1
        rounded = -(-part * 10**digits // count)
    return f"{rounded / 10**digits:.{digits}f}"


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in numbers.items() if count)


if __name__ == "__main__":
    sys.exit(main())
