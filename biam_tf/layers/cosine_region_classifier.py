"""Classification by angle: features in the space of the class embeddings, against each class."""

import keras
from keras import layers, ops

from biam_tf.layers.region_classifier import match_classes


@keras.saving.register_keras_serializable(package="biam_tf")
class CosineRegionClassifier(layers.Layer):
    """Scores features against every class by the cosine with the class's embedding.

    With the class embeddings A (classes, d_a) and their center μ::

        m = e Âᵀ,   Â = scale · (A - μ) / |A - μ|

    where e holds unit vectors, or sums of unit vectors of several sources, whose scores add up.
    A score cannot grow with the length of a feature or of an embedding, so that classes seen in
    training have no other way to outdo unseen ones than by direction.

    Args:
        scale: float, what a cosine of 1 scores.
        center: list of d_a numbers, or None for the origin. The mean of the seen classes'
            embeddings takes away what all names have in common.

    Input shape:
        A list of e `(..., d_a)` and class embeddings `(classes, d_a)`, without a batch axis.

    Output shape:
        Response maps `(..., classes)`.

    Raises:
        ValueError: the inputs are not this pair, or their last axes differ.
    """

    def __init__(self, scale=10.0, center=None, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.center = None if center is None else [float(number) for number in center]

    def build(self, input_shape):
        """Checks that features and class embeddings lie in one space."""
        if len(input_shape) != 2 or len(input_shape[1]) != 2:
            raise ValueError(
                "the inputs must be [features (..., d_a), class_embeddings (classes, d_a)]; got "
                f"shapes {input_shape}"
            )
        sizes = {input_shape[0][-1], input_shape[1][-1]}
        if self.center is not None:
            sizes.add(len(self.center))
        if len(sizes) != 1:
            raise ValueError(
                f"features, class_embeddings and center must be of one length; got {input_shape} "
                f"and a center of {None if self.center is None else len(self.center)} numbers"
            )

    def call(self, inputs):
        """Returns m (..., classes) for `[e, A]`."""
        e, class_embeddings = inputs
        return match_classes(e, self.class_weights(class_embeddings))

    def class_weights(self, class_embeddings):
        """Returns Â (classes, d_a): what does not depend on the photos."""
        class_embeddings = ops.cast(class_embeddings, self.compute_dtype)
        if self.center is not None:
            class_embeddings -= ops.convert_to_tensor(self.center, self.compute_dtype)
        return self.scale * ops.normalize(class_embeddings, axis=-1)

    def orders_of_products(self):
        """Returns the function of e and A to two factors whose `match_classes` is m."""
        return (lambda e, class_embeddings: (e, self.class_weights(class_embeddings)),)

    def responses(self, e, class_weights):
        """Returns m (..., classes) for `class_weights` (classes, d_a)."""
        return match_classes(e, class_weights)

    def compute_output_shape(self, input_shape):
        """Returns the features' shape with the last axis replaced by the classes."""
        features_shape, embeddings_shape = input_shape
        return (*features_shape[:-1], embeddings_shape[0])

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "scale": self.scale, "center": self.center}
