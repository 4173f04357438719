"""Types of annotations: tensors of Keras's functional API and of TensorFlow, and their shapes."""

from collections.abc import Sequence

import keras
import tensorflow as tf

Tensor = keras.KerasTensor | tf.Tensor
Shape = Sequence[int | None]
