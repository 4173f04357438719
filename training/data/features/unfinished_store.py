"""An unfinished feature store, whose shards are written by one or many machines.

Until the store is complete, its folder also holds:

    partial.json                  the job: the manifest without shards
    images.json                   the list of photos, split into shards by position
    features-00000-of-00005.json  one per finished shard: photos, size, checksum, broken photos

A shard is finished when its JSON file exists, which is written after the features are in place. The
two files of a shard are written by one process only. Finally the JSON files are collected into the
manifest and removed.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from biam_tf.errors import UserError
from training.data.features import manifest as store_manifest
from training.data.features import storage
from training.data.features.manifest import IMAGES, MANIFEST, PARTIAL, Shard, StoreManifest
from training.data.input.broken_photos import BROKEN_PHOTOS, to_csv
from training.data.input.photo_reader import why_unreadable


class UnfinishedStore:
    """The folder of an unfinished store.

    Attributes:
        path: the folder.
        job: the manifest of the complete store, without shards.
    """

    def __init__(self, path: str, job: StoreManifest):
        self.path = path
        self.job = job

    @classmethod
    def begin(cls, path: str, job: StoreManifest, images: Sequence[str]) -> "UnfinishedStore":
        """Starts the job, or resumes it if it was started before.

        Raises:
            UserError: the folder holds an unfinished store of another job.
        """
        partial = storage.join(path, PARTIAL)
        if storage.is_file(partial):
            begun = StoreManifest.read(partial)
            check_same_job(path, begun, job)
            return cls(path, begun)  # its shard size may differ
        storage.write_text(storage.join(path, IMAGES), store_manifest.encode_images(images))
        job.write(partial)
        return cls(path, job)

    def add(self, number: int, shard: Shard) -> None:
        """Marks a shard as finished, after its features are in place."""
        text = json.dumps(dataclasses.asdict(shard), ensure_ascii=False) + "\n"
        storage.write_text(self._note(number), text)

    def finished(self, number: int, photos_directory: str | os.PathLike) -> Shard | None:
        """Returns shard `number`, or None if it is not finished.

        A shard is not finished if its file is missing or truncated, or if a photo that was broken
        can now be read.
        """
        try:
            shard = Shard.from_fields(json.loads(storage.read_text(self._note(number))))
        except (tf.errors.NotFoundError, ValueError, TypeError):
            return None
        if storage.size_of(storage.join(self.path, shard.file)) != shard.bytes:
            return None
        if any(why_unreadable(photos_directory, p.image) is None for p in shard.broken):
            return None
        return shard

    def all_finished(self, photos_directory: str | os.PathLike) -> dict[int, Shard]:
        """Returns the finished shards by number, ascending."""
        noted = noted_shards(self.path, self.job)
        shards = storage.for_each(lambda number: self.finished(number, photos_directory), noted)
        return {n: shard for n, shard in zip(noted, shards, strict=True) if shard is not None}

    def finish(self, shards: Mapping[int, Shard]) -> None:
        """Completes the store: writes the manifest, and the list of broken photos if any."""
        manifest = dataclasses.replace(
            self.job, shards=tuple(shards[number] for number in range(self.job.shard_total))
        )
        if manifest.broken:
            storage.write_text(storage.join(self.path, BROKEN_PHOTOS), to_csv(manifest.broken))
        manifest.write(storage.join(self.path, MANIFEST))
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Removes the files that a complete store does not need."""
        names = storage.names_in(self.path)
        notes = {note_name(self.job, number) for number in range(self.job.shard_total)}
        leftovers = [n for n in names if n.endswith(".tmp")] + sorted(names & notes)
        storage.for_each(lambda name: storage.remove(storage.join(self.path, name)), leftovers)
        # Last: while this file exists, an interrupted cleanup is resumed.
        storage.remove(storage.join(self.path, PARTIAL))

    def _note(self, number: int) -> str:
        return storage.join(self.path, note_name(self.job, number))


def begin_or_open(store: str, job: StoreManifest, images: Sequence[str]) -> UnfinishedStore | None:
    """Returns the unfinished store to start or resume, or None if the store is complete.

    Raises:
        UserError: the folder holds the features of another job.
    """
    manifest = storage.join(store, MANIFEST)
    if not storage.is_file(manifest):
        return UnfinishedStore.begin(store, job, images)
    whole = StoreManifest.read(manifest)
    check_same_job(store, whole, job)
    if storage.is_file(storage.join(store, PARTIAL)):  # interrupted during cleanup
        UnfinishedStore(store, whole).remove_leftovers()
    return None


def note_name(job: StoreManifest, number: int) -> str:
    """Returns the name of the JSON file of shard `number`."""
    return job.shard_file(number).removesuffix(".tfrecord") + ".json"


def noted_shards(path: str, job: StoreManifest) -> list[int]:
    """Returns the numbers of the shards whose JSON file exists, ascending."""
    names = storage.names_in(path)
    return [number for number in range(job.shard_total) if note_name(job, number) in names]


def check_same_job(path: str, stored: StoreManifest, job: StoreManifest) -> None:
    """Raises a `UserError` if the folder holds the features of another job."""
    differences = stored.differences(job)
    if differences:
        raise UserError(
            f"{path}: holds the features of another job ({'; '.join(differences)}); use another "
            "folder for the new features or delete this one"
        )


def photos_extracted(store: str | os.PathLike) -> int:
    """Returns the number of processed photos of a store, complete or not; 0 without a store."""
    path = storage.normal_path(store)
    if storage.is_file(storage.join(path, MANIFEST)):
        return StoreManifest.read(storage.join(path, MANIFEST)).count
    if not storage.is_file(storage.join(path, PARTIAL)):
        return 0
    job = StoreManifest.read(storage.join(path, PARTIAL))
    return sum(len(job.shard_photos(number)) for number in noted_shards(path, job))


def images_to_do(store: str, images: Sequence[str]) -> list[str]:
    """Returns the `images` in unfinished shards of an unfinished store."""
    if not storage.is_file(storage.join(store, PARTIAL)):
        return list(images)
    job = StoreManifest.read(storage.join(store, PARTIAL))
    done = set(noted_shards(store, job))
    return [image for row, image in enumerate(images) if row // job.shard_size not in done]
