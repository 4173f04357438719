"""The manifest of a feature store: the backbone, the photos and the files."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from biam_tf.errors import UserError
from biam_tf.photos import Orientation
from training.data.features import storage
from training.data.input.broken_photos import BrokenPhoto

FORMAT = 1
MANIFEST, PARTIAL, IMAGES = "manifest.json", "partial.json", "images.json"

# Of stores of version 0.1, which ignored orientation and transparency. They are still used for
# photos without any, see `finding`.
EARLY_PREPROCESSING = "biam_tf.photos.decode_photo: RGB in 0..255, resized straight to the square"


def preprocessing(orientation: Orientation) -> str:
    """Returns how photos are decoded and resized, as text for the manifest."""
    return f"{EARLY_PREPROCESSING}; transparency over white; orientation: {orientation}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
        file: name of the file.
        count: number of photos whose features it holds.
        bytes: size of the file.
        sha256: SHA-256 of the file in hexadecimal.
        broken: photos of this shard that could not be read, in the order of the photo list.
        photos: size in bytes, modification time in nanoseconds and SHA-256 ("" if not known) of
            each photo of the list, including broken ones. Only until the store is complete, which
            has them in a file of its own.
    """

    file: str
    count: int
    bytes: int
    sha256: str
    broken: tuple[BrokenPhoto, ...] = ()
    photos: tuple[tuple[int, int, str], ...] = ()

    @property
    def number(self) -> int:
        """The number of the shard, counted from 0, which is part of its file name."""
        return int(self.file.split("-")[1])

    def to_fields(self) -> dict[str, Any]:
        """Returns the fields for JSON; without `photos` if there are none."""
        fields = dataclasses.asdict(self)
        if not self.photos:
            del fields["photos"]
        return fields

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Shard":
        """Creates a shard from its `dataclasses.asdict`, which may have been stored as JSON."""
        broken = tuple(BrokenPhoto(**photo) for photo in fields.get("broken", ()))
        photos = tuple(
            (int(size), int(time), str(sha)) for size, time, sha in fields.get("photos", ())
        )
        return cls(**(fields | {"broken": broken, "photos": photos}))


@dataclasses.dataclass(frozen=True)
class BackboneIdentity:
    """Identifies a backbone: name, side of the photos in pixels, fingerprint of the weights."""

    name: str
    image_size: int
    weights: str

    def __str__(self) -> str:
        return f"{self.name} at {self.image_size} pixels with weights {self.weights}"


@dataclasses.dataclass(frozen=True)
class StoreManifest:
    """The manifest of a store.

    Attributes:
        backbone: the backbone that computed the features.
        preprocessing: how photos were decoded and resized.
        region_shape: (h, w, d) of one photo's region features.
        scene_size: d_g, length of one photo's scene feature.
        dtype: dtype of both.
        count: number of photos in the list, including broken ones.
        shard_size: photos per shard, including broken ones; the last shard may have fewer.
        images: SHA-256 of the list of photos, in the order of the records.
        shards: the finished shards, in order. A store whose list of photos changed before it was
            complete may lack some; the photos of these have no features in it.
        format: version of the store's format.
    """

    backbone: BackboneIdentity
    preprocessing: str
    region_shape: tuple[int, int, int]
    scene_size: int
    dtype: str
    count: int
    shard_size: int
    images: str
    shards: tuple[Shard, ...] = ()
    format: int = FORMAT

    @property
    def shard_total(self) -> int:
        """Number of shards of the complete store."""
        return -(-self.count // self.shard_size)

    @property
    def broken(self) -> tuple[BrokenPhoto, ...]:
        """The unreadable photos of the finished shards, in order."""
        return tuple(photo for shard in self.shards for photo in shard.broken)

    @property
    def photo_nbytes(self) -> int:
        """Bytes of one photo's features."""
        itemsize = np.dtype(self.dtype).itemsize
        return (math.prod(self.region_shape) + self.scene_size) * itemsize

    def shard_file(self, number: int) -> str:
        """Returns the file name of shard `number`, counted from 0."""
        return f"features-{number:05d}-of-{self.shard_total:05d}.tfrecord"

    def shard_photos(self, number: int) -> range:
        """Returns the positions of the photos of shard `number` in the photo list."""
        begin = number * self.shard_size
        return range(begin, min(begin + self.shard_size, self.count))

    def for_photos(self, images: Sequence[str]) -> "StoreManifest":
        """Returns the same job for other photos, without shards."""
        return dataclasses.replace(
            self, count=len(images), images=fingerprint(encode_images(images)), shards=()
        )

    def differences(self, now: "StoreManifest", with_photos: bool = True) -> list[str]:
        """Describes the differences between `now` and this job; ignores the finished shards.

        Args:
            now: another job.
            with_photos: whether another list of photos is a difference.
        """
        named: dict[str, tuple[Any, Any]] = {
            "backbone": (self.backbone.name, now.backbone.name),
            "image size": (self.backbone.image_size, now.backbone.image_size),
            "backbone weights": (self.backbone.weights, now.backbone.weights),
            "preprocessing": (self._preprocessing_as(now), now.preprocessing),
            "region features": (self.region_shape, now.region_shape),
            "scene feature": (self.scene_size, now.scene_size),
        }
        if with_photos:
            named["number of photos"] = (self.count, now.count)
            named["list of photos"] = (self.images[:16], now.images[:16])
        return [f"{what} {was}, now {is_}" for what, (was, is_) in named.items() if was != is_]

    def _preprocessing_as(self, now: "StoreManifest") -> str:
        """The preprocessing, or that of `now` for an early store, whose photos are compared."""
        is_early = self.preprocessing == EARLY_PREPROCESSING
        return now.preprocessing if is_early else self.preprocessing

    @property
    def orientation(self) -> Orientation:
        """Whether photos are turned upright as EXIF data say."""
        return "follow" if self.preprocessing == preprocessing("follow") else "ignore"

    def write(self, path: str) -> None:
        """Writes the manifest as JSON, atomically."""
        fields = dataclasses.asdict(self) | {"shards": [s.to_fields() for s in self.shards]}
        storage.write_text(path, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: str) -> "StoreManifest":
        """Reads a manifest that `write` wrote.

        Raises:
            UserError: the file is not a manifest or has another format version.
        """
        advice = "delete the store's folder and extract the features again"
        try:
            fields: dict[str, Any] = json.loads(storage.read_text(path))
            if fields["format"] != FORMAT:
                raise UserError(
                    f"{path}: format {fields['format']}, but this version reads format {FORMAT}; "
                    + advice
                )
            fields["backbone"] = BackboneIdentity(**fields["backbone"])
            fields["region_shape"] = tuple(fields["region_shape"])
            fields["shards"] = tuple(map(Shard.from_fields, fields["shards"]))
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: not the manifest of a feature store; {advice}") from error


def encode_images(images: Sequence[str]) -> str:
    """Returns the list of photos as JSON text, as stored and fingerprinted."""
    return json.dumps(list(images), indent=0, ensure_ascii=False) + "\n"


def fingerprint(text: str) -> str:
    """Returns the SHA-256 of `text` in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
