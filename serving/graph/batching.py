"""How photos of different requests share one call of the backbone."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from biam_tf.errors import UserError

# Photos that may wait; beyond it a request is refused with UNAVAILABLE, which clients retry.
_WAITING_PHOTOS = 4096


@dataclasses.dataclass(frozen=True)
class Batching:
    """Settings of the batches that form inside the graph.

    Requests whose class lists differ can't be joined; their photos can. Batches form only
    around the backbone, which knows of no classes.

    Attributes:
        max_batch_size: photos in one call of the backbone; a request with more is split.
        timeout_ms: how long a photo may wait for company. 0: never longer than the backbone is
            busy anyway; batches still form, of what came in meanwhile.
        threads: calls of the backbone that run at the same time.
        whole_powers: fill batches up to a power of two, where every new size costs time: a GPU
            looks for its fastest kernels again.
    """

    max_batch_size: int
    timeout_ms: float
    threads: int
    whole_powers: bool = False

    def __post_init__(self):
        for name, limit in (("max_batch_size", _WAITING_PHOTOS), ("threads", 256)):
            value = getattr(self, name)
            if not 1 <= value <= limit:
                raise UserError(f"{name}: {value} is not valid; use 1 to {limit}")
        if not 0 <= self.timeout_ms <= 60_000:
            raise UserError(
                f"timeout_ms: {self.timeout_ms:g} is not valid; use 0 to 60000 milliseconds"
            )

    @classmethod
    def for_this_device(cls) -> "Batching":
        """The default: without a GPU nobody ever waits, as a batch is hardly faster there.

        One call at a time uses all cores of a CPU and lets the next batch form meanwhile.
        """
        if tf.config.list_physical_devices("GPU"):
            return cls(max_batch_size=64, timeout_ms=2.0, threads=2, whole_powers=True)
        return cls(max_batch_size=16, timeout_ms=0.0, threads=1)

    @property
    def batch_sizes(self) -> list[int]:
        """The sizes that a call of the backbone may have, the largest last."""
        if not self.whole_powers:
            return list(range(1, self.max_batch_size + 1))
        powers = [2**exponent for exponent in range(self.max_batch_size.bit_length())]
        return sorted({*powers, self.max_batch_size})

    def decorate(self, function: Callable, name: str) -> Callable:
        """Returns `function`, of one tensor (B, ...) to several, run in batches over its callers.

        Args:
            function: what is run on the batches.
            name: of the queue. It must be no other model's: two models with the same one, in
                one process, would run each other's photos.
        """
        batch = tf.nondifferentiable_batch_function(
            num_batch_threads=self.threads,
            max_batch_size=_WAITING_PHOTOS,  # of one request; split into allowed sizes
            batch_timeout_micros=round(1000 * self.timeout_ms),
            allowed_batch_sizes=self.batch_sizes,
            max_enqueued_batches=-(-_WAITING_PHOTOS // self.max_batch_size),
            autograph=False,
        )(function)

        def batched(photos):
            with tf.name_scope(name):  # what `batch` makes the name of its queue from
                return batch(photos)

        return batched
