"""Classification by angle: features in the space of the class embeddings, against each class."""

import keras
from keras import layers, ops

from biam_tf.layers.bound_class_embeddings import holding
from biam_tf.layers.region_classifier import match_classes


@keras.saving.register_keras_serializable(package="biam_tf")
class CosineRegionClassifier(layers.Layer):
    """Scores features against every class by the cosine with the class's embedding.

    With the class embeddings A (classes, d_a) and their center μ::

        m = e Âᵀ,   Â = scale · (A - μ) / |A - μ|

    where e holds unit vectors, or sums of unit vectors of several sources, whose scores add up.
    A score cannot grow with the length of a feature or of an embedding, so that classes seen in
    training have no other way to outdo unseen ones than by direction.

    With anchors, of which the seen classes are the usual choice, a class is described by its
    embedding and by how near it is to each anchor, side by side. With the unit vectors a of a class
    and r_s of the anchors, both without the center::

        k = softmax_s(a · r_s / temperature)
        Â = scale · [a, weight · k / |k|] / sqrt(1 + weight²)

    A seen class so gets a direction almost its own, and an unseen one a mixture of its nearest seen
    classes'. Mixtures of base classifiers by softmax similarities are those of Changpinyo et al.,
    "Synthesized Classifiers for Zero-Shot Learning", CVPR 2016; the base classes here are the
    anchors, and the linear form in a stands beside the mixture.

    Args:
        scale: float, what a cosine of 1 scores.
        center: list of d_a numbers, or None for the origin. The mean of the seen classes'
            embeddings takes away what all names have in common.
        anchors: array-like (S, d_a), embeddings; or None, for none or where the weights are loaded
            afterwards. They are kept with the weights and never trained.
        num_anchors: int, S, needed where `anchors` is None.
        anchor_weight: float, the length of the similarities beside that of the embedding, 1.
        anchor_temperature: float, of the softmax over the anchors.
        anchor_dropout: float, rate at which anchors are left out of the softmax in training. A seen
            class without its own anchor is described as an unseen one is: by its neighbours.

    Input shape:
        A list of e `(..., d_a + S)` and class embeddings `(classes, d_a)`, without a batch axis.

    Output shape:
        Response maps `(..., classes)`.

    Raises:
        ValueError: the inputs are not this pair, or their last axes do not fit each other.
    """

    def __init__(
        self,
        scale=10.0,
        center=None,
        anchors=None,
        num_anchors=0,
        anchor_weight=1.0,
        anchor_temperature=0.1,
        anchor_dropout=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.scale = scale
        self.center = None if center is None else [float(number) for number in center]
        if anchors is not None:
            anchors = ops.convert_to_numpy(anchors)
            num_anchors = len(anchors)
        self.num_anchors = num_anchors
        self.anchor_weight = anchor_weight
        self.anchor_temperature = anchor_temperature
        self.anchor_dropout = anchor_dropout
        self._given_anchors = anchors
        if anchor_dropout:
            self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        """Checks that features and class embeddings lie in one space; creates the anchors."""
        if len(input_shape) != 2 or len(input_shape[1]) != 2:
            raise ValueError(
                "the inputs must be [features (..., d_a), class_embeddings (classes, d_a)]; got "
                f"shapes {input_shape}"
            )
        features_shape, (_, embedding_size) = input_shape
        if self.center is not None and len(self.center) != embedding_size:
            raise ValueError(
                f"class_embeddings of {embedding_size} numbers need a center of as many; got "
                f"{len(self.center)}"
            )
        if features_shape[-1] != embedding_size + self.num_anchors:
            raise ValueError(
                f"class_embeddings of {embedding_size} numbers and {self.num_anchors} anchors need "
                f"features of {embedding_size + self.num_anchors}; got shapes {input_shape}"
            )
        self.anchors = None
        if self.num_anchors:
            self.anchors = self.add_weight(
                shape=(self.num_anchors, embedding_size),
                initializer=holding(self._given_anchors),
                trainable=False,
                autocast=False,
                name="anchors",
            )

    def call(self, inputs, training=False):
        """Returns m (..., classes) for `[e, A]`."""
        e, class_embeddings = inputs
        return match_classes(e, self.class_weights(class_embeddings, training))

    def class_weights(self, class_embeddings, training=False):
        """Returns Â (classes, d_a + S): what does not depend on the photos."""
        # A softmax of temperature 0.1 needs cosines of more than 16 bits.
        directions = self._directions(class_embeddings)
        if self.anchors is not None:
            likeness = ops.matmul(directions, ops.transpose(self._directions(self.anchors)))
            likeness /= self.anchor_temperature
            if training and self.anchor_dropout:
                drawn = keras.random.uniform((self.num_anchors,), seed=self.seed_generator)
                # No infinity: where all are left out, all are as near as before.
                likeness -= 1e4 * ops.cast(drawn < self.anchor_dropout, "float32")
            similarities = ops.softmax(likeness, axis=-1)
            similarities = self.anchor_weight * ops.normalize(similarities, axis=-1)
            directions = ops.concatenate([directions, similarities], axis=-1)
            directions /= (1.0 + self.anchor_weight**2) ** 0.5
        return ops.cast(self.scale * directions, self.compute_dtype)

    def _directions(self, embeddings):
        embeddings = ops.cast(embeddings, "float32")
        if self.center is not None:
            embeddings -= ops.convert_to_tensor(self.center, "float32")
        return ops.normalize(embeddings, axis=-1)

    def orders_of_products(self, training=False):
        """Returns the function of e and A to two factors whose `match_classes` is m."""
        return (lambda e, class_embeddings: (e, self.class_weights(class_embeddings, training)),)

    def responses(self, e, class_weights):
        """Returns m (..., classes) for `class_weights` (classes, d_a + S)."""
        return match_classes(e, class_weights)

    def compute_output_shape(self, input_shape):
        """Returns the features' shape with the last axis replaced by the classes."""
        features_shape, embeddings_shape = input_shape
        return (*features_shape[:-1], embeddings_shape[0])

    def get_config(self):
        """Returns the constructor's arguments; the anchors themselves are a weight."""
        return {
            **super().get_config(),
            "scale": self.scale,
            "center": self.center,
            "num_anchors": self.num_anchors,
            "anchor_weight": self.anchor_weight,
            "anchor_temperature": self.anchor_temperature,
            "anchor_dropout": self.anchor_dropout,
        }
