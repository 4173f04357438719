"""What a feature store says about itself: whose features it holds, and in which files."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from biam_tf.errors import UserError
from training.data.features import storage
from training.data.input.broken_photos import BrokenPhoto

FORMAT = 1
MANIFEST, PARTIAL, IMAGES = "manifest.json", "partial.json", "images.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
        file: its name.
        count: photos whose features it holds.
        bytes: its size.
        sha256: its checksum in hexadecimal.
        broken: photos that belong here but could not be read, in the order of the photo list.
    """

    file: str
    count: int
    bytes: int
    sha256: str
    broken: tuple[BrokenPhoto, ...] = ()

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Shard":
        """Returns the shard that `dataclasses.asdict` gave `fields` of, also after JSON."""
        broken = tuple(BrokenPhoto(**photo) for photo in fields.get("broken", ()))
        return cls(**(fields | {"broken": broken}))


@dataclasses.dataclass(frozen=True)
class BackboneIdentity:
    """What makes two backbones the same: name, side of the photo in pixels, and weights."""

    name: str
    image_size: int
    weights: str

    def __str__(self) -> str:
        return f"{self.name} at {self.image_size} pixels with weights {self.weights}"


@dataclasses.dataclass(frozen=True)
class StoreManifest:
    """The contents of a store.

    Attributes:
        backbone: what computed the features.
        preprocessing: how a file became the pixels that the backbone was given.
        region_shape: (h, w, d) of one photo's region features.
        scene_size: d_g, length of one photo's scene feature.
        dtype: of both.
        count: photos in the list, broken ones included.
        shard_size: photos of the list a shard; the last one may have fewer.
        images: SHA-256 of the list of photos, in the order of the records.
        shards: the finished files, in order.
        format: of the store; another one belongs to another version of this program.
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
        """How many shards the whole store has."""
        return -(-self.count // self.shard_size)

    @property
    def broken(self) -> tuple[BrokenPhoto, ...]:
        """The photos of the finished shards that could not be read, in order."""
        return tuple(photo for shard in self.shards for photo in shard.broken)

    @property
    def photo_nbytes(self) -> int:
        """Bytes of one photo's features."""
        itemsize = np.dtype(self.dtype).itemsize
        return (math.prod(self.region_shape) + self.scene_size) * itemsize

    def shard_file(self, number: int) -> str:
        """Returns the name of shard `number`, counted from 0."""
        return f"features-{number:05d}-of-{self.shard_total:05d}.tfrecord"

    def shard_photos(self, number: int) -> range:
        """Returns the positions in the photo list that shard `number` holds."""
        begin = number * self.shard_size
        return range(begin, min(begin + self.shard_size, self.count))

    def differences(self, now: "StoreManifest") -> list[str]:
        """Says in which respects `now` is another job than this one; finished files aside."""
        named = {
            "backbone": (self.backbone.name, now.backbone.name),
            "image size": (self.backbone.image_size, now.backbone.image_size),
            "backbone weights": (self.backbone.weights, now.backbone.weights),
            "preprocessing": (self.preprocessing, now.preprocessing),
            "region features": (self.region_shape, now.region_shape),
            "scene feature": (self.scene_size, now.scene_size),
            "number of photos": (self.count, now.count),
            "list of photos": (self.images[:16], now.images[:16]),
        }
        return [f"{what} {was}, now {is_}" for what, (was, is_) in named.items() if was != is_]

    def write(self, path: str) -> None:
        """Writes the manifest as JSON; `path` never holds half of it."""
        fields = dataclasses.asdict(self)
        storage.write_text(path, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: str) -> "StoreManifest":
        """Reads what `write` wrote.

        Raises:
            UserError: the file is no manifest, or one of another version.
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
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: not the manifest of a feature store; {advice}") from error


def encode_images(images: Sequence[str]) -> str:
    """Returns the list of photos as the text that a store keeps and fingerprints."""
    return json.dumps(list(images), indent=0, ensure_ascii=False) + "\n"


def fingerprint(text: str) -> str:
    """Returns the SHA-256 of `text` in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
