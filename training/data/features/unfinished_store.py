"""An unfinished feature store, whose shards are written by one or many machines.

Until the store is complete, its folder also holds:

    partial.json                  the job: the manifest without shards
    images.json                   the list of photos, split into shards by position
    features-00000-of-00005.json  one per finished shard: photos, size, checksum, broken photos, and
                                  size, time and SHA-256 of each photo

A shard is finished when its JSON file exists, which is written after the features are in place. The
two files of a shard are written by one process only. Finally the JSON files are collected into the
manifest and `photos.npz` and removed.
"""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from biam_tf.errors import UserError
from training.data.features import manifest as store_manifest
from training.data.features import storage
from training.data.features.manifest import IMAGES, MANIFEST, PARTIAL, Shard, StoreManifest
from training.data.features.photo_files import PHOTOS, PhotoFiles, PhotoRecords
from training.data.input.broken_photos import BROKEN_PHOTOS, to_csv
from training.data.input.photo_reader import why_unreadable

ADDED = "added-"
_NOT_EXTRACTED = -2  # size and time of a photo without features


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
        text = json.dumps(shard.to_fields(), ensure_ascii=False) + "\n"
        storage.write_text(self._note(number), text)

    def finished(self, number: int, photos_directory: str | os.PathLike) -> Shard | None:
        """Returns shard `number`, or None if it is not finished.

        A shard is not finished if its file is missing or truncated, if a photo has changed since,
        or if a photo that was broken can now be read.
        """
        return self._finished(number, PhotoFiles(photos_directory))

    def _finished(self, number: int, files: PhotoFiles) -> Shard | None:
        try:
            shard = Shard.from_fields(json.loads(storage.read_text(self._note(number))))
        except (tf.errors.NotFoundError, ValueError, TypeError, AttributeError, RecursionError):
            return None
        if storage.size_of(storage.join(self.path, shard.file)) != shard.bytes:
            return None
        if any(why_unreadable(files.directory, p.image) is None for p in shard.broken):
            return None
        return shard if self._has_these_photos(shard, files) else None

    def _has_these_photos(self, shard: Shard, files: PhotoFiles) -> bool:
        """Returns whether the photos of a shard, as far as they are here, are as they were."""
        images = images_of_shard(self.job, self.images, shard.number)
        if len(shard.photos) != len(images):  # written by a version that did not record them
            return False
        touched = {
            image: (size, sha256)
            for (size, time, sha256), image, state in zip(
                shard.photos, images, files.states(images), strict=True
            )
            if state.exists and state != (size, time)
        }
        if any(not sha256 for _, sha256 in touched.values()):
            return False
        return files.sha256(list(touched)) == [sha256 for _, sha256 in touched.values()]

    @functools.cached_property
    def images(self) -> Sequence[str]:
        """The list of photos."""
        text = storage.read_text(storage.join(self.path, IMAGES))
        if store_manifest.fingerprint(text) != self.job.images:
            raise UserError(
                f"{storage.join(self.path, IMAGES)}: this is not the photo list of this store; "
                "delete the folder and extract the features again"
            )
        return json.loads(text)

    def all_finished(self, photos_directory: str | os.PathLike) -> dict[int, Shard]:
        """Returns the finished shards by number, ascending."""
        noted, files = noted_shards(self.path, self.job), PhotoFiles(photos_directory)
        shards = storage.for_each(lambda number: self._finished(number, files), noted)
        return {n: shard for n, shard in zip(noted, shards, strict=True) if shard is not None}

    def photos_of(self, numbers: Iterable[int]) -> list[str]:
        """Returns the photos of some shards."""
        shards = (images_of_shard(self.job, self.images, number) for number in numbers)
        return [image for photos in shards for image in photos]

    def finish(self, shards: Mapping[int, Shard]) -> None:
        """Completes the store: writes the manifest, and the list of broken photos if any.

        Args:
            shards: the finished shards by number. If some are missing, the store is complete
                without the photos of these.
        """
        nothing = itertools.repeat((_NOT_EXTRACTED, _NOT_EXTRACTED, ""))
        records = PhotoRecords.of_rows(
            record
            for number in range(self.job.shard_total)
            for record in (
                shards[number].photos
                if number in shards
                else itertools.islice(nothing, len(self.job.shard_photos(number)))
            )
        )
        done = (dataclasses.replace(shards[number], photos=()) for number in sorted(shards))
        manifest = dataclasses.replace(self.job, shards=tuple(done))
        records.write(storage.join(self.path, PHOTOS))
        if manifest.broken:
            storage.write_text(storage.join(self.path, BROKEN_PHOTOS), to_csv(manifest.broken))
        manifest.write(storage.join(self.path, MANIFEST))
        self.remove_leftovers()

    def end_early(self, photos_directory: str | os.PathLike) -> None:
        """Completes the store with the shards that are finished, or empties it if none is."""
        shards = self.all_finished(photos_directory)
        if shards:
            self.finish(shards)
            return
        storage.remove(storage.join(self.path, IMAGES))
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


def images_of_shard(job: StoreManifest, images: Sequence[str], number: int) -> Sequence[str]:
    """Returns the photos of shard `number` from the whole list."""
    photos = job.shard_photos(number)
    return images[photos.start : photos.stop]


def check_same_job(
    path: str, stored: StoreManifest, job: StoreManifest, with_photos: bool = True
) -> None:
    """Raises a `UserError` if the folder holds the features of another job.

    Args:
        path: the folder.
        stored: the job that it was written for.
        job: the job now.
        with_photos: whether another list of photos is another job.
    """
    differences = stored.differences(job, with_photos)
    if differences:
        raise UserError(
            f"{path}: holds the features of another job ({'; '.join(differences)}); use another "
            "folder for the new features or delete this one"
        )


def check_same_photos(path: str, job: StoreManifest) -> None:
    """Raises a `UserError` if the folder has the features of another list of photos."""
    for name in (MANIFEST, PARTIAL):
        if storage.is_file(storage.join(path, name)):
            check_same_job(path, StoreManifest.read(storage.join(path, name)), job)
            return


def photos_extracted(store: str | os.PathLike) -> int:
    """Returns the number of processed photos of a store, complete or not; 0 without a store."""
    path = storage.normal_path(store)
    return sum(map(_extracted_in, [path, *added_folders(path)]))


def _extracted_in(path: str) -> int:
    if storage.is_file(storage.join(path, MANIFEST)):
        shards = StoreManifest.read(storage.join(path, MANIFEST)).shards
        return sum(shard.count + len(shard.broken) for shard in shards)
    if not storage.is_file(storage.join(path, PARTIAL)):
        return 0
    job = StoreManifest.read(storage.join(path, PARTIAL))
    return sum(len(job.shard_photos(number)) for number in noted_shards(path, job))


def added_folders(path: str) -> list[str]:
    """Returns the folders in a store's folder with photos that were added later, in order."""
    names = sorted(name for name in storage.names_in(path) if name.startswith(ADDED))
    return [storage.join(path, name) for name in names]


def images_to_do(store: str, images: Sequence[str]) -> list[str]:
    """Returns the `images` in unfinished shards of an unfinished store."""
    if not storage.is_file(storage.join(store, PARTIAL)):
        return list(images)
    job = StoreManifest.read(storage.join(store, PARTIAL))
    done = set(noted_shards(store, job))
    return [image for row, image in enumerate(images) if row // job.shard_size not in done]
