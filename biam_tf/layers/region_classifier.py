"""Region classification: every region against every class embedding."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from biam_tf.class_sides import LinearClasses
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import require_channels_last

# Features and class embeddings to two factors, which `match_classes` multiplies to responses.
Contraction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@keras.saving.register_keras_serializable(package="biam_tf")
class RegionClassifier(layers.Layer):
    """Scores every region against every given class.

    Equation 1 of BiAM (Narayan et al., ICCV 2021), m = e_f W_a A^T. The classes are an input,
    not weights: one layer scores any number of classes, seen in training or not. The product is
    computed as e_f (A W)^T, with W = W_a^T: mapping C class embeddings to the feature space is
    cheaper than mapping B h w regions to the embedding space.

    Args:
        use_bias: bool, whether A W + b takes the place of A W, as in the released code; the bias
            depends on the region, not on the class. Defaults to `False`.
        kernel_initializer: initializer of W, `(embedding_size, channels)`. Defaults to
            `"glorot_uniform"`.

    Input shape:
        A list of features `(batch, height, width, channels)` (or any `(..., channels)`) and
        class embeddings `(classes, embedding_size)`, without a batch axis.

    Output shape:
        Response maps `(batch, height, width, classes)`.

    Raises:
        ValueError: the inputs are not such a pair, or the class embeddings have another length
            than those the layer was built for.

    Example:

    >>> features = np.random.rand(2, 14, 14, 64).astype("float32")
    >>> class_embeddings = np.random.rand(1000, 300).astype("float32")
    >>> RegionClassifier()([features, class_embeddings]).shape
    TensorShape([2, 14, 14, 1000])
    """

    def __init__(
        self,
        use_bias: bool = False,
        kernel_initializer: str | keras.initializers.Initializer = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Sequence[Shape]) -> None:
        if len(input_shape) != 2 or len(input_shape[1]) != 2:
            raise ValueError(
                "the inputs must be [features (..., channels), class_embeddings (classes, "
                f"embedding_size)]; got shapes {input_shape}"
            )
        features_shape, embeddings_shape = input_shape
        if len(features_shape) == 4:
            require_channels_last("RegionClassifier")
        self.kernel = self.add_weight(
            shape=(embeddings_shape[-1], features_shape[-1]),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(features_shape[-1],), initializer="zeros", name="bias"
            )

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        e_f, class_embeddings = inputs
        if class_embeddings.shape[-1] != self.kernel.shape[0]:
            raise ValueError(
                f"this classifier takes class embeddings of length {self.kernel.shape[0]}; got "
                f"class_embeddings of shape {tuple(class_embeddings.shape)}"
            )
        return match_classes(e_f, self.class_weights(class_embeddings))

    def class_weights(self, class_embeddings: Tensor) -> Tensor:
        """Returns A W + b (classes, channels), which does not depend on the photos."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        class_weights = ops.matmul(ops.cast(class_embeddings, self.compute_dtype), kernel)
        if self.bias is not None:
            class_weights = class_weights + ops.cast(self.bias, self.compute_dtype)
        return class_weights

    def responses(self, e_f: Tensor, class_weights: Tensor) -> Tensor:
        """Returns m (batch, height, width, classes) for `class_weights` (classes, channels)."""
        return match_classes(e_f, class_weights)

    def region_vectors(self, e_f: Tensor) -> Tensor:
        """Returns e_f W_a (..., d_a), followed by the region's bias if there is one."""
        regions = match_classes(e_f, ops.cast(self.kernel, self.compute_dtype))
        if self.bias is None:
            return regions
        bias = match_classes(e_f, ops.cast(self.bias, self.compute_dtype)[None])
        return ops.concatenate([regions, bias], axis=-1)

    def class_side(self) -> LinearClasses:
        """Returns that a class's vector is its embedding, followed by a 1 for the bias."""
        return LinearClasses(self.kernel.shape[0], self.bias is not None)

    def contraction_orders(self, training: bool = False) -> tuple[Contraction, ...]:
        """Returns the orders in which e_f W_a A^T can be multiplied.

        Each is a function of e_f and A to two factors, whose `match_classes` is m. The first maps
        the classes to the feature space, the second maps the regions to the embedding space.
        """
        del training
        return (
            lambda e_f, class_embeddings: (e_f, self.class_weights(class_embeddings)),
            self._in_embedding_space,
        )

    def flops(self, regions: float | Tensor, classes: float | Tensor) -> tuple:
        """Returns the multiply-adds of each of `contraction_orders`."""
        size, channels = self.kernel.shape
        first = classes * size * channels + regions * channels * classes
        second = regions * channels * size + regions * size * classes
        return first, second

    def _in_embedding_space(self, e_f: Tensor, class_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        class_embeddings = ops.cast(class_embeddings, self.compute_dtype)
        if self.bias is not None:
            # e_f (A W + b)^T = [e_f W^T, e_f b] [A, 1]^T
            ones = ops.ones_like(class_embeddings[:, :1])
            class_embeddings = ops.concatenate([class_embeddings, ones], axis=-1)
        return self.region_vectors(e_f), class_embeddings

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        features_shape, embeddings_shape = input_shape
        return (*features_shape[:-1], embeddings_shape[0])

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def match_classes(features: Tensor, class_weights: Tensor) -> Tensor:
    """Returns the products (..., classes) of features (..., d) and class weights (classes, d)."""
    # One matrix product over all regions of the batch: (B h w, d) by (d, C).
    rows = ops.reshape(features, (-1, features.shape[-1]))
    products = ops.matmul(rows, ops.transpose(class_weights))
    return ops.reshape(products, (*ops.shape(features)[:-1], ops.shape(class_weights)[0]))
