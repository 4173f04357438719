"""Which photos, labels and classes a run used, as checksums that two people can compare.

Nothing in it depends on where the data lies, or on the order of rows and classes: who read the
same photos with the same labels has the same manifest. A photo counts by its name and the size of
its file, which costs a look at the folder and not at the bytes; `data.hash_photos: true` reads all
of them once more and notes a checksum of the contents as well.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import sha256_of
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split, TaggingDataset, add_texts
from training.data.input.broken_photos import BrokenPhoto

FORMAT = 1
_THREADS, _AT_A_TIME = 16, 4096
_NO_FILE = -1  # the size of a photo that lies elsewhere: its features came from another machine


@dataclasses.dataclass(frozen=True)
class SplitManifest:
    """One split.

    Attributes:
        photos: how many.
        names: SHA-256 of the photos' names, sorted.
        sizes: of the sizes of their files in bytes, in that order.
        labels: of their labels, in that order of photos and sorted classes.
        contents: of the checksums of their contents; None: they were not read for that.
    """

    photos: int
    names: str
    sizes: str
    labels: str
    contents: str | None = None


@dataclasses.dataclass(frozen=True)
class DataManifest:
    """The data of a run.

    Attributes:
        name: of the data set, as `data.name` says.
        fingerprint: of the data set as it was read; unlike all else here it depends on the order.
        classes: SHA-256 of the classes' names, sorted.
        groups: of each class's group, in that order.
        embeddings: of the class embeddings, in that order; no part of `hash`, as runs that differ
            in nothing else are worth comparing.
        splits: by name.
        excluded: photos that cannot be read and were left out, with the reason.
        format: of this file.
    """

    name: str
    fingerprint: str
    classes: str
    groups: str
    embeddings: str
    splits: dict[str, SplitManifest]
    excluded: tuple[BrokenPhoto, ...] = ()
    format: int = FORMAT

    @property
    def hash(self) -> str:
        """16 hex digits for photos, sizes, labels, classes and groups of all splits."""
        return _digest([self.split_hash(name) for name in sorted(self.splits)])[:16]

    def split_hash(self, name: str) -> str:
        """Returns 16 hex digits for one split: its photos, sizes and labels, and the classes."""
        return _split_hash(name, self.splits[name], self.classes, self.groups)

    def differences(self, other: "DataManifest") -> list[str]:
        """Says in which respects `other` is of other data, a sentence each; embeddings aside."""
        found = []
        if self.classes != other.classes:
            found.append("other classes")
        elif self.groups != other.groups:
            found.append("other seen and unseen groups of the same classes")
        for name in sorted({*self.splits, *other.splits}):
            if name not in self.splits or name not in other.splits:
                found.append(f"split {name}: only one of them has it")
                continue
            one, two = self.splits[name], other.splits[name]
            if one.names != two.names:
                found.append(f"split {name}: other photos ({one.photos} and {two.photos})")
                continue
            if one.sizes != two.sizes:
                found.append(f"split {name}: photos of the same names, but other sizes in bytes")
            elif None not in (one.contents, two.contents) and one.contents != two.contents:
                found.append(f"split {name}: photos of the same names, but other contents")
            if one.labels != two.labels and self.classes == other.classes:
                found.append(f"split {name}: other labels of the same photos")
        return found

    def to_json(self) -> str:
        """Returns the manifest as JSON, with the hashes that stand in metrics.json."""
        hashes = {name: self.split_hash(name) for name in self.splits}
        fields = {"hash": self.hash, "split_hashes": hashes, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: pathlib.Path) -> "DataManifest":
        """Reads what `to_json` wrote.

        Raises:
            UserError: the file is no manifest, or one of another version.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields["format"] != FORMAT:
                raise UserError(
                    f"{path}: format {fields['format']}, but this version reads format {FORMAT}"
                )
            del fields["hash"], fields["split_hashes"]
            fields["splits"] = {n: SplitManifest(**s) for n, s in fields["splits"].items()}
            fields["excluded"] = tuple(BrokenPhoto(**photo) for photo in fields["excluded"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{path}: not the manifest of a run's data ({error!r}); a run's folder must stay "
                "as training left it"
            ) from error


def describe_data(
    name: str,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
    excluded: Sequence[BrokenPhoto] = (),
    hash_photos: bool = False,
) -> DataManifest:
    """Returns the manifest of a data set.

    Args:
        name: `data.name`.
        dataset: without the photos that cannot be read.
        vocabulary: embeddings of its classes.
        excluded: the photos that cannot be read.
        hash_photos: also reads the contents of all photos.

    Raises:
        UserError: with `hash_photos`, a photo that is not there.
    """
    order = _sorted_classes(dataset)
    rows = {name: row for row, name in enumerate(vocabulary.names)}
    embeddings = vocabulary.embeddings[[rows[dataset.names[c]] for c in order]]
    return DataManifest(
        name=name,
        fingerprint=dataset.fingerprint,
        classes=_digest(dataset.names[c] for c in order),
        groups=_digest(dataset.groups[c] for c in order),
        embeddings=hashlib.sha256(np.ascontiguousarray(embeddings, "<f4").tobytes()).hexdigest(),
        splits={
            name: _describe_split(dataset, split, order, hash_photos)
            for name, split in dataset.splits.items()
        },
        excluded=tuple(excluded),
    )


def hash_of_split(dataset: TaggingDataset, name: str) -> str:
    """Returns the `DataManifest.split_hash` of a data set's split."""
    order = _sorted_classes(dataset)
    classes, groups = (_digest(own[c] for c in order) for own in (dataset.names, dataset.groups))
    split = _describe_split(dataset, dataset.split(name), order, hash_photos=False)
    return _split_hash(name, split, classes, groups)


def _split_hash(name: str, split: SplitManifest, classes: str, groups: str) -> str:
    return _digest([name, split.names, split.sizes, split.labels, classes, groups])[:16]


def _sorted_classes(dataset: TaggingDataset) -> np.ndarray:
    return np.array(sorted(range(len(dataset.names)), key=dataset.names.__getitem__), int)


def _describe_split(
    dataset: TaggingDataset, split: Split, order: np.ndarray, hash_photos: bool
) -> SplitManifest:
    rows = sorted(range(len(split)), key=split.images.__getitem__)
    images = [split.images[row] for row in rows]
    labels = hashlib.sha256()
    for row in rows:
        labels.update(split.labels[row, order].tobytes())
    directory = f"{dataset.directory}/"
    contents = None
    if hash_photos:
        contents = _digest(_checksums([directory + image for image in images]))
    return SplitManifest(
        photos=len(split),
        names=_digest(images),
        sizes=_digest(str(_size(directory + image)) for image in images),
        labels=labels.hexdigest(),
        contents=contents,
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return _NO_FILE


def _checksums(paths: Sequence[str]) -> Iterator[str]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(paths), _AT_A_TIME):
            yield from threads.map(_checksum, paths[start : start + _AT_A_TIME])


def _checksum(path: str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(
            f"data.hash_photos: {path} cannot be read ({error.strerror}); set it to false where "
            "the photos lie on another machine"
        ) from error


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    add_texts(digest, texts)
    return digest.hexdigest()
