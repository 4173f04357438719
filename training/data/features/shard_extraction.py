"""Computes the features of one shard; shared by local and Beam extraction."""

import itertools
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from biam_tf.backbones import fold_batch_norms, weights_fingerprint
from biam_tf.errors import UserError
from biam_tf.photos import Orientation
from training.data.features import manifest as store_manifest
from training.data.features import storage
from training.data.features.extraction_batch import free_memory, photos_at_a_time
from training.data.features.manifest import BackboneIdentity, Shard, StoreManifest
from training.data.features.onnx_runtime import Runtime, faster_runtime, onnx_features
from training.data.features.photo_files import PhotoFiles, PhotoState
from training.data.features.unfinished_store import UnfinishedStore
from training.data.input import photo_reader

SHARD_SIZE = 1024  # photos
# (positions in the shard's list of photos (B,), photos (B, S, S, 3))
Batches = Iterable[tuple[tf.Tensor, tf.Tensor]]


def describe_job(
    backbone: keras.Model,
    backbone_name: str,
    images: Sequence[str],
    shard_size: int,
    orientation: Orientation = "follow",
) -> StoreManifest:
    """Returns the manifest of the store to create, without shards."""
    if len(set(images)) != len(images) or not images:
        raise ValueError(f"{len(images)} images: expected at least one, without duplicates")
    outputs = backbone.output
    return StoreManifest(
        backbone=BackboneIdentity(
            backbone_name, backbone.inputs[0].shape[1], weights_fingerprint(backbone)
        ),
        preprocessing=store_manifest.preprocessing(orientation),
        region_shape=tuple(outputs["region_features"].shape[1:]),
        scene_size=outputs["scene_feature"].shape[-1],
        dtype="float16",
        count=len(images),
        shard_size=shard_size,
        images=store_manifest.fingerprint(store_manifest.encode_images(images)),
    )


class ShardExtractor:
    """Writes shards of a store in any order; several processes may write to the same store.

    The bytes of a shard depend only on its photos, the backbone and the batch size: no batch spans
    two shards, and broken photos are removed before batching.

    Args:
        backbone: model from `images` (B, S, S, 3) in 0..255 to a dict of `region_features`
            (B, h, w, d) and `scene_feature` (B, d_g).
        store: the store to write to.
        photos_directory: the folder that photos are relative to.
        batch_size: photos per batch; None: as many as fit into memory, see `extraction_batch`.
        runtime: what computes the features, as `backbone.runtime`.

    Raises:
        UserError: one photo does not fit into memory, or ONNX Runtime cannot compute the features.
    """

    def __init__(
        self,
        backbone: keras.Model,
        store: UnfinishedStore,
        photos_directory: str | os.PathLike,
        batch_size: int | None,
        runtime: Runtime = "tensorflow",
    ):
        self.store = store
        self.photos_directory = photos_directory
        self._features = _half_precision_features(backbone)
        self._batch_size = batch_size or photos_at_a_time(
            self._features.get_concrete_function(), free_memory()
        )
        self._onnx = None
        if runtime == "onnx":
            self._onnx = onnx_features(backbone)
        elif runtime == "auto":
            chosen, self._onnx = faster_runtime(backbone)
            print(f"features are computed by {chosen}", flush=True)

    def batches(self, shards: Sequence[Sequence[str]]) -> Iterator[Batches]:
        """Decodes the photos of several shards, with prefetching across shards.

        Args:
            shards: the photos of each shard; all but the last have the store's shard size.

        Yields:
            The batches of each shard; consume them before requesting those of the next.
        """
        job = self.store.job
        decoded = photo_reader.photo_batches(
            self.photos_directory,
            [image for shard in shards for image in shard],
            job.backbone.image_size,
            self._batch_size,
            job.shard_size,
            job.orientation,
        )
        grouped = itertools.groupby(decoded, lambda batch: int(batch[0][0]) // job.shard_size)
        ahead = next(grouped, None)
        for place in range(len(shards)):
            if ahead is None or ahead[0] != place:
                yield ()  # no photo of this shard can be read
                continue
            first = place * job.shard_size
            yield ((positions - first, photos) for positions, photos in ahead[1])
            ahead = next(grouped, None)

    def extract(
        self,
        number: int,
        images: Sequence[str],
        batches: Batches,
        update: Callable[[int], object] = lambda count: None,
    ) -> Shard:
        """Writes shard `number` and marks it as finished.

        Args:
            number: number of the shard.
            images: the photos of the shard.
            batches: the batches of `images`, from the method `batches`.
            update: called after each batch with its number of photos.

        Raises:
            UserError: features are not finite in float16.
        """
        path, name = self.store.path, self.store.job.shard_file(number)
        states = PhotoFiles(self.photos_directory).states(images)
        # A unique name, as a Beam runner may give the same shard to two machines.
        aside = storage.join(path, f"{name}.{uuid.uuid4().hex}.tmp")
        read = np.zeros(len(images), bool)
        try:
            with tf.io.TFRecordWriter(aside) as writer:
                for positions, photos in batches:
                    for position, record in self._records(images, positions.numpy(), photos):
                        writer.write(record)
                        read[position] = True
                    update(len(positions))
            broken = photo_reader.reasons(
                self.photos_directory,
                [images[i] for i in np.flatnonzero(~read).tolist()],
            )
            update(len(broken))
            checksum = storage.sha256_of_file(aside)
            size = storage.size_of(aside)
            assert size is not None  # just written
            photos = self._records_of(images, states, {photo.image for photo in broken})
            shard = Shard(name, int(read.sum()), size, checksum, broken, photos)
            storage.put_in_place(aside, storage.join(path, name))
        except BaseException:
            storage.remove(aside)
            raise
        self.store.add(number, shard)
        return shard

    def _records_of(
        self, images: Sequence[str], states: Sequence[PhotoState], broken: Collection[str]
    ) -> tuple[tuple[int, int, str], ...]:
        """Returns what identifies the photos of a shard, after its features were computed."""
        files = PhotoFiles(self.photos_directory)
        sha256 = files.sha256(images)
        changed = [
            image
            for image, before, now in zip(images, states, files.states(images), strict=True)
            if before != now
        ]
        if changed:
            raise UserError(
                f"{changed[0]} in {self.photos_directory} was changed while its features were "
                "computed; run the command again once nothing writes there any more"
            )
        return tuple(
            (*state, "" if image in broken else digest)
            for image, state, digest in zip(images, states, sha256, strict=True)
        )

    def _records(
        self, images: Sequence[str], positions: np.ndarray, photos: tf.Tensor
    ) -> Iterator[tuple[int, bytes]]:
        if self._onnx is None:
            regions, scenes, finite = (values.numpy() for values in self._features(photos))
        else:
            with np.errstate(over="ignore"):  # infinite in float16
                regions, scenes = (own.astype(np.float16) for own in self._onnx(photos))
            finite = np.isfinite(regions).all(axis=(1, 2, 3)) & np.isfinite(scenes).all(axis=1)
        if not finite.all():
            raise UserError(
                f"{images[positions[int(np.argmin(finite))]]}: the backbone "
                f"{self.store.job.backbone} computes features for this photo that are not finite "
                "or exceed 65504, the largest float16; check its weights"
            )
        for position, region, scene in zip(positions, regions, scenes, strict=True):
            yield position, _serialize(images[position], region, scene)


def _half_precision_features(backbone: keras.Model) -> tf.types.experimental.PolymorphicFunction:
    """Returns a graph function of the backbone: region and scene features, and which are finite."""
    folded = fold_batch_norms(backbone)

    @tf.function(
        input_signature=[tf.TensorSpec(backbone.inputs[0].shape, tf.float32)], autograph=False
    )
    def features(photos: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        outputs = folded(photos, training=False)
        regions = tf.cast(outputs["region_features"], tf.float16)  # (B, h, w, d)
        scenes = tf.cast(outputs["scene_feature"], tf.float16)  # (B, d_g)
        finite = tf.reduce_all(tf.math.is_finite(regions), axis=(1, 2, 3)) & tf.reduce_all(
            tf.math.is_finite(scenes), axis=1
        )
        return regions, scenes, finite

    return features


def _serialize(image: str, regions: np.ndarray, scene: np.ndarray) -> bytes:
    def feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    little_endian = np.dtype("<f2")
    fields = {
        "image": feature(image.encode()),
        "region_features": feature(regions.astype(little_endian, copy=False).tobytes()),
        "scene_feature": feature(scene.astype(little_endian, copy=False).tobytes()),
    }
    example = tf.train.Example(features=tf.train.Features(feature=fields))
    # The fields are a map, whose order would otherwise differ between processes.
    return example.SerializeToString(deterministic=True)
