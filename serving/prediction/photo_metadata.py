"""Keywords inside photos, written by the program exiftool, many photos at a time.

exiftool changes a copy beside each photo, with all other metadata as they are. The copy is read
back, and takes the place of the photo only if it holds exactly the keywords that were meant.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence

from biam_tf.errors import UserError
from biam_tf.files import folder_beside, writing_to
from biam_tf.photos import format_of
from serving.prediction.journal import FileState
from serving.prediction.keywords import (
    FIELDS,
    HIERARCHY,
    IPTC,
    IPTC_RECORD,
    SUBJECT,
    TAGS_LIST,
    XMP_FIELDS,
    FieldChange,
    Refused,
    Standing,
    changes_of,
    wanted_keywords,
)

PROGRAM = "exiftool"
INSTALL = (
    "install it: apt install libimage-exiftool-perl, brew install exiftool, or from exiftool.org"
)
_CONFIG = pathlib.Path(__file__).with_name("exiftool.config")
_TAGS = {
    SUBJECT: "XMP-dc:Subject",
    TAGS_LIST: "XMP-digiKam:TagsList",
    HIERARCHY: "XMP-lr:HierarchicalSubject",
    IPTC: "IPTC:Keywords",
}
_RECORDS = {
    **{field: f"XMP-biam:{place.record}" for field, place in XMP_FIELDS.items()},
    IPTC: f"XMP-biam:{IPTC_RECORD}",
}
_CHARSET, _DIGEST = "IPTC:CodedCharacterSet", "Photoshop:IPTCDigest"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
# Formats in which programs look for IPTC data.
_WITH_IPTC = ("JPEG", "TIFF")
# exiftool writes no metadata into these.
_WITHOUT_METADATA = ("BMP",)
_LONGEST_IPTC = 64  # bytes


@dataclasses.dataclass(frozen=True)
class _Held:
    """What a photo holds: its keywords, and what concerns writing IPTC."""

    standing: Standing
    has_iptc: bool
    is_utf8: bool
    has_digest: bool


@dataclasses.dataclass(frozen=True)
class Embedding:
    """What became of a photo.

    Attributes:
        changes: by field; none: it was left as it was.
        problem: why it was left as it was; None: nothing was wrong.
    """

    changes: dict[str, FieldChange]
    problem: str | None = None


def require_exiftool() -> None:
    """Raises a `UserError` if the program is not there."""
    if shutil.which(PROGRAM) is None:
        raise UserError(f"--xmp embed needs the program {PROGRAM}, which is not there; {INSTALL}")


def update_photos(
    photos: Sequence[tuple[str, Sequence[str]]], prefix: str, dry_run: bool
) -> list[Embedding]:
    """Brings the keywords inside photos in line with their tags.

    Args:
        photos: paths and names of tags; each photo once.
        prefix: levels above the tags, separated by `/`.
        dry_run: whether nothing is written.

    Returns:
        What became of each photo.

    Raises:
        UserError: a folder or disk cannot be written.
    """
    done: dict[str, Embedding] = {}
    states: dict[str, FileState] = {}
    targets: dict[str, str] = {}
    for path, _ in photos:
        try:
            targets[path] = _usable(path)
            states[path] = FileState.of(path)
        except Refused as error:
            done[path] = Embedding({}, str(error))
        except OSError as error:
            done[path] = Embedding({}, f"cannot be read ({error.strerror})")
    held = _read(list(targets.values()))
    plans: dict[str, tuple[dict[str, FieldChange], _Held]] = {}
    for path, names in photos:
        if path in done:
            continue
        found = held[targets[path]]
        if isinstance(found, str):
            done[path] = Embedding({}, found)
            continue
        changes = _planned(targets[path], found, names, prefix)
        if not changes or dry_run:
            done[path] = Embedding(changes)
        elif not os.access(targets[path], os.W_OK):
            done[path] = Embedding({}, "may not be written")
        else:
            plans[path] = changes, found
    if plans:
        with _copies([targets[path] for path in plans]) as copies:
            problems = _write(
                [(targets[path], copies[targets[path]], *plan) for path, plan in plans.items()]
            )
            again = _read([copy for copy in copies.values() if copy.exists()])
            for path, (changes, before) in plans.items():
                copy = copies[targets[path]]
                problem = _compare(again.get(str(copy)), before, changes, problems.get(str(copy)))
                if problem is None and FileState.of(path) != states[path]:
                    problem = "changed by another program meanwhile; run the same command again"
                if problem is None:
                    _put(copy, targets[path])
                done[path] = Embedding({} if problem else changes, problem)
    return [done[path] for path, _ in photos]


def _usable(path: str) -> str:
    """Returns the path of a photo itself, where `path` may be a link."""
    target = os.path.realpath(path)
    try:
        target.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused("its path is no UTF-8 text, which exiftool needs; rename it") from None
    if "\n" in target or "\r" in target:
        raise Refused("its path has a line break, which exiftool does not take; rename it")
    with open(target, "rb") as file:
        kind = format_of(file.read(64))
    if kind in _WITHOUT_METADATA:
        raise Refused(f"{kind} files hold no keywords; use --xmp sidecar")
    return target


def _planned(path: str, held: _Held, names: Sequence[str], prefix: str) -> dict[str, FieldChange]:
    wanted = wanted_keywords(names, prefix)
    fields = [field for field in FIELDS if field != IPTC]
    with open(path, "rb") as file:
        if format_of(file.read(64)) in _WITH_IPTC or held.standing.keywords.get(IPTC):
            fields.append(IPTC)
    # IPTC data that do not say that they are UTF-8 would show other letters in other programs.
    plain = held.has_iptc and not held.is_utf8
    wanted[IPTC] = [
        name
        for name in wanted[IPTC]
        if len(name.encode()) <= _LONGEST_IPTC and (name.isascii() or not plain)
    ]
    return changes_of(held.standing, wanted, fields)


def _read(paths: Sequence[str | pathlib.Path]) -> "dict[str, _Held | str]":
    """Returns what photos hold, or why they cannot be read, by path."""
    if not paths:
        return {}
    asked = [*_TAGS.values(), *_RECORDS.values(), _CHARSET, _DIGEST, "IPTC:all"]
    lines = ["-X", "-q", *(f"-{tag}" for tag in dict.fromkeys(asked)), "-Error", "-File:FileSize#"]
    answer = _run([*lines, *map(str, paths)])
    found: dict[str, _Held | str] = dict.fromkeys(map(str, paths), "exiftool cannot read it")
    try:
        root = ElementTree.fromstring(answer.stdout)
    except ElementTree.ParseError as error:
        raise UserError(f"{PROGRAM}: cannot be understood ({error}); {INSTALL}") from error
    for description in root:
        path = description.get(f"{_RDF}about", "")
        values: dict[str, list[str]] = {}
        for element in description:
            group, _, name = element.tag.rpartition("}")
            items = [item.text or "" for item in element.iter(f"{_RDF}li")] or [element.text or ""]
            values[f"{group.rstrip('/').split('/')[-2]}:{name}"] = items
        if "ExifTool:Error" in values:
            found[path] = f"exiftool cannot read it ({values['ExifTool:Error'][0]})"
            continue
        keywords = {field: values.get(tag, []) for field, tag in _TAGS.items()}
        own = {field: values.get(tag, []) for field, tag in _RECORDS.items()}
        found[path] = _Held(
            Standing(keywords, own),
            any(tag.startswith("IPTC:") for tag in values),
            values.get(_CHARSET) == ["UTF8"],
            _DIGEST in values,
        )
    return found


def _write(
    plans: "Sequence[tuple[str, pathlib.Path, dict[str, FieldChange], _Held]]",
) -> dict[str, str]:
    """Writes copies; returns what exiftool says of those that it could not, by copy."""
    lines: list[str] = []
    for path, copy, changes, held in plans:
        if IPTC in changes and not held.has_iptc:
            lines.append(f"-{_CHARSET}=UTF8")
        for field, change in changes.items():
            lines += _list_edits(_TAGS[field], change.removed, change.added)
            old = held.standing.own.get(field, ())
            gone = [item for item in old if item not in change.own]
            lines += _list_edits(
                _RECORDS[field], gone, [item for item in change.own if item not in old]
            )
        if held.has_digest and IPTC in changes:
            lines.append(f"-{_DIGEST}=new")
        # Not with -o: older versions then take a WebP file for another kind.
        with writing_to(path):
            shutil.copyfile(path, copy)
        lines += ["-q", "-overwrite_original", str(copy), "-execute"]
    answer = _run(lines[:-1])
    problems = {}
    said = answer.stderr.splitlines()
    for _, copy, _, _ in plans:
        about = [line for line in said if line.startswith("Error:") and str(copy) in line]
        if about:
            problems[str(copy)] = about[0].removeprefix("Error: ").partition(f" - {copy}")[0]
    return problems


def _list_edits(tag: str, removed: Sequence[str], added: Sequence[str]) -> list[str]:
    return [f"-{tag}-={text}" for text in removed] + [f"-{tag}+={text}" for text in added]


def _run(lines: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs exiftool with arguments that it reads from its standard input, one a line."""
    command = [PROGRAM, "-config", str(_CONFIG), "-@", "-", "-common_args"]
    command += ["-charset", "filename=UTF8", "-charset", "UTF8"]
    return subprocess.run(
        command,
        input="\n".join(lines) + "\n",
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@contextlib.contextmanager
def _copies(paths: Sequence[str]) -> Iterator[dict[str, pathlib.Path]]:
    """Yields paths for copies, each in a folder beside its photo that is removed at the end."""
    with contextlib.ExitStack() as stack:
        folders: dict[str, pathlib.Path] = {}
        copies = {}
        for number, path in enumerate(paths):
            parent = os.path.dirname(path)
            if parent not in folders:
                folders[parent] = stack.enter_context(
                    folder_beside(os.path.join(parent, "keywords"))
                )
            ending = os.path.splitext(path)[1]
            copies[path] = folders[parent] / f"{number}{ending}"
        yield copies


def _compare(
    copy: "_Held | str | None", before: _Held, changes: dict[str, FieldChange], said: str | None
) -> str | None:
    """Returns why a copy is not what was meant; None: it is."""
    if said is not None:
        return f"exiftool cannot write it ({said})"
    if not isinstance(copy, _Held):
        return copy or "exiftool has not written it"
    for field in FIELDS:
        change = changes.get(field)
        keywords = before.standing.keywords.get(field, ()) if change is None else change.result
        own = before.standing.own.get(field, ()) if change is None else change.own
        if list(copy.standing.keywords[field]) != list(keywords):
            return f"exiftool would write other keywords into {_TAGS[field]}"
        if sorted(copy.standing.own[field]) != sorted(own):
            return f"exiftool would write other keywords into {_RECORDS[field]}"
    return None


def _put(copy: pathlib.Path, target: str) -> None:
    """Moves a copy to its photo's place, with its permissions, owner and times."""
    with writing_to(target):
        status = os.stat(target)
        with contextlib.suppress(OSError, AttributeError):
            os.chown(copy, status.st_uid, status.st_gid)
        shutil.copystat(target, copy)
        with open(copy, "rb") as file:
            os.fsync(file.fileno())
        os.replace(copy, target)
