"""Types of annotations: tensors of Keras's functional API and of its backend, and their shapes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    Tensor = keras.KerasTensor | tf.Tensor
else:
    Tensor = Any  # importing TensorFlow for a name would slow down users of JAX and PyTorch

Shape = Sequence[int | None]
