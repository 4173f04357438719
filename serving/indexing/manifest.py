"""The files of an index: what it holds, and its shards, which are added and never changed.

    index.json            facts about the index
    vocabulary.npz        the classes of the model; class_side.npz and thresholds.json likewise
    shard-000001.npy      vectors of up to 256 photos
    photos-000001.jsonl   which photos these are; written after the shard, which exists from then on
    broken.jsonl          one unreadable photo a line

A shard is two files of its own, so that an index of a million photos grows like one of a hundred,
and damage to a shard concerns no other photo.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from biam_tf.class_sides import ClassSide, LinearClasses, load_class_side
from biam_tf.errors import UserError
from biam_tf.files import append_line, replacing, sha256_of, write_text

FORMAT = 2
MANIFEST, VOCABULARY, CLASS_SIDE = "index.json", "vocabulary.npz", "class_side.npz"
THRESHOLDS, BROKEN, LOCK = "thresholds.json", "broken.jsonl", ".lock"
NEVER_READ_NS = -1

_LIST = re.compile(r"photos-(\d{6,})\.jsonl")
_SHARD = re.compile(r"shard-(\d{6,})\.npy")


@dataclasses.dataclass(frozen=True, slots=True)
class IndexedPhoto:
    """A photo file as it was indexed.

    Attributes:
        path: relative to the photo folder.
        size: in bytes.
        changed_ns: modification time in nanoseconds; -1: it could not be read and is tried again.
        status_ns: time of the last change of its status (of its place, name or contents), in
            nanoseconds; 0: unknown.
        digest: BLAKE2b of its contents, 16 bytes in hexadecimal; empty: unknown.
    """

    path: str
    size: int
    changed_ns: int
    status_ns: int = 0
    digest: str = ""

    @property
    def version(self) -> tuple[int, int]:
        """What differs, as a rule, when a file's contents were changed."""
        return self.size, self.changed_ns


def digest_of(contents: bytes) -> str:
    """Returns the `digest` of a photo's contents."""
    return hashlib.blake2b(contents, digest_size=16).hexdigest()


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of an index.

    Attributes:
        file: name of the file of vectors.
        sha256: checksum of the file.
        count: number of photos.
        folder: of the index.
        listed: its photos, of an index of an earlier form, which lists them elsewhere.
    """

    file: str
    sha256: str
    count: int
    folder: pathlib.Path = dataclasses.field(compare=False, repr=False)
    listed: tuple[IndexedPhoto, ...] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @property
    def path(self) -> pathlib.Path:
        """The file of vectors."""
        return self.folder / self.file

    @property
    def list_path(self) -> pathlib.Path:
        """The file that lists its photos."""
        return self.folder / f"photos-{self.file[len('shard-') : -len('.npy')]}.jsonl"

    @property
    def photos(self) -> tuple[IndexedPhoto, ...]:
        """Its photos, in the order of the file's rows, read anew with each use.

        Raises:
            UserError: the list is damaged.
        """
        if self.listed is not None:
            return self.listed
        try:
            with open(self.list_path, encoding="utf-8") as file:
                head, text = json.loads(file.readline()), file.readline().rstrip("\n")
            if hashlib.sha256(text.encode()).hexdigest() != head["list_sha256"]:
                raise ValueError("wrong checksum")
            return tuple(IndexedPhoto(*row) for row in json.loads(text))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{self.list_path} is damaged ({error})") from error

    def write_list(self, photos: Sequence[IndexedPhoto], replaces: Iterable[str] = ()) -> None:
        """Writes the list of its photos, with which the shard becomes part of the index.

        Args:
            photos: the photos.
            replaces: files of shards that are no longer part of the index.
        """
        text = json.dumps([dataclasses.astuple(photo) for photo in photos])
        head = {
            "file": self.file,
            "sha256": self.sha256,
            "photos": self.count,
            "list_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "replaces": list(replaces),
        }
        write_text(self.list_path, f"{json.dumps(head)}\n{text}\n")

    def remove(self) -> None:
        """Removes its files; the list first, so that what is left is no part of the index."""
        for path in (self.list_path, self.path):
            if not path.is_dir():  # another program's; no number is used twice
                path.unlink(missing_ok=True)

    def damage(self) -> str | None:
        """Returns what is wrong with its files, read as a whole; None if nothing is."""
        try:
            if sha256_of(self.path) != self.sha256:
                return "wrong checksum"
            if len(self.photos) != self.count:
                return "its list has another length"
        except OSError as error:
            return error.strerror or str(error)
        except UserError as error:
            return str(error)
        return None

    def vectors(self) -> np.ndarray:
        """Memory-maps the vectors (n, h w, d) float16.

        Raises:
            OSError, ValueError: the file is missing or damaged.
        """
        return np.load(self.path, mmap_mode="r")


@dataclasses.dataclass(frozen=True)
class IndexManifest:
    """The contents and origin of an index.

    Attributes:
        photo_folder: absolute path of the indexed folder.
        model: absolute path of the model version that embedded the photos.
        fingerprint: SHA-256 of that model's graph and weights.
        grid: (h, w), the regions of a photo.
        embedding_size: d_a, length of a class embedding.
        has_bias: whether a region embedding has one more number at its end, the classifier's
            bias.
        pooled: k; the score of a class is the mean of its k strongest responses.
        shards: the parts, in order.
        broken: (photo, reason) of each unreadable photo.
        format: version of the index format.
        class_side: kind of the function from class embeddings to vectors
            (`biam_tf.class_sides`); other kinds than "linear" have a file of their own.
        region_shape: (h, w, channels) of region features, if features are stored in place of
            vectors: each row of a shard has those of the regions, then those of the scene.
        damaged: (file, reason) of shards that are no longer whole.
    """

    photo_folder: str
    model: str
    fingerprint: str
    grid: tuple[int, int]
    embedding_size: int
    has_bias: bool
    pooled: int
    shards: tuple[Shard, ...] = ()
    broken: tuple[tuple[IndexedPhoto, str], ...] = ()
    format: int = FORMAT
    class_side: str = LinearClasses.kind
    region_shape: tuple[int, int, int] | None = None
    damaged: tuple[tuple[str, str], ...] = dataclasses.field(default=(), compare=False)

    def write(self, folder: pathlib.Path) -> None:
        """Writes the facts into the folder of the index, whole or not at all.

        Shards and broken photos have files of their own.
        """
        facts = dataclasses.asdict(dataclasses.replace(self, shards=(), broken=(), damaged=()))
        for other in ("shards", "broken", "damaged"):
            facts.pop(other)
        write_text(folder / MANIFEST, json.dumps({**facts, "format": FORMAT}, indent=1) + "\n")

    @classmethod
    def read(cls, folder: pathlib.Path) -> "IndexManifest":
        """Reads the facts of an index, and finds its shards, without reading their photos.

        Raises:
            UserError: it is missing or damaged, or has another format.
        """
        folder = pathlib.Path(folder)
        path = folder / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{folder} holds no index; make one with python -m serving.index"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path} can't be read: {error}; bring it back from a copy, or delete {folder} and "
                "index the photos again: python -m serving.index"
            ) from error
        if not isinstance(found, dict) or found.get("format") not in _READERS:
            raise UserError(
                f"{path} was written by another version; name another folder and index the photos "
                f"again: {remake(found)}"
            )
        try:
            parts = _READERS[found["format"]](folder, found)
            for name in ("grid", "region_shape"):
                if found.get(name) is not None:
                    found[name] = tuple(found[name])
            return cls(**{**found, **parts})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error!r}); bring it back from a copy, or delete {folder} and "
                f"index the photos again: {remake(found)}"
            ) from error

    def read_class_side(self, folder: pathlib.Path) -> ClassSide:
        """Returns the function from class embeddings to vectors.

        Raises:
            UserError: its file is missing or damaged.
        """
        if self.class_side == LinearClasses.kind:
            return LinearClasses(self.embedding_size, self.has_bias)
        return load_class_side(folder / CLASS_SIDE)

    def command(self, folder: pathlib.Path) -> str:
        """Returns the command that brings the index in line with its photos."""
        return remake({"model": self.model, "photo_folder": self.photo_folder}, str(folder))


def remake(facts: Any, index: str = "INDEX") -> str:
    """Returns the command that makes an index, as far as its facts are known."""
    facts = facts if isinstance(facts, dict) else {}
    model, photos = facts.get("model"), facts.get("photo_folder")
    model_dir = pathlib.Path(model).parent if isinstance(model, str) else "MODEL_DIR"
    return f"python -m serving.index {model_dir} {photos or 'PHOTO_FOLDER'} {index}"


def _read_first_form(folder: pathlib.Path, found: dict[str, Any]) -> dict[str, Any]:
    """An index whose manifest lists all photos."""
    shards = []
    for own in found.pop("shards"):
        photos = tuple(IndexedPhoto(**photo) for photo in own["photos"])
        shards.append(Shard(own["file"], own["sha256"], len(photos), folder, photos))
    broken = tuple((IndexedPhoto(**photo), reason) for photo, reason in found.pop("broken"))
    return {"shards": tuple(shards), "broken": broken}


def _read_second_form(folder: pathlib.Path, found: dict[str, Any]) -> dict[str, Any]:
    shards, damaged = _find_shards(folder)
    return {"shards": shards, "damaged": damaged, "broken": read_broken(folder)}


_READERS = {1: _read_first_form, FORMAT: _read_second_form}


def _find_shards(
    folder: pathlib.Path,
) -> tuple[tuple[Shard, ...], tuple[tuple[str, str], ...]]:
    """The shards of a folder, and those of which a file is missing or cut."""
    with os.scandir(folder) as entries:
        files = {entry.name for entry in entries}
    names = sorted((int(match[1]), name) for name in files if (match := _LIST.fullmatch(name)))
    shards: dict[str, Shard] = {}
    replaced: set[str] = set()
    damaged = []
    for number, name in names:
        file = f"shard-{number:06d}.npy"
        try:
            with open(folder / name, encoding="utf-8") as opened:
                head = json.loads(opened.readline())
            if head["file"] != file:
                raise ValueError(f"it is the list of {head['file']}")
            shards[file] = Shard(file, str(head["sha256"]), int(head["photos"]), folder)
            replaced.update(head["replaces"])
            if not os.path.getsize(folder / file):
                raise ValueError("empty")
        except OSError as error:
            damaged.append((file, error.strerror or str(error)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            damaged.append((file, f"{name}: {error}"))
    # The last one has no list yet while it is written, or was never completed.
    last = max((number for number, _ in names), default=0)
    for file in sorted(files):
        match = _SHARD.fullmatch(file)
        if match and int(match[1]) < last and f"photos-{match[1]}.jsonl" not in files:
            damaged.append((file, f"photos-{match[1]}.jsonl is missing"))
    # What was replaced is still there if the indexer was stopped at that moment.
    out = {file for file, _ in damaged} | replaced
    return (
        tuple(shard for file, shard in shards.items() if file not in out),
        tuple((file, reason) for file, reason in damaged if file not in replaced),
    )


def read_broken(folder: pathlib.Path) -> tuple[tuple[IndexedPhoto, str], ...]:
    """Returns the unreadable photos of an index; a damaged line is left out: it is tried again."""
    found = []
    try:
        lines = (folder / BROKEN).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    for line in lines:
        try:
            row, reason = json.loads(line)
            found.append((IndexedPhoto(*row), str(reason)))
        except (ValueError, TypeError, RecursionError):
            continue
    return tuple(found)


def add_broken(folder: pathlib.Path, broken: Iterable[tuple[IndexedPhoto, str]]) -> None:
    """Adds unreadable photos to an index."""
    text = "\n".join(_broken_line(*each) for each in broken)
    if text:
        append_line(folder / BROKEN, text)


def write_broken(folder: pathlib.Path, broken: Iterable[tuple[IndexedPhoto, str]]) -> None:
    """Writes the unreadable photos of an index anew."""
    write_text(folder / BROKEN, "".join(f"{_broken_line(*each)}\n" for each in broken))


def _broken_line(photo: IndexedPhoto, reason: str) -> str:
    return json.dumps([dataclasses.astuple(photo), reason])


def next_number(index: pathlib.Path) -> int:
    """Returns the number of the next shard: no number is used twice."""
    names = re.compile(r"(?:shard-(\d{6,})\.npy|photos-(\d{6,})\.jsonl)")
    with os.scandir(index) as entries:
        found = [names.fullmatch(entry.name) for entry in entries]
    return max((int(match[1] or match[2]) for match in found if match), default=0) + 1


def write_shard(
    index: pathlib.Path,
    photos: Sequence[IndexedPhoto],
    vectors: np.ndarray,
    number: int | None = None,
    replaces: Iterable[str] = (),
) -> Shard:
    """Writes photos and their vectors (n, h w, d) float16 as a shard of an index.

    Args:
        index: folder of the index.
        photos: the photos.
        vectors: their vectors, in the same order.
        number: of the shard; None: the next.
        replaces: files of shards that are no longer part of the index.
    """
    file = f"shard-{next_number(index) if number is None else number:06d}.npy"
    with replacing(index / file) as partial:
        with open(partial, "wb") as opened:
            np.save(opened, vectors)
        sha256 = sha256_of(partial)
    shard = Shard(file, sha256, len(photos), index)
    shard.write_list(photos, replaces)
    return shard
