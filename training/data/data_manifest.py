"""Checksums of the photos, labels and classes that a run used, to compare runs.

Except for `fingerprint`, a manifest does not depend on the location of the data or the order of
rows and classes: the same photos with the same labels give the same manifest. Photos are identified
by name and file size, without reading them; `data.hash_photos: true` also reads and hashes their
contents.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import sha256_of
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split, TaggingDataset, add_texts
from training.data.input.broken_photos import BrokenPhoto

FORMAT = 1
_THREADS, _AT_A_TIME = 16, 4096
_NO_FILE = -1  # size of a photo that is not on this machine, only its features are


@dataclasses.dataclass(frozen=True)
class SplitManifest:
    """The manifest of one split.

    Attributes:
        photos: number of photos.
        names: SHA-256 of the sorted names of the photos.
        sizes: SHA-256 of the file sizes in bytes, in the order of `names`.
        labels: SHA-256 of the labels, in the order of `names` and of the sorted classes.
        contents: SHA-256 of the checksums of the photos; None if they were not computed.
    """

    photos: int
    names: str
    sizes: str
    labels: str
    contents: str | None = None


@dataclasses.dataclass(frozen=True)
class DataManifest:
    """The manifest of the data of a run.

    Attributes:
        name: `data.name`.
        fingerprint: `TaggingDataset.fingerprint`; depends on the order of photos and classes.
        classes: SHA-256 of the sorted class names.
        groups: SHA-256 of the groups, in the order of `classes`.
        embeddings: SHA-256 of the class embeddings, in the order of `classes`; not part of `hash`,
            so that runs that differ only in the embeddings can be compared.
        splits: the manifests of the splits by name.
        excluded: photos that were left out because they cannot be read, with the reason.
        format: version of the file format.
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
        """Hash of the photos, sizes, labels, classes and groups of all splits, 16 hex digits."""
        return _digest([self.split_hash(name) for name in sorted(self.splits)])[:16]

    def split_hash(self, name: str) -> str:
        """Returns the hash of a split: photos, sizes, labels, classes and groups, 16 hex digits."""
        return _split_hash(name, self.splits[name], self.classes, self.groups)

    def differences(self, other: "DataManifest") -> list[str]:
        """Describes the differences from `other`, one line each; ignores embeddings."""
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
        """Returns the manifest as JSON, with the hashes that are also in metrics.json."""
        hashes = {name: self.split_hash(name) for name in self.splits}
        fields = {"hash": self.hash, "split_hashes": hashes, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: pathlib.Path) -> "DataManifest":
        """Reads a file written with `to_json`.

        Raises:
            UserError: the file is not a manifest or has another format version.
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
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{path}: not the data manifest of a run ({error!r}); the files in a run's "
                "folder must not be edited"
            ) from error


def describe_data(
    name: str,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
    excluded: Sequence[BrokenPhoto] = (),
    hash_photos: bool = False,
    sha256: Mapping[str, str] | None = None,
) -> DataManifest:
    """Returns the manifest of a data set.

    Args:
        name: `data.name`.
        dataset: the data set without unreadable photos.
        vocabulary: the class embeddings.
        excluded: the unreadable photos.
        hash_photos: whether to hash the contents of all photos.
        sha256: SHA-256 of photos' contents in hexadecimal, where they are known. A split of which
            all are known gets `contents` without reading its photos.

    Raises:
        UserError: a photo cannot be read, if `hash_photos` is set.
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
            name: _describe_split(dataset, split, order, hash_photos, sha256 or {})
            for name, split in dataset.splits.items()
        },
        excluded=tuple(excluded),
    )


def hash_of_split(dataset: TaggingDataset, name: str) -> str:
    """Returns `DataManifest.split_hash` for a split of a data set."""
    order = _sorted_classes(dataset)
    classes, groups = (_digest(own[c] for c in order) for own in (dataset.names, dataset.groups))
    split = _describe_split(dataset, dataset.split(name), order, hash_photos=False, sha256={})
    return _split_hash(name, split, classes, groups)


def _split_hash(name: str, split: SplitManifest, classes: str, groups: str) -> str:
    return _digest([name, split.names, split.sizes, split.labels, classes, groups])[:16]


def _sorted_classes(dataset: TaggingDataset) -> np.ndarray:
    return np.array(sorted(range(len(dataset.names)), key=dataset.names.__getitem__), int)


def _describe_split(
    dataset: TaggingDataset,
    split: Split,
    order: np.ndarray,
    hash_photos: bool,
    sha256: Mapping[str, str],
) -> SplitManifest:
    rows = sorted(range(len(split)), key=split.images.__getitem__)
    images = [split.images[row] for row in rows]
    labels = hashlib.sha256()
    split.labels.rows(rows).columns(order).update(labels)
    directory = f"{dataset.directory}/"
    contents = None
    if hash_photos:
        contents = _digest(_checksums([directory + image for image in images]))
    elif all(sha256.get(image) for image in images):
        contents = _digest(sha256[image] for image in images)
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
            f"data.hash_photos: {path} cannot be read ({error.strerror}); set it to false if "
            "the photos are on another machine"
        ) from error


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    add_texts(digest, texts)
    return digest.hexdigest()
