"""What a feature store says about itself: whose features it holds, and in which files."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from biam_tf.errors import UserError

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a store: its name, photos, size in bytes, and SHA-256 in hexadecimal."""

    file: str
    count: int
    bytes: int
    sha256: str


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
        count: photos in the whole store.
        shard_size: photos a shard; the last one may hold fewer.
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
    def photos_done(self) -> int:
        """How many photos the finished shards hold."""
        return sum(shard.count for shard in self.shards)

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

    def write(self, path: pathlib.Path) -> None:
        """Writes the manifest as JSON; `path` never holds half of it."""
        fields = dataclasses.asdict(self)
        write_atomically(path, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: pathlib.Path) -> "StoreManifest":
        """Reads what `write` wrote.

        Raises:
            UserError: the file is no manifest, or one of another version.
        """
        advice = "delete the store's folder and extract the features again"
        try:
            fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if fields["format"] != FORMAT:
                raise UserError(
                    f"{path}: format {fields['format']}, but this version reads format {FORMAT}; "
                    + advice
                )
            fields["backbone"] = BackboneIdentity(**fields["backbone"])
            fields["region_shape"] = tuple(fields["region_shape"])
            fields["shards"] = tuple(Shard(**shard) for shard in fields["shards"])
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


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes `text` to another name in the same folder, then renames: all of it or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
