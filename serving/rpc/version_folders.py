"""The folder of a model: one sub-folder per version, named by its number."""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from biam_tf.errors import UserError, nearest_names, nearest_path
from biam_tf.files import version_number

if TYPE_CHECKING:
    from biam_tf.photos import Orientation  # imports NumPy and Pillow

MODEL_FILE = "saved_model.pb"
PHOTOS_FILE = "assets.extra/photos.json"  # which photos the model decodes, and how
CLASS_SIDE = "assets.extra/class_side.npz"  # where scores are products: vectors of classes
VOCABULARY = "assets.extra/vocabulary.npz"
_COMPARED_NAMES, _COMPARED_LENGTH = 2000, 100
SENTENCE_ENCODER = "assets.extra/sentence_encoder.json"  # where the model has one


def version_folders(model_dir: pathlib.Path) -> list[pathlib.Path]:
    """Returns the version folders of a model that hold a `saved_model.pb`, oldest first."""
    return [path for path in numbered_folders(model_dir) if (path / MODEL_FILE).is_file()]


def numbered_folders(model_dir: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders named by a version number, whole or not, in ascending order."""
    found = [path for path in model_dir.iterdir() if version_number(path.name) is not None]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name))


@dataclasses.dataclass(frozen=True)
class FolderState:
    """The files of a version folder at one moment, to see whether it is still being copied.

    Attributes:
        files: path, size and time of the last change of each file.
        changed: the last of these times, in seconds since the epoch.
    """

    files: tuple[tuple[str, int, int], ...]
    changed: float

    @property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        """Path and size of each file."""
        return tuple(file[:2] for file in self.files)


def folder_state(version: pathlib.Path) -> FolderState:
    """Returns the state of a version folder.

    Raises:
        OSError: a file of it vanished meanwhile.
    """
    files, changed = [], 0.0
    for path in sorted(version.rglob("*")):
        if path.is_file():
            stat = path.stat()
            files.append((str(path.relative_to(version)), stat.st_size, stat.st_mtime_ns))
            # Copies may keep the time of the last change of the contents.
            changed = max(changed, stat.st_mtime, stat.st_ctime)
    return FolderState(tuple(files), changed)


def photo_orientation(version: pathlib.Path) -> "Orientation":
    """Returns whether a version turns photos upright as EXIF data say; early versions do not."""
    try:
        text = (version / PHOTOS_FILE).read_text(encoding="utf-8")
        return "follow" if json.loads(text)["orientation"] == "follow" else "ignore"
    except (OSError, ValueError, KeyError):
        return "ignore"


def require_model_dir(model_dir: pathlib.Path) -> pathlib.Path:
    """Returns `model_dir` if it is a folder that may hold versions.

    Raises:
        UserError: it is missing, or it is itself a version.
    """
    model_dir = pathlib.Path(model_dir)
    if not model_dir.is_dir():
        hint = nearest_path(model_dir) or "; `python -m serving.export` writes one"
        raise UserError(f"{model_dir}: no such folder{hint}")
    if (model_dir / MODEL_FILE).is_file():
        raise UserError(
            f"{model_dir} is a single version; name the folder it is in: {model_dir.parent}"
        )
    return model_dir


def newest_version(model_dir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the newest version.

    Raises:
        UserError: there is no version, or `model_dir` is no folder of versions.
    """
    folders = version_folders(require_model_dir(model_dir))
    if not folders:
        raise UserError(f"{model_dir}: no version in it; `python -m serving.export` writes one")
    return folders[-1]


def takes_any_phrase(version: pathlib.Path) -> bool:
    """Returns whether the signatures `tag` and `embed` of a version take any phrase."""
    return (version / SENTENCE_ENCODER).is_file()


def nearest_classes(version: pathlib.Path, names: Sequence[str]) -> str:
    """Returns `; did you mean 'x'?` for names that a model does not know; empty: nothing is near.

    Args:
        version: the version's folder, whose `vocabulary.npz` has the names that are known.
        names: those that are not.
    """
    from biam_tf.arrays import open_npz  # brings NumPy

    try:
        with open_npz(version / VOCABULARY) as arrays:
            known = [str(name) for name in arrays["names"]]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # no file, or another one
        return ""
    if len(known) > _COMPARED_NAMES:  # comparing takes seconds
        return ""
    nearest = {name: nearest_names(name[:_COMPARED_LENGTH].lower(), known, 1) for name in names}
    found = [(name, near[0]) for name, near in nearest.items() if near]
    if len(names) == 1:
        return f"; did you mean {found[0][1]!r}?" if found else ""
    hints = ", ".join(f"{near!r} for {name!r}" for name, near in found)
    return f"; did you mean {hints}?" if hints else ""
