"""Options of `training.import_data`."""

import dataclasses
import pathlib
import threading
from collections.abc import Sequence
from typing import Literal

from biam_tf.errors import UserError
from training.data.dataset import SPLITS
from training.data.imports.downloads import DEFAULT_MAX_MB, DEFAULT_MAX_SECONDS
from training.data.imports.photo_collection import Placement

Form = Literal["csv", "one-hot", "coco", "label-studio", "cvat", "keywords"]


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Arguments of `training.import_data`.

    Attributes:
        form: the format of the lists.
        directory: folder of the new data set.
        rename: "OLD=NEW" for each class to rename.
        lower_case: whether class names are converted to lower case, after `rename`.
        keep_case: whether names that differ only in case are different classes; else an error.
        unseen: a file of class names, or names separated by commas.
        ignored: as `unseen`.
        photos: "link" or "copy".
        replace_path: "OLD=NEW" for beginnings of photos' paths.
        max_broken_share: share of the photos that may be missing, at least 0 and below 1.
        anywhere: whether a list may name photos outside `photo_folders`, and addresses of this
            machine and of private networks.
        max_download_mb: largest photo that is downloaded, in MB.
        max_download_seconds: longest time of a download, with all attempts.
        table: the file of form "csv".
        image_column: column of the photo's path or URL; None: "image", of form "one-hot" the first.
        labels_column: column of the labels; form "csv", like the next two.
        separator: text between two labels in a cell; None: found in the column.
        no_label: texts that mean that there is no label, separated by commas; None: `nan` and the
            like.
        encoding: of a text file; None: UTF-8 or UTF-16.
        sheet: of an Excel workbook; None: its only one.
        split_column: column of the split; None: splits are chosen by path.
        val_share: share of the photos in "val" where the list has no splits.
        test_share: as `val_share`.
        annotations: "SPLIT=PATH" of the JSON files; form "coco" only.
        images: "SPLIT=PATH" of the folders of photos; form "coco" only.
        sources: files or folders, or "SPLIT=PATH"; forms other than "csv" and "coco".
        photo_folder: folder that paths in the list start from; None: the list's own.
        image_suffix: added to photos' paths that do not end with it.
        skip_columns: columns of form "one-hot" that are no classes, separated by commas.
        minus_one: what -1 means in form "one-hot", "unknown" or "absent"; None: found in the table.
        blank: as `minus_one`, of empty cells.
        controls: controls of Label Studio's interface, separated by commas; None: all.
        whole_path: whether hierarchical names are whole paths; else their last part.
        keep_untagged: whether photos without keywords are kept, as showing no class.
    """

    form: Form
    directory: pathlib.Path
    rename: Sequence[str] = ()
    lower_case: bool = False
    keep_case: bool = False
    unseen: str | None = None
    ignored: str | None = None
    photos: Placement = "link"
    replace_path: Sequence[str] = ()
    max_broken_share: float = 0.0
    anywhere: bool = False
    max_download_mb: float = DEFAULT_MAX_MB
    max_download_seconds: float = DEFAULT_MAX_SECONDS
    table: pathlib.Path = pathlib.Path()
    image_column: str | None = None
    labels_column: str = "labels"
    separator: str | None = None
    no_label: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    split_column: str | None = None
    val_share: float = 0.1
    test_share: float = 0.1
    annotations: Sequence[str] = ()
    images: Sequence[str] = ()
    sources: Sequence[str] = ()
    photo_folder: pathlib.Path | None = None
    image_suffix: str = ""
    skip_columns: str | None = None
    minus_one: Literal["unknown", "absent"] | None = None
    blank: Literal["unknown", "absent"] | None = None
    controls: str | None = None
    whole_path: bool = False
    keep_untagged: bool = False

    def check(self) -> None:
        """Raises a UserError if a number or a text has no meaning."""
        for option, value in (
            ("--max-broken-share", self.max_broken_share),
            ("--val-share", self.val_share),
            ("--test-share", self.test_share),
        ):
            if not 0 <= value < 1:
                raise UserError(f"{option} {value:g}: expected at least 0 and below 1")
        if self.val_share + self.test_share >= 1:
            raise UserError(
                f"--val-share {self.val_share:g} and --test-share {self.test_share:g} leave "
                "nothing to train on: their sum must be below 1"
            )
        for option, value in (
            ("--max-download-mb", self.max_download_mb),
            ("--max-download-seconds", self.max_download_seconds),
        ):
            if not 0 < value < threading.TIMEOUT_MAX:
                raise UserError(f"{option} {value:g}: expected a number above 0")
        if self.separator == "":
            raise UserError("--separator: is empty; give the text between two labels")
        if self.lower_case and self.keep_case:
            raise UserError("--lower-case and --keep-case contradict each other; give one of them")

    def photo_folders(self) -> list[pathlib.Path] | None:
        """Returns the folders that the photos of a list may lie in; None: anywhere.

        They are the list's own folder and those that options name. A folder of photos with
        keywords is no list: what lies in it, or is linked there, was put there.
        """
        if self.anywhere or self.form == "keywords":
            return None
        lists = [self.table] if self.form == "csv" else []
        lists += paths_by_split("--annotations", self.annotations).values()
        lists += [path for _, path in sources_by_split(self.sources)]
        folders = [path if path.is_dir() else path.parent for path in lists]
        folders += paths_by_split("--images", self.images).values()
        if self.photo_folder is not None:
            folders.insert(0, self.photo_folder)
        for text in self.replace_path:
            new = folders[0] / text.partition("=")[2].strip()
            folder = new if new.is_dir() else new.parent
            if folder != folder.parent:  # the root, which nobody means by "/data"
                folders.append(folder)
        return list(dict.fromkeys(folders))

    def identity(self) -> dict[str, object]:
        """Returns what a stopped import must have in common with this one to be continued."""
        if self.form == "csv":
            return {"form": "csv", "table": str(self.table.resolve()), "annotations": None}
        if self.form == "coco":
            return {"form": "coco", "annotations": self.annotations}
        return {"form": self.form, "sources": list(self.sources)}


def names_in(option: str | None) -> list[str]:
    """Returns the texts that an option separates by commas."""
    return [text for part in (option or "").split(",") if (text := part.strip())]


def paths_by_split(option: str, values: Sequence[str]) -> dict[str, pathlib.Path]:
    """Reads "SPLIT=PATH", given once for each split.

    Raises:
        UserError: a value is not of this form, or a split is given twice.
    """
    paths: dict[str, pathlib.Path] = {}
    for value in values:
        split, _, path = value.partition("=")
        if split not in SPLITS or not path:
            raise UserError(
                f"{option} {value!r}: expected SPLIT=PATH; splits are {', '.join(SPLITS)}"
            )
        if split in paths:
            raise UserError(
                f"{option}: {split} has {paths[split]} and {path}; give one path per split"
            )
        paths[split] = pathlib.Path(path).expanduser()
    return paths


def sources_by_split(values: Sequence[str]) -> list[tuple[str | None, pathlib.Path]]:
    """Reads "PATH" or "SPLIT=PATH"; the split is None where it is not given.

    Raises:
        UserError: only some of the values have a split.
    """
    found: list[tuple[str | None, pathlib.Path]] = []
    for value in values:
        split, sign, path = value.partition("=")
        has_split = sign and split in SPLITS
        found.append(
            (split, pathlib.Path(path).expanduser()) if has_split else (None, pathlib.Path(value))
        )
    without = [str(path) for split, path in found if split is None]
    if without and len(without) < len(found):
        raise UserError(f"{without[0]}: has no split, and others have; give SPLIT=PATH for all")
    return found
