"""New names for the classes of a list; classes that come to one name become one."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from biam_tf.errors import UserError, did_you_mean
from training.data.imports.listed_photo import ListedPhoto


def new_names(
    names: Collection[str], renames: Sequence[str] = (), lower_case: bool = False
) -> dict[str, str]:
    """Returns the name that each class comes to have.

    Args:
        names: of the classes as they are listed.
        renames: "OLD=NEW" each, all of them applied to the listed names: none to another's NEW.
        lower_case: whether all names are put in lower case after that.

    Raises:
        UserError: a text of another form, an OLD that is no class or is given two new names.
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
                f"--rename: {old!r} is to be both {changes[old]!r} and {new!r}; give one of them"
            )
    renamed = {name: changes.get(name, name) for name in names}
    return {old: new.lower() if lower_case else new for old, new in renamed.items()}


def rename_labels(photos: Iterable[ListedPhoto], names: Mapping[str, str]) -> list[ListedPhoto]:
    """Returns the photos with the new `names` of their labels, each once."""
    return [
        dataclasses.replace(photo, labels=tuple(dict.fromkeys(names[old] for old in photo.labels)))
        for photo in photos
    ]
