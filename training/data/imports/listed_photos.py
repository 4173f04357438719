"""What a list of labeled photos says, before the photos are collected."""

import dataclasses
import functools
import pathlib
import unicodedata
from collections.abc import Iterable, Sequence

from biam_tf.embeddings.names import normalize

_PLACES_SHOWN = 3
# Characters without width that editors and web pages leave in names.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))


@dataclasses.dataclass(frozen=True)
class ListedPhoto:
    """A photo in a list.

    Attributes:
        location: path of the file, or its http(s) URL.
        split: "train", "val" or "test".
        labels: names of its classes, without duplicates.
        absent: names of the classes that it does not show, all others being unknown; None: it
            shows no class but `labels`.
        place: file and row or entry of the list, for messages.
    """

    location: str
    split: str
    labels: tuple[str, ...]
    absent: tuple[str, ...] | None = None
    place: str = ""


class ClassNames:
    """The class names of a list, in the order in which they are added, and where they stand."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}
        self._written: dict[str, dict[str, str]] = {}

    def add(self, written: str, place: str) -> str:
        """Adds a name; returns it in Unicode's form NFC, with single spaces between its words.

        Args:
            written: the name as the list has it, not empty.
            place: such as "labels.csv row 2"; the first three of a name are kept.
        """
        name = clean_name(written)
        self._counts[name] = self._counts.get(name, 0) + 1
        places = self._places.setdefault(name, [])
        if len(places) < _PLACES_SHOWN and place not in places:
            places.append(place)
        self._written.setdefault(name, {}).setdefault(written.strip(), place)
        return name

    @property
    def names(self) -> list[str]:
        """The names, in the order in which they were added."""
        return list(self._places)

    def places(self, name: str) -> str:
        """Returns where a name stands: its first places, and how many more there are."""
        more = self._counts[name] - len(self._places[name])
        return ", ".join(self._places[name]) + (f" and {more} more" if more > 0 else "")

    def update(self, other: "ClassNames") -> None:
        """Adds the names of another list after these."""
        for name, places in other._places.items():
            self._counts[name] = self._counts.get(name, 0) + other._counts[name]
            mine = self._places.setdefault(name, [])
            mine += [place for place in places if place not in mine][: _PLACES_SHOWN - len(mine)]
            self._written[name] = other._written[name] | self._written.get(name, {})

    def sort(self) -> None:
        """Sorts the names."""
        self._places = dict(sorted(self._places.items()))

    def merged(self) -> list[str]:
        """Returns a line for each name that the list writes in several ways."""
        return [
            f"{name!r} is also written {', '.join(others)}"
            for name, written in self._written.items()
            if (others := [_described(w, name, at) for w, at in written.items() if w != name])
            and len(written) > 1
        ]


@dataclasses.dataclass
class Listing:
    """What a reader of lists returns.

    Attributes:
        photos: in the order of the list, each once.
        classes: all classes, also those without a photo.
        notes: lines for the screen: how the list was read, what was left out and why.
        failed: photos that cannot be used, and why, by location.
    """

    photos: list[ListedPhoto] = dataclasses.field(default_factory=list)
    classes: ClassNames = dataclasses.field(default_factory=ClassNames)
    notes: list[str] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)


@functools.lru_cache(maxsize=1 << 16)  # tables repeat the same names in millions of rows
def clean_name(written: str) -> str:
    """Returns a name in NFC without invisible characters, with single spaces between its words."""
    return normalize(" ".join(written.translate(_INVISIBLE).split()))


def list_name(path: pathlib.Path) -> str:
    """Returns the name of a list for messages, with its folder where the name says nothing.

    Roboflow's lists have the same name in each folder, such as `train/_classes.csv`.
    """
    return f"{path.parent.name}/{path.name}" if path.name.startswith("_") else path.name


def some_of(things: Iterable[object], shown: int = _PLACES_SHOWN) -> str:
    """Returns the first things, separated by commas, and how many more there are."""
    things = list(things)
    more = f" and {len(things) - shown} more" if len(things) > shown else ""
    return ", ".join(map(str, things[:shown])) + more


def rows_text(rows: Sequence[int]) -> str:
    """Returns "row 2", or "rows 2, 3, 5 and 7 more"."""
    return f"{'row' if len(rows) == 1 else 'rows'} {some_of(rows)}"


def _described(written: str, name: str, place: str) -> str:
    if unicodedata.normalize("NFC", written) == name:
        return f"in another Unicode form ({place})"
    return f"{written!r} ({place})"
