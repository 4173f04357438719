"""How many photos a backbone takes at a time: no more than memory allows or than help."""

import tensorflow as tf

from biam_tf.errors import UserError
from training.machine import available_memory

# More photos at a time are no faster on a CPU, from 8 on.
MOST_PHOTOS = 32
# Photos may take so much of the memory that is free: the rest is for those decoded ahead, for
# records, and for other programs.
SHARE = 0.25
# TensorFlow does not tell how much a GPU has; hardly one has less.
LEAST_GPU = 8 << 30


def photos_at_a_time(features: tf.types.experimental.ConcreteFunction, memory: int) -> int:
    """Returns a power of two, at most `MOST_PHOTOS`, whose activations fit into the memory.

    Args:
        features: of a batch of photos, whose size is the one that the graph leaves open.
        memory: free bytes.

    Raises:
        UserError: there is not enough memory for one photo.
    """
    photo = bytes_per_photo(features)
    fitting = int(SHARE * memory / photo)
    if not fitting:
        raise UserError(
            f"backbone.batch_size: one photo takes the backbone {photo / 1e6:.0f} MB, and "
            f"{memory / 1e6:.0f} MB of memory are free, of which it may take a quarter; use a "
            "smaller backbone.image_size, free some memory, or set backbone.batch_size to 1 to "
            "try nevertheless"
        )
    return min(MOST_PHOTOS, 1 << (fitting.bit_length() - 1))


def bytes_per_photo(features: tf.types.experimental.ConcreteFunction) -> int:
    """Estimates what a photo more in a batch takes: twice the largest operation's in- and outputs.

    Twice, since a convolution copies its inputs to multiply them.
    """
    return 2 * max(
        sum(_bytes(tensor) for tensor in (*operation.inputs, *operation.outputs))
        for operation in features.graph.get_operations()
    )


def free_memory() -> int:
    """Returns the bytes that the device of a backbone has free: of this machine, or of a GPU."""
    return LEAST_GPU if tf.config.list_logical_devices("GPU") else available_memory()


def _bytes(tensor: tf.Tensor) -> int:
    """A tensor's bytes for one photo; 0 for one that is the same for any number of photos."""
    shape = tensor.shape
    if not shape.rank or shape[0] is not None or not shape[1:].is_fully_defined():
        return 0
    return tensor.dtype.size * shape[1:].num_elements()
