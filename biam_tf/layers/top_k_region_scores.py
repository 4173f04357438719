"""Region classification and top-k pooling in one layer, without response maps in memory."""

from collections.abc import Sequence
from math import prod
from typing import Any

import keras
from keras import layers, ops

from biam_tf.layers.cosine_region_classifier import CosineRegionClassifier
from biam_tf.layers.region_classifier import RegionClassifier
from biam_tf.layers.top_k_pooling import require_k_regions
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import (
    ANYWHERE,
    Plan,
    plan_of_build,
    require_channels_last,
    way_of_responses,
)

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
        self.classifier = classifier
        self.k = k
        self.responses_at_a_time = responses_at_a_time

    def build(self, input_shape: Sequence[Shape]) -> None:
        if len(input_shape) != 2 or len(input_shape[0]) != 4:
            raise ValueError(
                "the inputs must be [features (batch, height, width, channels), class_embeddings "
                f"(classes, embedding_size)]; got shapes {input_shape}"
            )
        require_channels_last("TopKRegionScores")
        require_k_regions(self.k, input_shape[0], "features")
        self._plan = plan_of_build()
        (images, height, width, _), (classes, _) = input_shape
        regions, classes = _product(height, width), classes or self._plan.classes
        way = way_of_responses(images, regions, classes, self.responses_at_a_time, self._plan)
        # XLA needs arrays of static shapes; blocks have none.
        self.supports_jit = way == "whole"
        if not self.classifier.built:
            self.classifier.build(input_shape)

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        features, class_embeddings = inputs
        features = ops.cast(features, self.classifier.compute_dtype)
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
        return ops.cond(first_is_cheaper, *functions)

    def _scores(self, features: Tensor, class_side: Tensor) -> Tensor:
        shape = ops.shape(features)
        regions = ops.reshape(features, (shape[0], shape[1] * shape[2], features.shape[-1]))
        return top_k_of_products(regions, class_side, self.k, self.responses_at_a_time, self._plan)

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


def _product(height: int | None, width: int | None) -> int | None:
    return None if height is None or width is None else height * width


def _size_of(tensor: Tensor, axes: int) -> float | Tensor:
    """Product of the lengths of the first axes: a tensor where one of them is unknown."""
    sizes = ops.shape(tensor)[:axes]
    if all(isinstance(size, int) for size in sizes):
        return float(prod(sizes))
    return prod(ops.cast(size, "float32") for size in sizes)


def top_k_of_products(
    regions: Tensor,
    class_side: Tensor,
    k: int,
    products_at_a_time: int = RESPONSES_AT_A_TIME,
    plan: Plan = ANYWHERE,
) -> Tensor:
    """Returns, for each class, the mean of the k largest of its products with an image's regions.

    Args:
        regions: (B, n, d).
        class_side: (C, d).
        k: at most n.
        products_at_a_time: numbers in a block of classes; a block has at least one class.
        plan: that the layer was built for. Defaults to what is assumed without one.

    Returns:
        (B, C) float32.
    """
    images, n = regions.shape[:2]
    classes = class_side.shape[0]
    if way_of_responses(images, n, classes, products_at_a_time, plan) == "whole":
        return _mean_of_strongest(regions, class_side, k)
    from biam_tf.layers.blockwise_scores import top_k_in_blocks  # imports TensorFlow

    return top_k_in_blocks(regions, class_side, k, products_at_a_time)


def _mean_of_strongest(regions: Tensor, class_side: Tensor, k: int) -> Tensor:
    """Returns the means of the k largest products (B, C), float32."""
    shape = ops.shape(regions)
    rows = ops.reshape(regions, (-1, regions.shape[-1]))
    products = ops.reshape(
        ops.matmul(rows, ops.transpose(class_side)),
        (shape[0], shape[1], ops.shape(class_side)[0]),
    )
    products = ops.cast(ops.transpose(products, (0, 2, 1)), "float32")  # (B, C, n)
    values, _ = ops.top_k(products, k, sorted=False)
    return ops.mean(values, axis=-1)
