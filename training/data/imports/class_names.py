"""The classes of a data set, from the names in a list: renamed, merged and divided into groups."""

import collections
import dataclasses
import pathlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from biam_tf.embeddings.names import normalize, table_key
from biam_tf.errors import UserError, did_you_mean
from training.data.class_list import read_class_list
from training.data.dataset import IGNORED, SEEN, UNSEEN
from training.data.imports.listed_photos import ClassNames, ListedPhoto, clean_name, some_of

_SHOWN = 10


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
        old, _, new = map(clean_name, text.partition("="))
        if not old or not new:
            raise UserError(f"--rename {text!r}: expected OLD=NEW")
        if old not in names:
            raise UserError(f"--rename {text!r}: no class {old!r}{_nearest(old, names)}")
        if changes.setdefault(old, new) != new:
            raise UserError(
                f"--rename: {old!r} is renamed to both {changes[old]!r} and {new!r}; give one of "
                "them"
            )
    renamed = {name: changes.get(name, name) for name in names}
    return {old: _lower(new) if lower_case else new for old, new in renamed.items()}


def rename_labels(photos: Iterable[ListedPhoto], names: Mapping[str, str]) -> list[ListedPhoto]:
    """Returns the photos with the new `names` of their labels, without duplicates.

    Where several classes get the same name, it is present if one of them is, and absent if all of
    them are.
    """
    merged = collections.Counter(names.values())

    def renamed(photo: ListedPhoto) -> ListedPhoto:
        labels = tuple(dict.fromkeys(names[old] for old in photo.labels))
        if photo.absent is None:
            return dataclasses.replace(photo, labels=labels)
        counts = collections.Counter(names[old] for old in dict.fromkeys(photo.absent))
        absent = (name for name, n in counts.items() if n == merged[name] and name not in labels)
        return dataclasses.replace(photo, labels=labels, absent=tuple(absent))

    return [renamed(photo) for photo in photos]


def twins_problem(renamed: Mapping[str, str], classes: ClassNames) -> str | None:
    """Returns which classes have names that differ only in case, or None.

    Args:
        renamed: new name of each class.
        classes: where the names stand in the list.
    """
    sources: dict[str, list[str]] = {}
    for old, new in renamed.items():
        sources.setdefault(new, []).append(old)
    alike: dict[str, list[str]] = {}
    for new in sources:
        alike.setdefault(_lower(unicodedata.normalize("NFKC", new).casefold()), []).append(new)
    groups = [twins for twins in alike.values() if len(twins) > 1]
    if not groups:
        return None
    texts = [
        " and ".join(f"{new!r} ({classes.places(sources[new][0])})" for new in twins)
        for twins in groups
    ]
    lowered = all(len({_lower(new) for new in twins}) == 1 for twins in groups)
    merge = "--lower-case" if lowered else "--rename OLD=NEW"
    count = "names" if len(groups) == 1 else f"{len(groups)} groups of names"
    return (
        f"{count} that differ only in upper and lower case or in the form of a letter: "
        f"{'; '.join(texts[:_SHOWN])}{_and_more(len(texts))}. Merge them with {merge}, or keep "
        "them as different classes with --keep-case"
    )


def similar_names(names: Iterable[str]) -> list[str]:
    """Returns a line about names that differ only in hyphens, underscores and other signs."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(table_key(name), []).append(name)
    groups = [" and ".join(map(repr, twins)) for twins in alike.values() if len(twins) > 1]
    if not groups:
        return []
    return [
        f"these classes have nearly the same name: {some_of(groups)}; --rename OLD=NEW merges them"
    ]


def class_groups(
    names: Sequence[str], unseen: str | None = None, ignored: str | None = None
) -> dict[str, str]:
    """Returns the group of each class.

    Args:
        names: of all classes.
        unseen: a file of class names, or names separated by commas; all others are seen.
        ignored: as `unseen`.

    Raises:
        UserError: names that are not classes, a class in both groups, or no seen class.
    """
    groups = dict.fromkeys(names, SEEN)
    chosen = {UNSEEN: _chosen(unseen, groups), IGNORED: _chosen(ignored, groups)}
    unknown = [
        f"--{group}: no class {name!r}{_nearest(name, names)}{_no_file(given)}"
        for (group, listed), given in zip(chosen.items(), (unseen, ignored), strict=True)
        for name in listed
        if name not in groups
    ]
    if unknown:
        raise UserError("\n".join(unknown[:_SHOWN]) + _and_more(len(unknown)))
    both = [name for name in chosen[UNSEEN] if name in chosen[IGNORED]]
    if both:
        raise UserError(
            f"--unseen and --ignored both name {', '.join(map(repr, both[:_SHOWN]))}"
            f"{_and_more(len(both))}; a class belongs to one group"
        )
    for group, listed in chosen.items():
        groups |= dict.fromkeys(listed, group)
    if names and SEEN not in groups.values():
        raise UserError("no class is left to train on: all classes are unseen or ignored")
    return groups


def _lower(name: str) -> str:
    return normalize(name.lower().replace("i\u0307", "i"))  # of the Turkish dotted capital


def _chosen(given: str | None, names: Collection[str]) -> list[str]:
    if given is None:
        return []
    if clean_name(given) in names:
        return [clean_name(given)]  # also a name with a comma
    listed = read_class_list(given).names if _is_file(given) else given.split(",")
    return list(dict.fromkeys(name for text in listed if (name := clean_name(text))))


def _is_file(text: str) -> bool:
    try:
        return pathlib.Path(text).is_file()
    except (OSError, ValueError):  # too long for a path: a list of names
        return False


def _no_file(given: str | None) -> str:
    looks_like_a_file = given is not None and "," not in given and given.endswith((".txt", ".csv"))
    return " (and there is no such file)" if looks_like_a_file and not _is_file(given or "") else ""


def _nearest(name: str, names: Collection[str]) -> str:
    """Returns `; did you mean 'x'?` without regard to case, or some of the names."""
    same = [known for known in names if known.casefold() == name.casefold()]
    hint = f"; did you mean {same[0]!r}?" if same else did_you_mean(name, names)
    if not hint.startswith("; known") or len(names) <= _SHOWN:
        return hint
    return f"; the {len(names)} classes are {some_of(sorted(names))}"


def _and_more(count: int) -> str:
    return f" and {count - _SHOWN} more" if count > _SHOWN else ""
