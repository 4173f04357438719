"""Finds the photos of NUS-WIDE under any of their common file names.

| name | origin |
|---|---|
| `Flickr/actor/0001_2124494179.jpg` | the authors' archive, one folder per search word |
| `0001_2124494179.jpg` | the same, all in one folder |
| `actor_0001_2124494179.jpg` | folder as part of the name, as in the released code's lists |
| `2124494179.jpg`, `2124494179_m.jpg` | Flickr's photo number, with or without size suffix |
| `2124494179_1f0d6e2a3b_m.jpg` | as in Flickr's URLs, with the secret |
| `98796_2124494179_1f0d6e2a3b_m.jpg` | the same after a running number |

They may be in any folders and mixed.
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from biam_tf.photos import ENDINGS
from training.data.file_walk import files_below

# For a removed photo Flickr sends a small placeholder picture, which download tools save under the
# photo's name. It is recognized as many small files with identical bytes.
PLACEHOLDER_BYTES = 10_000
PLACEHOLDER_COPIES = 20


@dataclasses.dataclass(frozen=True)
class FoundPhotos:
    """The files of the listed photos.

    Attributes:
        paths: path of each listed photo, relative to the directory; None: missing.
        empty: number of files of 0 bytes, which are skipped.
        placeholders: number of files that are Flickr's placeholder for a removed photo.
        several: number of photos with several files; the file whose name matches the listed
            one best is used, then the first by name.
    """

    paths: tuple[str | None, ...]
    empty: int
    placeholders: int
    several: int


def find_photos(directory: pathlib.Path, listed: Sequence[str]) -> FoundPhotos:
    """Finds the listed photos below a directory; reads only small files of equal size.

    Args:
        directory: any folder above the photos.
        listed: `folder/name` of each photo, as in Imagelist.txt.
    """
    rows_of_id = collections.defaultdict(list)
    for row, name in enumerate(listed):
        rows_of_id[photo_id(name)].append(row)
    row_of_name = {name: row for row, name in enumerate(listed)}
    candidates: dict[int, list[tuple[int, str]]] = collections.defaultdict(list)
    sizes, empty = {}, 0
    for path, entry in files_below(directory):
        if not path.lower().endswith(ENDINGS):
            continue
        matches = _matches(path, row_of_name, rows_of_id, listed)
        if not matches:
            continue
        size = entry.stat().st_size
        if not size:
            empty += 1
            continue
        sizes[path] = size
        for rank, row in matches:
            candidates[row].append((rank, path))
    placeholders = _placeholders(directory, sizes)
    paths: list[str | None] = [None] * len(listed)
    several = 0
    for row, found in candidates.items():
        found = sorted(match for match in found if match[1] not in placeholders)
        several += len(found) > 1
        if found:
            paths[row] = found[0][1]
    return FoundPhotos(tuple(paths), empty, len(placeholders), several)


def photo_id(name: str) -> str:
    """Returns Flickr's photo number, `2124494179`, of `folder/0001_2124494179.jpg`."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0].rsplit("_", 1)[-1]


def _matches(path, row_of_name, rows_of_id, listed) -> list[tuple[int, int]]:
    """Returns (rank, row) of the listed photos that a file may be; rank 0 is an exact match."""
    parts = path.split("/")
    exact = row_of_name.get("/".join(parts[-2:]))
    if exact is not None:
        return [(0, exact)]
    pieces = parts[-1].rsplit(".", 1)[0].split("_")
    numbers = [piece for piece in pieces if piece.isdigit()]
    # The name may start with a running number and end in an all-digit secret.
    known = [number for number in [*numbers[1:2], *numbers[:1]] if number in rows_of_id]
    if not known:
        return []
    rows = rows_of_id[known[0]]
    # If a photo is listed twice, the running number or the folder selects the row.
    own = [row for row in rows if listed[row].rsplit("/", 1)[-1].split(".")[0] in parts[-1]]
    own = [row for row in own if listed[row].split("/")[0] == pieces[0]] or own
    return [(1, row) for row in own] or [(2, row) for row in rows]


def _placeholders(directory: pathlib.Path, sizes: dict[str, int]) -> set[str]:
    by_size = collections.defaultdict(list)
    for path, size in sizes.items():
        if size <= PLACEHOLDER_BYTES:
            by_size[size].append(path)
    found: set[str] = set()
    for paths in by_size.values():
        if len(paths) >= PLACEHOLDER_COPIES:
            found.update(_copies(directory, paths))
    return found


def _copies(directory: pathlib.Path, paths: Iterable[str]) -> Iterator[str]:
    same = collections.defaultdict(list)
    for path in paths:
        same[hashlib.sha256((directory / path).read_bytes()).digest()].append(path)
    for group in same.values():
        if len(group) >= PLACEHOLDER_COPIES:
            yield from group
