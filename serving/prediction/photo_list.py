"""The photos that a command line names: files, and folders with all that lies below; sidecars."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

from biam_tf.errors import UserError, nearest_path
from biam_tf.photos import ENDINGS

_MISSING_SHOWN = 10
# A sidecar `photo.xmp` beside one of these is its own, not that of a photo of the same name.
_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw "
    ".rw2 .rwl .sr2 .srf .srw .x3f".split()
)


@dataclasses.dataclass(frozen=True)
class ListedPhoto:
    """A photo to tag.

    Attributes:
        path: as the user would write it: the argument, or the folder's name and what follows.
        key: absolute path, which identifies the photo.
        place: path relative to the folder above the argument, for pictures drawn of it.
    """

    path: str
    key: str
    place: str


def find_photos(arguments: Sequence[str]) -> list[ListedPhoto]:
    """Returns the photos of files and folders, each once, in the order of the arguments.

    Folders are searched with all folders below, links included, in the order of names. Only files
    with an ending of a photo are taken there, and nothing whose name begins with a dot. A file that
    is named itself is taken whatever its name.

    Raises:
        UserError: an argument does not exist, or there is no photo.
    """
    missing = [argument for argument in arguments if not os.path.exists(argument)]
    if missing:
        more = f" and {len(missing) - _MISSING_SHOWN} more" if len(missing) > _MISSING_SHOWN else ""
        hint = (nearest_path(missing[0]) if len(missing) == 1 else "") or "; check the path"
        listed = ", ".join(missing[:_MISSING_SHOWN])
        raise UserError(f"{listed}{more}: no such file or folder{hint}")
    found: dict[str, ListedPhoto] = {}
    for argument in arguments:
        whole = os.path.abspath(argument)
        above = os.path.dirname(whole)
        paths = _below(argument) if os.path.isdir(argument) else iter((argument,))
        for path in paths:
            key = os.path.abspath(path)
            found.setdefault(key, ListedPhoto(path, key, os.path.relpath(key, above)))
    if not found:
        raise UserError(
            f"{', '.join(arguments)}: no photo in it; files are taken as photos by their endings: "
            f"{', '.join(ENDINGS)}"
        )
    return list(found.values())


def _below(folder: str) -> Iterator[str]:
    """Yields the photos below a folder; one that cannot be listed is an error, not left out."""
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above, or to one seen
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS:
                yield os.path.join(here, name)


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be searched for photos ({error.strerror})")


def sidecar_of(photo: str) -> pathlib.Path:
    """Returns the path of a photo's sidecar, whether it exists or not.

    It is `photo.jpg.xmp`; or `photo.xmp` where one stands, and no other photo has that name.
    """
    path = pathlib.Path(photo)
    names = os.listdir(path.parent)
    by_lower_case = {name.lower(): name for name in sorted(names, reverse=True)}
    own = by_lower_case.get(f"{path.name}.xmp".lower())
    if own is not None:
        return path.with_name(own)
    shared = by_lower_case.get(f"{path.stem}.xmp".lower())
    if shared is not None and not _has_twin(path, names):
        return path.with_name(shared)
    return path.with_name(f"{path.name}.xmp")


def _has_twin(photo: pathlib.Path, names: Sequence[str]) -> bool:
    for name in names:
        stem, ending = os.path.splitext(name)
        is_photo = ending.lower() in ENDINGS or ending.lower() in _RAW
        if is_photo and stem.lower() == photo.stem.lower() and name != photo.name:
            return True
    return False
