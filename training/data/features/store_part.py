"""One part of a feature store: a list of photos whose features were extracted together.

A store is a folder with a first part. Photos that are new or have changed since are extracted into
parts of their own, in the folders `added-00001`, `added-00002` and so on; no part is ever changed.
"""

import dataclasses
import functools
import json

from biam_tf.errors import UserError
from training.data.features import manifest as store_manifest
from training.data.features import storage
from training.data.features.manifest import IMAGES, MANIFEST, Shard, StoreManifest
from training.data.features.photo_files import PHOTOS, PhotoRecords, written_at
from training.data.features.unfinished_store import added_folders, images_of_shard
from training.data.input.broken_photos import BrokenPhoto

EXTRACT_AGAIN = "delete the folder and extract the features again"


@dataclasses.dataclass(frozen=True)
class StorePart:
    """A complete part of a store.

    Attributes:
        path: the folder of the part.
        manifest: its manifest.
    """

    path: str
    manifest: StoreManifest

    @classmethod
    def open(cls, path: str) -> "StorePart":
        """Opens the part in the folder `path`, after checking the sizes of its shards.

        Raises:
            UserError: the manifest is damaged, or a shard is missing or has the wrong size.
        """
        manifest = StoreManifest.read(storage.join(path, MANIFEST))
        files = [storage.join(path, shard.file) for shard in manifest.shards]
        sizes = storage.for_each(storage.size_of, files)
        for shard, file, size in zip(manifest.shards, files, sizes, strict=True):
            if size is None:
                raise UserError(f"{file}: this shard is missing; {EXTRACT_AGAIN}")
            if size != shard.bytes:
                raise UserError(f"{file}: {size} bytes, expected {shard.bytes}; {EXTRACT_AGAIN}")
        return cls(path, manifest)

    @property
    def shards(self) -> list[tuple[str, Shard]]:
        """The path of each shard, and the shard."""
        return [(storage.join(self.path, shard.file), shard) for shard in self.manifest.shards]

    @property
    def count(self) -> int:
        """Number of photos with features."""
        return sum(shard.count for shard in self.manifest.shards)

    @functools.cached_property
    def _whole_list(self) -> list[str]:
        file = storage.join(self.path, IMAGES)
        text = storage.read_text(file) if storage.is_file(file) else ""
        if store_manifest.fingerprint(text) != self.manifest.images:
            raise UserError(f"{file}: this is not the photo list of this store; {EXTRACT_AGAIN}")
        return json.loads(text)

    @functools.cached_property
    def photos(self) -> list[str]:
        """The photos of all shards, including broken ones, in order."""
        job, images = self.manifest, self._whole_list
        shards = (images_of_shard(job, images, shard.number) for shard in job.shards)
        return [image for photos in shards for image in photos]

    @functools.cached_property
    def images(self) -> list[str]:
        """The photos with features, in the order of the records."""
        left_out = {photo.image for photo in self.broken}
        return [image for image in self.photos if image not in left_out]

    @property
    def broken(self) -> tuple[BrokenPhoto, ...]:
        """The photos that could not be read."""
        return self.manifest.broken

    @functools.cached_property
    def records(self) -> PhotoRecords | None:
        """What identifies the contents of `photos`; None: written by a version without this.

        Raises:
            UserError: the file is damaged.
        """
        file = storage.join(self.path, PHOTOS)
        if not storage.is_file(file):
            return None
        job = self.manifest
        whole = PhotoRecords.read(file, job.count)
        chosen = [row for shard in job.shards for row in job.shard_photos(shard.number)]
        return PhotoRecords(whole.states[chosen], whole.sha256[chosen])

    @functools.cached_property
    def written_at(self) -> int:
        """When the part was complete, in nanoseconds."""
        return written_at(storage.join(self.path, MANIFEST))


def open_parts(path: str) -> list[StorePart]:
    """Returns the complete parts of a store; none if its first part is not complete."""
    folders = [path, *added_folders(path)]
    whole = [folder for folder in folders if storage.is_file(storage.join(folder, MANIFEST))]
    return [StorePart.open(folder) for folder in whole] if path in whole else []
