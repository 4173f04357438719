"""Region classification and top-k pooling in one layer, without response maps in memory."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from biam_tf.layers.blockwise_attention import in_blocks
from biam_tf.layers.cosine_region_classifier import CosineRegionClassifier
from biam_tf.layers.region_classifier import RegionClassifier
from biam_tf.layers.top_k_pooling import require_k_regions
from biam_tf.tensor_types import Shape, Tensor

# Numbers of responses in memory at a time: 32 MB in float32.
RESPONSES_AT_A_TIME = 1 << 23


@keras.saving.register_keras_serializable(package="biam_tf")
class TopKRegionScores(layers.Layer):
    """Scores of a region classifier under top-k spatial pooling, computed in blocks of classes.

    Equation 1 and section 2.1 of BiAM (Narayan et al., ICCV 2021): the value and the gradients of
    `TopKSpatialPooling(k)(classifier([features, class_embeddings]))`, in memory that does not grow
    with the number of classes times the number of regions. Of the orders in which features, W_a
    and class embeddings can be multiplied, it uses the one with fewer operations for the given
    numbers of regions and classes. There is no second derivative.

    The product is computed in the classifier's compute dtype, the mean of the k responses in
    float32.

    Args:
        classifier: `RegionClassifier` or `CosineRegionClassifier`; its weights are shared.
        k: int, regions averaged for each class.
        responses_at_a_time: int, responses (images x regions x classes) of a block of classes.
            Defaults to `2**23`: 32 MB in float32.

    Input shape:
        A list of features `(batch, height, width, channels)` and class embeddings `(classes,
        embedding_size)`, without a batch axis.

    Output shape:
        Scores `(batch, classes)`, float32.

    Raises:
        ValueError: k is below 1 or larger than the number of regions, or the inputs are not such
            a pair.
    """

    def __init__(
        self,
        classifier: RegionClassifier | CosineRegionClassifier,
        k: int,
        responses_at_a_time: int = RESPONSES_AT_A_TIME,
        **kwargs: Any,
    ):
        kwargs.setdefault("dtype", classifier.dtype_policy)
        # The classifier casts its inputs: one that computes in float32 needs all of their bits.
        super().__init__(autocast=False, **kwargs)
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        self.supports_jit = False  # XLA needs arrays of static shapes; blocks have none
        self.classifier = classifier
        self.k = k
        self.responses_at_a_time = responses_at_a_time

    def build(self, input_shape: Sequence[Shape]) -> None:
        if len(input_shape) != 2 or len(input_shape[0]) != 4:
            raise ValueError(
                "the inputs must be [features (batch, height, width, channels), class_embeddings "
                f"(classes, embedding_size)]; got shapes {input_shape}"
            )
        require_k_regions(self.k, input_shape[0], "features")
        if not self.classifier.built:
            self.classifier.build(input_shape)

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        features, class_embeddings = inputs
        features = tf.cast(features, self.classifier.compute_dtype)
        orders = self.classifier.contraction_orders(training)
        functions = [
            lambda order=order: self._scores(*order(features, class_embeddings)) for order in orders
        ]
        if len(functions) == 1:
            return functions[0]()
        costs = self.classifier.flops(
            _size_of(features, axes=3), _size_of(class_embeddings, axes=1)
        )
        first_is_cheaper = costs[0] <= costs[1]
        if isinstance(first_is_cheaper, bool):
            return functions[not first_is_cheaper]()
        return tf.cond(first_is_cheaper, *functions)

    def _scores(self, features: Tensor, class_side: Tensor) -> Tensor:
        shape = tf.shape(features)
        regions = tf.reshape(features, (shape[0], shape[1] * shape[2], features.shape[-1]))
        regions = tf.ensure_shape(regions, (features.shape[0], _regions(features), None))
        # A branch of a condition must not return an input of the layer itself.
        class_side = tf.identity(class_side)
        return top_k_of_products(regions, class_side, self.k, self.responses_at_a_time)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (input_shape[0][0], input_shape[1][0])

    def compute_output_spec(
        self, inputs: Sequence[keras.KerasTensor], training: bool = False
    ) -> keras.KerasTensor:
        del training
        shape = self.compute_output_shape([tensor.shape for tensor in inputs])
        return keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "k": self.k,
            "responses_at_a_time": self.responses_at_a_time,
        }

    @classmethod
    def from_config(cls, config: dict) -> "TopKRegionScores":
        classifier = keras.saving.deserialize_keras_object(config["classifier"])
        return cls(**(config | {"classifier": classifier}))


def _regions(features: Tensor) -> int | None:
    height, width = features.shape[1:3]
    return None if height is None or width is None else height * width


def _size_of(tensor: Tensor, axes: int) -> float | tf.Tensor:
    """Product of the lengths of the first axes: a tensor where one of them is unknown."""
    static = tensor.shape[:axes].num_elements()
    if static is not None:
        return float(static)
    return tf.cast(tf.reduce_prod(tf.shape(tensor)[:axes]), tf.float32)


def top_k_of_products(
    regions: tf.Tensor,
    class_side: tf.Tensor,
    k: int,
    products_at_a_time: int = RESPONSES_AT_A_TIME,
) -> tf.Tensor:
    """Returns, for each class, the mean of the k largest of its products with an image's regions.

    Args:
        regions: (B, n, d).
        class_side: (C, d).
        k: at most n.
        products_at_a_time: numbers in a block of classes; a block has at least one class.

    Returns:
        (B, C) float32.
    """
    images, n = regions.shape[:2]
    classes = class_side.shape[0]
    known = None not in (images, n, classes)
    if not in_blocks() or (known and images * n * classes <= products_at_a_time):
        return _strongest(regions, class_side, k)[0]
    scores = _top_k_in_blocks(regions, class_side, k, products_at_a_time)
    return tf.ensure_shape(scores, (images, classes))


def _strongest(regions: tf.Tensor, class_side: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the means of the k largest products (B, C), float32, and their regions (B, C, k)."""
    shape = tf.shape(regions)
    rows = tf.reshape(regions, (-1, regions.shape[-1]))
    products = tf.reshape(
        tf.matmul(rows, class_side, transpose_b=True), (shape[0], shape[1], tf.shape(class_side)[0])
    )
    products = tf.cast(tf.transpose(products, (0, 2, 1)), tf.float32)  # (B, C, n)
    values, indices = tf.math.top_k(products, k, sorted=False)
    return tf.reduce_mean(values, axis=-1), indices


def _top_k_in_blocks(
    regions: tf.Tensor, class_side: tf.Tensor, k: int, products_at_a_time: int
) -> tf.Tensor:
    @tf.custom_gradient
    def blockwise(regions, class_side):
        images, n, size = tf.shape(regions)[0], tf.shape(regions)[1], regions.shape[-1]
        classes = tf.shape(class_side)[0]
        width = tf.maximum(1, products_at_a_time // tf.maximum(1, images * n))
        blocks = (classes + width - 1) // width
        rows = tf.reshape(regions, (-1, size))

        def arrays(*kinds):
            return [
                tf.TensorArray(dtype, blocks, infer_shape=False, element_shape=shape)
                for dtype, shape in kinds
            ]

        def loop(body, variables):
            condition = lambda block, *_: block < blocks  # noqa: E731
            return tf.while_loop(condition, body, (0, *variables), parallel_iterations=1)[1:]

        def strongest(block, means, indices):
            part = class_side[block * width : (block + 1) * width]
            mean, regions_of_part = _strongest(regions, part, k)
            # Classes are the first axis, along which the blocks are concatenated.
            means = means.write(block, tf.transpose(mean))
            return block + 1, means, indices.write(block, tf.transpose(regions_of_part, (1, 0, 2)))

        kinds = (tf.float32, (None, regions.shape[0])), (tf.int32, (None, regions.shape[0], k))
        means, indices = loop(strongest, arrays(*kinds))
        indices = indices.concat()  # (C, B, k)

        def gradients(upstream):
            by_class = tf.cast(tf.transpose(upstream) / k, regions.dtype)  # (C, B)

            def of_block(block, of_rows, of_classes):
                start = block * width
                part = class_side[start : start + width]
                count = tf.shape(part)[0]
                # Only k regions of an image and class have a gradient; scattered into one matrix
                # they take two dense products, which are fastest.
                row = tf.range(images)[None, :, None] * n + indices[start : start + width]
                flat = row * count + tf.range(count)[:, None, None]
                values = tf.repeat(tf.reshape(by_class[start : start + width], [-1]), k)
                of_products = tf.scatter_nd(tf.reshape(flat, (-1, 1)), values, [images * n * count])
                of_products = tf.reshape(of_products, (images * n, count))
                of_rows += tf.matmul(of_products, part)
                of_part = tf.matmul(of_products, rows, transpose_a=True)
                return block + 1, of_rows, of_classes.write(block, of_part)

            kinds = ((regions.dtype, (None, size)),)
            of_rows, of_classes = loop(of_block, [tf.zeros_like(rows), *arrays(*kinds)])
            return tf.reshape(of_rows, tf.shape(regions)), of_classes.concat()

        return tf.transpose(means.concat()), gradients

    return blockwise(regions, class_side)
