"""Tags as keywords of photo software: where they stand, and how they join those that stand there.

A keyword is written into `dc:subject` (read by all programs), and with its place in a tree into
`digiKam:TagsList` and `lr:hierarchicalSubject`; `IPTC:Keywords` only inside photos. What was
written here is listed in a namespace of its own, so that a later run replaces that and nothing
else.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence

SUBJECT, TAGS_LIST, HIERARCHY, IPTC = "subject", "tags_list", "hierarchy", "iptc"
FIELDS = (SUBJECT, TAGS_LIST, HIERARCHY, IPTC)

DC = "http://purl.org/dc/elements/1.1/"
DIGIKAM = "http://www.digikam.org/ns/1.0/"
LIGHTROOM = "http://ns.adobe.com/lightroom/1.0/"
# Names what was written here; a program that does not know it keeps it.
OWN = "http://ns.biam-tf.org/keywords/1.0/"


@dataclasses.dataclass(frozen=True)
class Field:
    """Where a list of keywords stands in XMP.

    Attributes:
        namespace: of the property.
        name: of the property.
        container: RDF's kind of list where there is none yet.
        record: name of the property in `OWN` that lists what was written here.
    """

    namespace: str
    name: str
    container: str
    record: str


XMP_FIELDS: dict[str, Field] = {
    SUBJECT: Field(DC, "subject", "Bag", "WrittenSubject"),
    TAGS_LIST: Field(DIGIKAM, "TagsList", "Seq", "WrittenTagsList"),
    HIERARCHY: Field(LIGHTROOM, "hierarchicalSubject", "Bag", "WrittenHierarchicalSubject"),
}
IPTC_RECORD = "WrittenKeywords"


class Refused(Exception):
    """A photo or sidecar that was left as it was, and why."""


@dataclasses.dataclass(frozen=True)
class Standing:
    """What stands in a sidecar or photo.

    Attributes:
        keywords: by field, in their order.
        own: those of them that were written here, by field.
    """

    keywords: Mapping[str, Sequence[str]]
    own: Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class FieldChange:
    """What is to be done to a list of keywords.

    Attributes:
        removed: keywords that were written here and are no longer wanted.
        added: keywords to add at the end.
        own: all keywords that were written here, afterwards.
        result: the whole list, afterwards.
    """

    removed: tuple[str, ...]
    added: tuple[str, ...]
    own: tuple[str, ...]
    result: tuple[str, ...]


def wanted_keywords(names: Sequence[str], prefix: str) -> dict[str, list[str]]:
    """Returns the keywords of each field for tags.

    Args:
        names: of the tags; a `/` or `|` in one is no step in a tree, and becomes a hyphen there.
        prefix: levels above the tags, separated by `/` (digiKam's sign) or `|` (Lightroom's);
            empty: none.
    """
    levels = [_clean(level) for level in re.split(r"[/|]", prefix) if _clean(level)]
    names = [_clean(name) for name in names]
    return {
        SUBJECT: list(names),
        TAGS_LIST: ["/".join([*levels, name.replace("/", "-")]) for name in names],
        HIERARCHY: ["|".join([*levels, name.replace("|", "-")]) for name in names],
        IPTC: list(names),
    }


def _clean(text: str) -> str:
    """Returns a text without control characters, which XML does not hold."""
    return "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in text).strip()


def merge(standing: Sequence[str], own: Sequence[str], wanted: Sequence[str]) -> FieldChange:
    """Returns how wanted keywords join those that stand there.

    Everything that was not written here stays. A keyword that stands there already, also in
    capitals, is not added and does not become one that was written here. A keyword that stands
    there twice is not taken out: one of the two is somebody else's.
    """
    own_now = {item for item in own if standing.count(item) == 1}
    keep = {_key(item) for item in wanted}
    removed = tuple(item for item in standing if item in own_now and _key(item) not in keep)
    result = [item for item in standing if item not in removed]
    there = {_key(item) for item in result}
    added = []
    for item in wanted:
        if _key(item) not in there:
            there.add(_key(item))
            added.append(item)
    kept = [item for item in result if item in own_now]
    return FieldChange(
        removed, tuple(added), tuple(dict.fromkeys([*kept, *added])), tuple([*result, *added])
    )


def _key(keyword: str) -> str:
    return unicodedata.normalize("NFC", keyword).casefold()


def changes_of(
    standing: Standing, wanted: Mapping[str, Sequence[str]], fields: Sequence[str]
) -> dict[str, FieldChange]:
    """Returns the changes of fields whose list, or list of what was written here, changes."""
    changes = {}
    for field in fields:
        own = standing.own.get(field, ())
        change = merge(standing.keywords.get(field, ()), own, wanted[field])
        if change.removed or change.added or set(change.own) != set(own):
            changes[field] = change
    return changes


def in_words(changes: Mapping[str, FieldChange]) -> str:
    """Returns what changes, as `+dog -cat`, each keyword once."""
    added = dict.fromkeys(item for field in (SUBJECT, IPTC) for item in _of(changes, field).added)
    gone = dict.fromkeys(item for field in (SUBJECT, IPTC) for item in _of(changes, field).removed)
    words = [f"+{item}" for item in added] + [f"-{item}" for item in gone]
    if not words:
        for field in (TAGS_LIST, HIERARCHY):
            change = _of(changes, field)
            words += [f"+{item}" for item in change.added] + [f"-{item}" for item in change.removed]
    return ", ".join(dict.fromkeys(words)) or "its list of what was written here"


def _of(changes: Mapping[str, FieldChange], field: str) -> FieldChange:
    return changes.get(field, FieldChange((), (), (), ()))
