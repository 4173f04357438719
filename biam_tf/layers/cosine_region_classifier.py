"""Classification by the angle between features and class embeddings."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike

from biam_tf.class_sides import DirectionClasses
from biam_tf.layers.bound_class_embeddings import array_initializer
from biam_tf.layers.region_classifier import Contraction, match_classes
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import require_channels_last


@keras.saving.register_keras_serializable(package="biam_tf")
class CosineRegionClassifier(layers.Layer):
    """Scores features against every class by the cosine with the class's embedding.

    With the class embeddings A (classes, d_a) and their center μ::

        m = e Âᵀ,   Â = scale · (A - μ) / |A - μ|

    where e holds unit vectors, or sums of unit vectors of several sources, whose scores add up.
    The length of a feature or of an embedding does not change a score, so that classes seen in
    training cannot outscore unseen ones by length, only by direction.

    With anchors, usually the seen classes, a class is described by its embedding concatenated
    with its similarities to the anchors. With the unit vectors a of a class and r_s of the
    anchors, both centered::

        k = softmax_s(a · r_s / temperature)
        Â = scale · [a, weight · k / |k|] / sqrt(1 + weight²)

    A seen class thus gets a direction almost of its own, and an unseen one a mixture of those of
    its nearest seen classes. Mixtures of base classifiers by softmax similarities are from
    Changpinyo et al., "Synthesized Classifiers for Zero-Shot Learning", CVPR 2016; here the
    anchors are the base classes, and the linear form in a is added to the mixture.

    The class side, Â, is computed in float32 under any dtype policy; the product with e is
    computed in the policy's compute dtype.

    Args:
        scale: float, the score of a cosine of 1. Defaults to `10.0`.
        center: sequence of d_a numbers, μ; the mean of the seen classes' embeddings removes what
            all names have in common. Defaults to `None`: the origin.
        anchors: array-like (S, d_a), embeddings, which are saved with the weights and never
            trained. Defaults to `None`: no anchors, or, with `num_anchors`, zeros, for weights
            that are loaded afterwards.
        num_anchors: int, S, needed where `anchors` is `None`. Defaults to `0`.
        anchor_weight: float, length of the similarities relative to that of the embedding, 1.
            Defaults to `1.0`.
        anchor_temperature: float, temperature of the softmax over the anchors. Defaults to `0.1`.
        anchor_dropout: float, rate at which anchors are left out of the softmax in training. A
            seen class without its own anchor is described like an unseen one, by its neighbours.
            Defaults to `0.0`.

    Input shape:
        A list of e `(..., d_a + S)` and class embeddings `(classes, d_a)`, without a batch axis.

    Output shape:
        Response maps `(..., classes)`.

    Raises:
        ValueError: the inputs are not such a pair, or their last axes do not match.
    """

    def __init__(
        self,
        scale: float = 10.0,
        center: Sequence[float] | None = None,
        anchors: ArrayLike | None = None,
        num_anchors: int = 0,
        anchor_weight: float = 1.0,
        anchor_temperature: float = 0.1,
        anchor_dropout: float = 0.0,
        **kwargs: Any,
    ):
        # A softmax of temperature 0.1 needs embeddings, and cosines, of more than 16 bits.
        super().__init__(autocast=False, **kwargs)
        self.scale = scale
        self.center = None if center is None else [float(number) for number in center]
        if anchors is not None:
            num_anchors = np.shape(anchors)[0]
        self.num_anchors = num_anchors
        self.anchor_weight = anchor_weight
        self.anchor_temperature = anchor_temperature
        self.anchor_dropout = anchor_dropout
        self._given_anchors = anchors
        if anchor_dropout:
            self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: Sequence[Shape]) -> None:
        if len(input_shape) != 2 or len(input_shape[1]) != 2:
            raise ValueError(
                "the inputs must be [features (..., d_a), class_embeddings (classes, d_a)]; got "
                f"shapes {input_shape}"
            )
        features_shape, (_, embedding_size) = input_shape
        if len(features_shape) == 4:
            require_channels_last(type(self).__name__)
        if embedding_size is None:
            raise ValueError(f"the length of class_embeddings must be known; got {input_shape}")
        if self.center is not None and len(self.center) != embedding_size:
            raise ValueError(
                f"class_embeddings of length {embedding_size} need a center of that length; got "
                f"{len(self.center)}"
            )
        if features_shape[-1] != embedding_size + self.num_anchors:
            raise ValueError(
                f"class_embeddings of length {embedding_size} and {self.num_anchors} anchors need "
                f"features of length {embedding_size + self.num_anchors}; got shapes {input_shape}"
            )
        self.anchors = None
        if self.num_anchors:
            self.anchors = self.add_weight(
                shape=(self.num_anchors, embedding_size),
                initializer=array_initializer(self._given_anchors),
                trainable=False,
                autocast=False,
                name="anchors",
            )

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        e, class_embeddings = inputs
        class_weights = self.class_weights(class_embeddings, training)
        return match_classes(ops.cast(e, self.compute_dtype), class_weights)

    def class_weights(self, class_embeddings: Tensor, training: bool = False) -> Tensor:
        """Returns Â (classes, d_a + S), which does not depend on the photos."""
        directions = self._directions(class_embeddings)
        if self.anchors is not None:
            logits = ops.matmul(directions, ops.transpose(self._directions(self.anchors)))
            logits = logits / self.anchor_temperature
            if training and self.anchor_dropout:
                drawn = keras.random.uniform((self.num_anchors,), seed=self.seed_generator)
                # Not infinity: where all anchors are left out, the softmax stays as it was.
                logits = logits - 1e4 * ops.cast(drawn < self.anchor_dropout, "float32")
            similarities = ops.softmax(logits, axis=-1)
            similarities = self.anchor_weight * ops.normalize(similarities, axis=-1)
            directions = ops.concatenate([directions, similarities], axis=-1)
            directions = directions / (1.0 + self.anchor_weight**2) ** 0.5
        return ops.cast(self.scale * directions, self.compute_dtype)

    def _directions(self, embeddings: Tensor) -> Tensor:
        embeddings = ops.cast(embeddings, "float32")
        if self.center is not None:
            # Not `-=`, which would change the caller's own array with PyTorch.
            embeddings = embeddings - ops.convert_to_tensor(self.center, "float32")
        return ops.normalize(embeddings, axis=-1)

    def region_vectors(self, e: Tensor) -> Tensor:
        """Returns e (..., d_a + S)."""
        return e

    def class_side(self) -> DirectionClasses:
        """Returns the function from class embeddings to Â."""
        size = self.input[1].shape[-1]
        center = np.zeros(size) if self.center is None else self.center
        anchors = np.zeros((0, size)) if self.anchors is None else self.anchors
        return DirectionClasses(
            self.scale,
            np.asarray(center, np.float32),
            np.asarray(anchors, np.float32),
            self.anchor_weight,
            self.anchor_temperature,
        )

    def contraction_orders(self, training: bool = False) -> tuple[Contraction, ...]:
        """Returns the only order of the product, see `RegionClassifier.contraction_orders`."""
        return (lambda e, class_embeddings: (e, self.class_weights(class_embeddings, training)),)

    def responses(self, e: Tensor, class_weights: Tensor) -> Tensor:
        """Returns m (..., classes) for `class_weights` (classes, d_a + S)."""
        return match_classes(e, class_weights)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        features_shape, embeddings_shape = input_shape
        return (*features_shape[:-1], embeddings_shape[0])

    def get_config(self) -> dict:
        # The anchors themselves are a weight.
        return {
            **super().get_config(),
            "scale": self.scale,
            "center": self.center,
            "num_anchors": self.num_anchors,
            "anchor_weight": self.anchor_weight,
            "anchor_temperature": self.anchor_temperature,
            "anchor_dropout": self.anchor_dropout,
        }
