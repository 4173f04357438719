"""Photos as a list names them, before they are imported, and the renaming of their classes."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from biam_tf.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class ListedPhoto:
    """A photo in a list.

    Attributes:
        location: path of the file, or its http(s) URL.
        split: "train", "val" or "test".
        labels: names of its classes, without duplicates.
    """

    location: str
    split: str
    labels: tuple[str, ...]


def new_names(
    names: Collection[str], renames: Sequence[str] = (), lower_case: bool = False
) -> dict[str, str]:
    """Returns the new name of each class.

    Args:
        names: of the classes in the list.
        renames: "OLD=NEW" for each class to rename. OLD is always a name in the list, not the NEW
            of another one.
        lower_case: whether all names are then converted to lower case.

    Raises:
        UserError: an entry is not "OLD=NEW", or its OLD is not a class or has two new names.
    """
    changes: dict[str, str] = {}
    for text in renames:
        old, _, new = map(str.strip, text.partition("="))
        if not old or not new:
            raise UserError(f"--rename {text!r}: expected OLD=NEW")
        if old not in names:
            raise UserError(f"--rename {text!r}: no class {old!r}{did_you_mean(old, names)}")
        if changes.setdefault(old, new) != new:
            raise UserError(
                f"--rename: {old!r} is renamed to both {changes[old]!r} and {new!r}; give one of "
                "them"
            )
    renamed = {name: changes.get(name, name) for name in names}
    return {old: new.lower() if lower_case else new for old, new in renamed.items()}


def rename_labels(photos: Iterable[ListedPhoto], names: Mapping[str, str]) -> list[ListedPhoto]:
    """Returns the photos with the new `names` of their labels, without duplicates."""
    return [
        dataclasses.replace(photo, labels=tuple(dict.fromkeys(names[old] for old in photo.labels)))
        for photo in photos
    ]
