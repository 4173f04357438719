"""A fixed matrix of class embeddings inside a model."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="biam_tf")
class BoundClassEmbeddings(layers.Layer):
    """Holds class embeddings as a constant that is saved with the model and never trained.

    Called on any tensor of the model, whose value it ignores, it returns the whole matrix; the
    call ties the constant into a functional model.

    Args:
        class_embeddings: array-like `(classes, embedding_size)`, or `None` where the weights
            are loaded afterwards.
        num_classes: int, needed where `class_embeddings` is `None`.
        embedding_size: int, likewise.

    Output shape:
        `(num_classes, embedding_size)`, without a batch axis.

    Raises:
        ValueError: `class_embeddings` is not a matrix.
    """

    def __init__(self, class_embeddings=None, num_classes=None, embedding_size=None, **kwargs):
        super().__init__(**kwargs)
        if class_embeddings is not None:
            class_embeddings = ops.convert_to_numpy(class_embeddings)
            if class_embeddings.ndim != 2:
                raise ValueError(
                    "class_embeddings must be a matrix (classes, embedding_size); got shape "
                    f"{class_embeddings.shape}"
                )
            num_classes, embedding_size = class_embeddings.shape
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.matrix = self.add_weight(
            shape=(num_classes, embedding_size),
            initializer=holding(class_embeddings),
            trainable=False,
            name="matrix",
        )

    def call(self, inputs):
        """Returns the matrix; `inputs` only ties it into the graph."""
        del inputs
        return ops.cast(self.matrix, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """Returns `(num_classes, embedding_size)`."""
        del input_shape
        return (self.num_classes, self.embedding_size)

    def get_config(self):
        """Returns the sizes; the matrix itself is a weight."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "embedding_size": self.embedding_size,
        }


def holding(values):
    """Returns the initializer of a weight that is `values`; of zeros where they are loaded later.

    Args:
        values: array of the weight's shape, or `None`.
    """
    if values is None:
        return "zeros"
    return lambda shape, dtype=None: ops.convert_to_tensor(values, dtype)
