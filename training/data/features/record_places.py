"""Where the records of a feature store are in its shards, so that single ones can be read.

The length of a record follows from the photo's name, as all features of a store have one size. So
nothing of a shard is read to find its records.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from training.data.features.store import FeatureStore

# Of the TFRecord format: length (8 bytes) and its checksum (4), the record, its checksum (4).
_BEFORE, _AFTER = 12, 4


@dataclasses.dataclass(frozen=True, eq=False)
class RecordPlaces:
    """The places of N records.

    Attributes:
        files: paths of the shards.
        file_of: (N,) int32, position of each record's shard in `files`.
        begin: (N,) int64, its first byte in the shard.
        length: (N,) int32, its bytes, with those of the format around it.
    """

    files: tuple[str, ...]
    file_of: np.ndarray
    begin: np.ndarray
    length: np.ndarray

    @classmethod
    def of(cls, store: FeatureStore, rows: np.ndarray) -> "RecordPlaces":
        """Returns the places of records by their numbers (N,).

        Raises:
            UserError: a shard was not written by this project.
        """
        names = [image for part in store.parts for image in part.images]
        shards = store.shards_of(rows)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        file_of = np.empty(len(rows), np.int32)
        begin, length = np.empty(len(rows), np.int64), np.empty(len(rows), np.int32)
        lengths: dict[int, int] = {}  # of records, by the bytes of the photo's name
        for place, number in enumerate(shards.tolist()):
            own = store.shard_rows(number)
            bytes_of_names = [len(name.encode()) for name in names[own.start : own.stop]]
            for count in set(bytes_of_names) - lengths.keys():
                lengths[count] = _record_length(store, count)
            each = np.array([lengths[count] for count in bytes_of_names])
            ends = np.cumsum(each)
            size = store.shard_size(number)
            if int(ends[-1]) != size:
                raise UserError(
                    f"{store.shard_path(number)}: {size} bytes, but its records take {ends[-1]}; "
                    "delete the folder and extract the features again"
                )
            first, last = np.searchsorted(ascending, [own.start, own.stop])
            chosen, within = order[first:last], ascending[first:last] - own.start
            file_of[chosen], length[chosen] = place, each[within]
            begin[chosen] = ends[within] - each[within]
        files = tuple(store.shard_path(number) for number in shards.tolist())
        return cls(files, file_of, begin, length)

    def read(self, file_of: tf.Tensor, begin: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Returns serialized records (n,) in a graph; reads their bytes alone."""
        files = tf.constant(self.files)

        def one(file: tf.Tensor, begin: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
            records = tf.raw_ops.TFRecordDatasetV2(
                filenames=tf.gather(files, file),
                compression_type="",
                buffer_size=tf.cast(length, tf.int64),
                byte_offsets=begin,
            )
            return tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))

        places = tf.data.Dataset.from_tensor_slices((file_of, begin, length))
        records = places.map(
            lambda *place: one(*place).take(1).get_single_element(),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        together = records.batch(tf.size(file_of, tf.int64)).get_single_element()
        return tf.ensure_shape(together, file_of.shape)


def _record_length(store: FeatureStore, bytes_of_name: int) -> int:
    sizes: Sequence[int] = (
        bytes_of_name,
        2 * int(np.prod(store.region_shape)),
        2 * store.scene_size,
    )
    names = ("image", "region_features", "scene_feature")
    fields = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(size)]))
        for name, size in zip(names, sizes, strict=True)
    }
    example = tf.train.Example(features=tf.train.Features(feature=fields))
    return _BEFORE + example.ByteSize() + _AFTER
