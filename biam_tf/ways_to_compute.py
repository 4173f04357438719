"""Which of several ways a layer computes its values: by Keras's backend, the device and the sizes.

All ways give the same values. This is the one place that chooses between them:

- The layers are written in `keras.ops`. Only TensorFlow has loops over blocks with gradients of
  their own (`biam_tf.layers.blockwise_attention`, `blockwise_scores`). They need little memory, fit
  the caches of a CPU, and cannot be compiled by XLA.
- On a GPU whole arrays are faster, as long as they fit, and XLA compiles them.

A backend is imported where it is used: `keras.backend.backend()` says which one that is.
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from math import prod
from typing import Literal

import keras

from biam_tf.tensor_types import Tensor

Kind = Literal["cpu", "gpu"]
Way = Literal["whole", "fused", "blocks"]

# Relation scores of one image from which on a CPU computes them in blocks: fewer in training, where
# those of the whole batch would be kept for the gradients.
RELATIONS_IN_TRAINING = 1 << 17
RELATIONS = 1 << 20
# Numbers in one array on a GPU: 2 GB in float32. A training step holds about four such arrays.
NUMBERS_ON_A_GPU = 1 << 29
# Images of a batch, and classes, whose numbers are not known when a layer is built.
ASSUMED_BATCH, ASSUMED_CLASSES = 256, 8192


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known, when a model is built, of how it will be used.

    Attributes:
        batch: number of images that a device computes at a time. Defaults to `ASSUMED_BATCH`.
        classes: number of classes. Defaults to `ASSUMED_CLASSES`.
        compiled: whether XLA will compile the model on any device, so that blocks are avoided
            where arrays fit. Defaults to `False`.
    """

    batch: int = ASSUMED_BATCH
    classes: int = ASSUMED_CLASSES
    compiled: bool = False


ANYWHERE = Plan()
_plan = contextvars.ContextVar("plan", default=ANYWHERE)
_written_out = contextvars.ContextVar("without_blocks", default=False)


@contextlib.contextmanager
def planned(plan: Plan) -> Iterator[None]:
    """Within it, layers are built for this use."""
    token = _plan.set(plan)
    try:
        yield
    finally:
        _plan.reset(token)


def plan_of_build() -> Plan:
    """Returns the plan that layers are built for here."""
    return _plan.get()


@contextlib.contextmanager
def without_blocks() -> Iterator[None]:
    """Within it, graphs of inference are traced without loops over blocks.

    Other formats than TensorFlow's, such as ONNX, have no arrays of blocks of unknown number. The
    values are the same, in more memory.
    """
    token = _written_out.set(True)
    try:
        yield
    finally:
        _written_out.reset(token)


def in_blocks() -> bool:
    """Returns whether loops over blocks may be used: with TensorFlow, not in `without_blocks`."""
    return is_tensorflow() and not _written_out.get()


def is_tensorflow() -> bool:
    """Returns whether Keras computes with TensorFlow."""
    return keras.backend.backend() == "tensorflow"


@functools.cache
def device_kind() -> Kind:
    """Returns what Keras's backend computes on in this process. A TPU counts as a GPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        found = bool(tf.config.get_visible_devices("GPU"))
    elif backend == "jax":
        import jax

        found = jax.default_backend() != "cpu"
    elif backend == "torch":
        import torch

        found = torch.cuda.is_available()
    else:
        found = False
    return "gpu" if found else "cpu"


def has_float64() -> bool:
    """Returns whether the backend computes in float64; JAX does so only if it is told to."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]


def way_of_attention(
    heads: int, sizes: Sequence[int | None], training: bool, plan: Plan = ANYWHERE
) -> Way:
    """Returns how relation scores of all regions with all regions are computed.

    Args:
        heads: number of heads.
        sizes: (height, width) of the region features; `None` where unknown.
        training: whether gradients follow.
        plan: that the layer was built for.

    Returns:
        `"blocks"`, of some heads at a time; `"whole"`: one array of the batch; `"fused"`: by
        `keras.ops.dot_product_attention`, where an attention is one that it can express.
    """
    if not is_tensorflow():
        return "fused" if device_kind() == "gpu" else "whole"
    if None in sizes:
        return "blocks"
    relations = heads * prod(size for size in sizes if size is not None) ** 2
    if _prefers_whole_arrays(plan):
        return "whole" if plan.batch * relations <= NUMBERS_ON_A_GPU else "blocks"
    return "blocks" if relations >= (RELATIONS_IN_TRAINING if training else RELATIONS) else "whole"


def way_of_responses(
    images: int | None,
    regions: int | None,
    classes: int | None,
    at_a_time: int,
    plan: Plan = ANYWHERE,
) -> Way:
    """Returns how the responses of all classes in all regions are computed.

    Args:
        images: of a batch; `None`: unknown.
        regions: of an image; `None`: unknown.
        classes: `None`: unknown.
        at_a_time: responses in a block on a CPU.
        plan: that the layer was built for.

    Returns:
        `"blocks"`, of some classes at a time, or `"whole"`.
    """
    if not in_blocks():
        return "whole"
    if _prefers_whole_arrays(plan) and regions is not None and classes is not None:
        numbers = (plan.batch if images is None else images) * regions * classes
        return "whole" if numbers <= NUMBERS_ON_A_GPU else "blocks"
    if images is None or regions is None or classes is None:
        return "blocks"
    return "whole" if images * regions * classes <= at_a_time else "blocks"


def _prefers_whole_arrays(plan: Plan) -> bool:
    return plan.compiled or device_kind() == "gpu"


def take_in_rows(values: Tensor, columns: Tensor) -> Tensor:
    """Returns the values (B, n) of `values` (B, C) in the given columns (B, n) of each row."""
    if is_tensorflow():
        import tensorflow as tf

        # One operation, where `take_along_axis` has a dozen.
        return tf.gather(values, columns, batch_dims=1)
    return keras.ops.take_along_axis(values, columns, axis=1)


def index_of_largest(values: Tensor, axis: int) -> Tensor:
    """Returns the index of the largest value along an axis, the first one of several."""
    if is_tensorflow():
        import tensorflow as tf

        # Keras's argmax treats -0 by an operation that ONNX lacks.
        return tf.argmax(values, axis=axis)
    return keras.ops.argmax(values, axis=axis)


def require_channels_last(name: str) -> None:
    """Raises a ValueError if Keras is set to put channels first.

    Args:
        name: of the layer, which begins the message.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            f"{name} takes region features (batch, height, width, channels), and Keras is set to "
            "channels_first: transpose your features, and call "
            'keras.config.set_image_data_format("channels_last") before you build the layer'
        )
