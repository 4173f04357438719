"""Reads stored backbone features from sharded TFRecord files.

A store is a folder, local or on a file system of TensorFlow (`gs://bucket/features`), written by
`training.data.features.extraction`:

    features-00000-of-00005.tfrecord   tf.train.Example: image, region_features, scene_feature
    images.json                        the relative paths of the photos, in record order
    photos.npz                         size, modification time and SHA-256 of each photo
    broken_photos.csv                  photos that could not be read and have no record
    manifest.json                      the backbone, and the checksum of every shard
    added-00001/                       the same files for photos that came or changed later

The manifest is written last: a store without it is not complete, see
`training.data.features.unfinished_store`.
"""

import functools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from training.data.features import storage
from training.data.features.manifest import (
    EARLY_PREPROCESSING,
    MANIFEST,
    PARTIAL,
    BackboneIdentity,
    StoreManifest,
    preprocessing,
)
from training.data.features.store_part import EXTRACT_AGAIN, StorePart, open_parts
from training.data.features.unfinished_store import photos_extracted
from training.data.input.broken_photos import BrokenPhoto

RECORD = {
    name: tf.io.FixedLenFeature([], tf.string)
    for name in ("image", "region_features", "scene_feature")
}
PREPROCESSINGS = (EARLY_PREPROCESSING, preprocessing("follow"), preprocessing("ignore"))
READ_BATCH = 64


class FeatureStore:
    """The stored features of photos, written by `extraction.extract_features`.

    Args:
        path: the store's folder.
        parts: its complete parts, the first one and those added later.
        rows: record numbers of photos, by the photos' names; None: the latest record of each.
        broken: photos that cannot be read; None: those of all parts that have no record.
        sha256: SHA-256 of photos' contents in hexadecimal, by the photos' names.

    Attributes:
        path: the store's folder.
        parts: its parts.
        sha256: as given; "" or missing where it is not known.
    """

    def __init__(
        self,
        path: str,
        parts: Sequence[StorePart],
        rows: Mapping[str, int] | None = None,
        broken: Collection[BrokenPhoto] | None = None,
        sha256: Mapping[str, str] | None = None,
    ):
        self.path = path
        self.parts = tuple(parts)
        self._shards = [shard for part in parts for shard in part.shards]
        # Record number of the first record of each shard, and the total.
        self._first_records = np.cumsum([0, *(shard.count for _, shard in self._shards)])
        self._given_rows, self._given_broken = rows, broken
        self.sha256 = dict(sha256 or {})

    def for_photos(
        self,
        rows: Mapping[str, int],
        broken: Collection[BrokenPhoto],
        sha256: Mapping[str, str] | None = None,
    ) -> "FeatureStore":
        """Returns the store as that of some photos, whose record numbers are known."""
        return FeatureStore(self.path, self.parts, rows, broken, sha256)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        *,
        backbone_name: str | None = None,
        image_size: int | None = None,
        weights_fingerprint: str | None = None,
    ) -> "FeatureStore":
        """Opens the store in the folder `path`.

        Args:
            path: the store's folder.
            backbone_name: expected backbone; None accepts any, also for the two below.
            image_size: expected side of the photos in pixels.
            weights_fingerprint: expected `biam_tf.backbones.weights_fingerprint`.

        Raises:
            UserError: no store, an unfinished one, one of another backbone, or one of which a
                shard is missing or has the wrong size.
        """
        path = storage.normal_path(path)
        if not storage.is_file(storage.join(path, MANIFEST)):
            raise UserError(_why_not_whole(path))
        parts = open_parts(path)
        stored = parts[0].manifest.backbone
        wanted = BackboneIdentity(
            backbone_name or stored.name,
            image_size or stored.image_size,
            weights_fingerprint or stored.weights,
        )
        for part in parts:
            _check_identity(part, wanted)
        return cls(path, parts)

    @property
    def manifest(self) -> StoreManifest:
        """The manifest of the first part."""
        return self.parts[0].manifest

    def __len__(self) -> int:
        """Returns the number of photos with features."""
        return len(self._row_of)

    @property
    def record_count(self) -> int:
        """Number of records, including those of photos that were replaced since."""
        return int(self._first_records[-1])

    @property
    def region_shape(self) -> tuple[int, int, int]:
        """Shape (h, w, d) of the region features of a photo."""
        return self.manifest.region_shape

    @property
    def scene_size(self) -> int:
        """Size of the scene feature of a photo."""
        return self.manifest.scene_size

    @property
    def nbytes(self) -> int:
        """Size of the features of all photos in memory, in bytes."""
        return len(self) * self.manifest.photo_nbytes

    @property
    def broken(self) -> tuple[BrokenPhoto, ...]:
        """The photos that could not be read during extraction."""
        if self._given_broken is not None:
            return tuple(self._given_broken)
        if len(self.parts) == 1:
            return self.parts[0].broken
        latest = {photo.image: photo for part in self.parts for photo in part.broken}
        return tuple(photo for image, photo in latest.items() if image not in self._row_of)

    @functools.cached_property
    def images(self) -> tuple[str, ...]:
        """The relative paths of the photos that have features, in record order."""
        return tuple(sorted(self._row_of, key=self._row_of.__getitem__))

    @functools.cached_property
    def _row_of(self) -> dict[str, int]:
        if self._given_rows is not None:
            return dict(self._given_rows)
        images = (image for part in self.parts for image in part.images)
        return {image: row for row, image in enumerate(images)}

    def rows(self, images: Sequence[str]) -> np.ndarray:
        """Returns the record number of each image, int64 (N,).

        Raises:
            UserError: the store has no features for some of the images.
        """
        missing = [image for image in images if image not in self._row_of]
        if missing:
            raise UserError(
                f"{self.path}: no features for {len(missing)} of {len(images)} photos, such as "
                f"{', '.join(missing[:5])}; the data set has changed since: use another folder "
                "(data.feature_store) or delete this one to extract the features again"
            )
        return np.fromiter((self._row_of[image] for image in images), np.int64, len(images))

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parses serialized records.

        Args:
            serialized: (B,) string tensor.

        Returns:
            `image` (B,) strings, `region_features` (B, h, w, d) and `scene_feature` (B, d_g),
            both float16.
        """
        record = tf.io.parse_example(serialized, RECORD)
        regions = tf.io.decode_raw(record["region_features"], tf.float16)
        scenes = tf.io.decode_raw(record["scene_feature"], tf.float16)
        count = serialized.shape[0] or -1  # static if the batch size is
        return {
            "image": record["image"],
            "region_features": tf.reshape(regions, (count, *self.region_shape)),
            "scene_feature": tf.reshape(scenes, (count, self.scene_size)),
        }

    def shards_of(self, rows: np.ndarray) -> np.ndarray:
        """Returns the numbers of the shards that contain `rows`, ascending."""
        return np.unique(np.searchsorted(self._first_records, rows, side="right") - 1)

    def shard_rows(self, number: int) -> range:
        """Returns the record numbers of shard `number`."""
        return range(*map(int, self._first_records[number : number + 2]))

    def shard_path(self, number: int) -> str:
        """Returns the path of shard `number`."""
        return self._shards[number][0]

    def shard_size(self, number: int) -> int:
        """Returns the bytes of shard `number`."""
        return self._shards[number][1].bytes

    def read(self, images: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Reads the features of `images` into memory, in the order of `images`.

        Returns:
            Region features (N, h, w, d) and scene features (N, d_g), both float16.

        Raises:
            UserError: the store lacks some of the images, or a shard is damaged.
        """
        return self.read_rows(self.rows(images))

    def read_rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads records into memory by their numbers, int64 (N,); as `read` otherwise."""
        regions = np.empty((len(rows), *self.region_shape), np.float16)
        scenes = np.empty((len(rows), self.scene_size), np.float16)
        # Records are read in store order; `order` maps them to their rows in the result.
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        shards = self.shards_of(rows)
        stored = np.concatenate([ascending[:0], *(self.shard_rows(number) for number in shards)])
        begin = 0
        for batch in self._batches(shards):
            batch_rows = stored[begin : begin + len(batch["image"])]
            begin += len(batch_rows)
            first, last = np.searchsorted(ascending, [batch_rows[0], batch_rows[-1] + 1])
            source = np.searchsorted(batch_rows, ascending[first:last])
            regions[order[first:last]] = batch["region_features"][source]
            scenes[order[first:last]] = batch["scene_feature"][source]
        if begin != len(stored):
            self.verify()
            raise UserError(f"{self.path}: {begin} records, expected {len(stored)}")
        return regions, scenes

    def _batches(self, shards: Sequence[int] | np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        if not len(shards):
            return
        files = [self.shard_path(number) for number in shards]
        records = tf.data.TFRecordDataset(files).batch(READ_BATCH)
        parsed = records.map(self.parse, num_parallel_calls=2, deterministic=True).prefetch(2)
        try:
            yield from parsed.as_numpy_iterator()
        except tf.errors.OpError:
            # TensorFlow does not report the file; `verify` does.
            self.verify()
            raise

    def verify(self) -> None:
        """Verifies the checksums of all shards.

        Raises:
            UserError: a shard is missing or damaged; the message names the first one.
        """
        for file, shard in self._shards:
            if not storage.is_file(file) or storage.sha256_of_file(file) != shard.sha256:
                raise UserError(f"{file}: damaged (wrong checksum); {EXTRACT_AGAIN}")


def _check_identity(part: StorePart, wanted: BackboneIdentity) -> None:
    manifest = part.manifest
    if wanted != manifest.backbone:
        raise UserError(
            f"{part.path}: these features are of the backbone {manifest.backbone}, not of "
            f"{wanted}; use another folder for its features (data.feature_store) or delete this one"
        )
    if manifest.preprocessing not in PREPROCESSINGS:
        raise UserError(
            f"{part.path}: the photos were preprocessed differently ({manifest.preprocessing}) "
            f"than by this version ({PREPROCESSINGS[1]}); {EXTRACT_AGAIN}"
        )


def _why_not_whole(path: str) -> str:
    if not storage.is_file(storage.join(path, PARTIAL)):
        return (
            f"{path}: no feature store here; `python -m training.extract_features` or a run with a "
            "frozen backbone creates one"
        )
    partial = StoreManifest.read(storage.join(path, PARTIAL))
    return (
        f"{path}: the extraction of features was not finished ({photos_extracted(path)} of "
        f"{partial.count} photos); run the interrupted command again to resume it"
    )
