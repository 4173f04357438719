"""The share of each batch that a process of a run reads, and reading through a tf.data service."""

import dataclasses
import itertools
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.sparse_labels import Labels
from training.data.features.record_places import RecordPlaces
from training.data.features.store import FeatureStore

# Records whose places are sent to a service at once.
PIECE = 2**20
_SECONDS_TO_ANSWER = 10


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that a process reads: consecutive photos, as many as the others.

    Attributes:
        index: of the process.
        count: the number of processes.
        replicas: the devices of the process, each of which takes an equal part of its share.
    """

    index: int = 0
    count: int = 1
    replicas: int = 1

    def examples(self, batch_size: int) -> int:
        """Returns the examples that a device takes of a batch."""
        return batch_size // (self.count * self.replicas)

    def of(self, order: np.ndarray, batch_size: int) -> np.ndarray:
        """Returns this process's part of an epoch's order, (whole batches * batch_size,)."""
        return order.reshape(-1, self.count, batch_size // self.count)[:, self.index].ravel()


WHOLE = Share()


def distributed_batches(
    strategy: tf.distribute.Strategy,
    source: Any,
    labels: Labels,
    batch_size: int,
    seed: int,
    epoch: int,
    skip_batches: int = 0,
) -> tf.distribute.DistributedDataset:
    """Returns the `training_batches` of a source for the devices of a strategy.

    Of several processes, each reads its own part of every batch and nothing else, if the source
    has the attribute `reads_shares`; otherwise each reads all of it.

    Args:
        strategy: of the run.
        source: a `FeatureSource`, a `PhotoSource`, or another object with `training_batches`.
        labels: (N, C) int8, aligned with the source's images.
        batch_size: of all devices together.
        seed: as for `training_batches`.
        epoch: likewise.
        skip_batches: likewise.
    """
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if not several or not getattr(source, "reads_shares", False):
        batches = source.training_batches(labels, batch_size, seed, epoch, skip_batches)
        return strategy.experimental_distribute_dataset(batches)

    def of_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
        processes = context.num_input_pipelines
        replicas = context.num_replicas_in_sync // processes
        share = Share(context.input_pipeline_id, processes, replicas)
        return source.training_batches(labels, batch_size, seed, epoch, skip_batches, share)

    return strategy.distribute_datasets_from_function(of_process)


def read_by_place(
    store: FeatureStore,
    places: RecordPlaces,
    order: np.ndarray,
    batch_size: int,
    service: str | None = None,
) -> tf.data.Dataset:
    """Returns batches `(positions in places (B,), features by name)` of records.

    The features are float16. Only the bytes of these records are read.

    Args:
        store: the feature store.
        places: of N records.
        order: (G * B,) positions in `places`.
        batch_size: B.
        service: `host:port` of the dispatcher of a tf.data service, whose workers read the
            records; None: this process reads them.

    Raises:
        UserError: nothing answers at `service`.
    """
    fields = [order, *(own[order] for own in (places.file_of, places.begin, places.length))]
    batches = [own.reshape(-1, batch_size) for own in fields]

    def read(number: tf.Tensor, index: tf.Tensor, *of_records: tf.Tensor) -> tuple:
        parsed = store.parse(places.read(*of_records))
        inputs = {name: parsed[name] for name in ("region_features", "scene_feature")}
        return number, index, inputs

    def piece(first: int, last: int) -> tf.data.Dataset:
        numbers = np.arange(first, last)
        source = tf.data.Dataset.from_tensor_slices(
            (numbers, *(own[first:last] for own in batches))
        )
        return source.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    if service is None:
        return piece(0, len(batches[0])).map(lambda number, index, inputs: (index, inputs))
    require_service(service)
    step = max(1, PIECE // batch_size)
    edges = [*range(0, len(batches[0]), step), len(batches[0])]

    def served() -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        for first, last in itertools.pairwise(edges):
            yield from _in_order(piece(first, last), first, last, service)

    _, *signature = piece(0, min(1, len(batches[0]))).element_spec
    return tf.data.Dataset.from_generator(served, output_signature=tuple(signature))


def _in_order(
    batches: tf.data.Dataset, first: int, last: int, service: str
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Batches number `first` to `last` from a service, whose workers send them in any order."""
    distributed = batches.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=f"grpc://{service}",
        )
    )
    waiting: dict[int, Sequence[Any]] = {}
    for number, *batch in distributed.as_numpy_iterator():
        waiting[int(number)] = batch
        while first in waiting:
            index, inputs = waiting.pop(first)
            yield index, inputs
            first += 1
    if first < last:
        raise UserError(
            f"data.service: {service}: batch {first} of an epoch did not come, because a worker of "
            "the service ended; the same command resumes from the last checkpoint"
        )


def require_service(service: str) -> None:
    """Raises a UserError if nothing answers at `host:port`."""
    host, _, port = service.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise UserError(
            f"data.service: {service}: nothing answers there ({error}); start the dispatcher of "
            "the tf.data service, as docs/features.md says, or leave the setting out"
        ) from None
