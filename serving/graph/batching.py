"""Batches of the backbone, shared by the photos of concurrent requests."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from biam_tf.errors import UserError

# More waiting photos are refused with UNAVAILABLE, which clients retry.
_WAITING_PHOTOS = 4096


@dataclasses.dataclass(frozen=True)
class Batching:
    """Settings of the batching inside the graph.

    Requests with different class lists can't be joined, but their photos can: only the backbone
    is batched, which does not depend on the classes.

    Attributes:
        max_batch_size: photos per call of the backbone; larger requests are split.
        timeout_ms: longest time in milliseconds that a photo waits for others. With 0 it waits
            only while the backbone is busy; batches still form of the photos waiting then.
        threads: concurrent calls of the backbone.
        whole_powers: whether to pad batches to a power of two. On a GPU every new batch size
            takes time, because its fastest kernels are searched again.

    Raises:
        UserError: a setting is out of range.
    """

    max_batch_size: int
    timeout_ms: float
    threads: int
    whole_powers: bool = False

    def __post_init__(self) -> None:
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
        """Returns the defaults for this machine: 16 photos, or 64 with a GPU.

        On a CPU photos never wait, because batches are hardly faster there, and one call at a
        time uses all cores while the next batch forms.
        """
        if tf.config.list_physical_devices("GPU"):
            return cls(max_batch_size=64, timeout_ms=2.0, threads=2, whole_powers=True)
        return cls(max_batch_size=16, timeout_ms=0.0, threads=1)

    @property
    def batch_sizes(self) -> list[int]:
        """The possible batch sizes, in ascending order."""
        if not self.whole_powers:
            return list(range(1, self.max_batch_size + 1))
        powers = [2**exponent for exponent in range(self.max_batch_size.bit_length())]
        return sorted({*powers, self.max_batch_size})

    def decorate(self, function: Callable, name: str) -> Callable:
        """Returns `function`, run on batches that its concurrent callers share.

        Args:
            function: takes one tensor (B, ...) and returns several with the same first axis.
            name: unique name of the queue: two models in one process with the same name would
                run each other's photos.
        """
        batch = tf.nondifferentiable_batch_function(
            num_batch_threads=self.threads,
            max_batch_size=_WAITING_PHOTOS,  # per request; split into allowed sizes
            batch_timeout_micros=round(1000 * self.timeout_ms),
            allowed_batch_sizes=self.batch_sizes,
            max_enqueued_batches=-(-_WAITING_PHOTOS // self.max_batch_size),
            autograph=False,
        )(function)

        def batched(photos: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.name_scope(name):  # from which `batch` makes the name of its queue
                return batch(photos)

        return batched
