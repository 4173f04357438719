"""Chooses the batch size of feature extraction from the available memory."""

import tensorflow as tf

from biam_tf.errors import UserError
from training.machine import available_memory

# On a CPU, batches larger than 8 are no faster.
MOST_PHOTOS = 32
# Share of the free memory for activations; the rest is for prefetched photos, records and other
# programs.
SHARE = 0.25
# Assumed memory of a GPU, as TensorFlow does not report it; few have less.
LEAST_GPU = 8 << 30


def photos_at_a_time(features: tf.types.experimental.ConcreteFunction, memory: int) -> int:
    """Returns a power of two, at most `MOST_PHOTOS`, whose activations fit into memory.

    Args:
        features: computes the features of a batch; its batch size is the only unknown dimension.
        memory: free memory in bytes.

    Raises:
        UserError: one photo does not fit into memory.
    """
    photo = bytes_per_photo(features)
    fitting = int(SHARE * memory / photo)
    if not fitting:
        raise UserError(
            f"backbone.batch_size: the backbone needs {photo / 1e6:.0f} MB per photo and may use a "
            f"quarter of the {memory / 1e6:.0f} MB of free memory; use a smaller "
            "backbone.image_size, free some memory, or set backbone.batch_size to 1 to try anyway"
        )
    return min(MOST_PHOTOS, 1 << (fitting.bit_length() - 1))


def bytes_per_photo(features: tf.types.experimental.ConcreteFunction) -> int:
    """Estimates the bytes per photo: twice the inputs and outputs of the largest operation.

    Twice because a convolution copies its inputs.
    """
    return 2 * max(
        sum(_bytes(tensor) for tensor in (*operation.inputs, *operation.outputs))
        for operation in features.graph.get_operations()
    )


def free_memory() -> int:
    """Returns the free memory of the GPU, or of this machine without one, in bytes."""
    return LEAST_GPU if tf.config.list_logical_devices("GPU") else available_memory()


def _bytes(tensor: tf.Tensor) -> int:
    """Returns the bytes per photo of a tensor; 0 for a tensor without a batch dimension."""
    shape = tensor.shape
    if not shape.rank or shape[0] is not None or not shape[1:].is_fully_defined():
        return 0
    return tensor.dtype.size * shape[1:].num_elements()
