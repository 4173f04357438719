"""Region classification and top-k pooling in one, without the response maps in memory."""

import keras
import tensorflow as tf
from keras import layers

from biam_tf.layers.top_k_pooling import require_k_regions

# Responses (numbers) that stand in memory at once: 32 MB in float32.
RESPONSES_AT_A_TIME = 1 << 23


@keras.saving.register_keras_serializable(package="biam_tf")
class TopKRegionScores(layers.Layer):
    """Scores of a region classifier under top-k spatial pooling, some classes at a time.

    Equation 1 and section 2.1 of BiAM (Narayan et al., ICCV 2021): what
    `TopKSpatialPooling(k)(classifier([features, class_embeddings]))` gives, value and gradients,
    while the memory does not grow with the number of classes times the number of regions. Of the
    orders in which the product of features, W_a and class embeddings can be taken, it takes the
    one with fewer operations for the numbers of regions and classes at hand. There is no second
    derivative.

    Args:
        classifier: `RegionClassifier` or `CosineRegionClassifier`; its weights are shared.
        k: int, regions averaged for each class.
        responses_at_a_time: int, responses (images x regions x classes) of a block of classes.

    Input shape:
        A list of features `(batch, height, width, channels)` and class embeddings `(classes,
        embedding_size)`, without a batch axis.

    Output shape:
        Scores `(batch, classes)`, float32.

    Raises:
        ValueError: k is below 1 or larger than the number of regions, or the inputs are not such
            a pair.
    """

    def __init__(self, classifier, k, responses_at_a_time=RESPONSES_AT_A_TIME, **kwargs):
        kwargs.setdefault("dtype", classifier.dtype_policy)
        super().__init__(**kwargs)
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        self.supports_jit = False  # XLA needs arrays of known sizes, which blocks are not
        self.classifier = classifier
        self.k = k
        self.responses_at_a_time = responses_at_a_time

    def build(self, input_shape):
        """Builds the classifier and checks that there are k regions, if their number is known."""
        if len(input_shape) != 2 or len(input_shape[0]) != 4:
            raise ValueError(
                "the inputs must be [features (batch, height, width, channels), class_embeddings "
                f"(classes, embedding_size)]; got shapes {input_shape}"
            )
        require_k_regions(self.k, input_shape[0], "features")
        if not self.classifier.built:
            self.classifier.build(input_shape)

    def call(self, inputs, training=False):
        """Returns s (batch, classes) for `[e_f, A]`."""
        features, class_embeddings = inputs
        orders = self.classifier.orders_of_products(training)
        functions = [lambda order=order: self._scores(*order(*inputs)) for order in orders]
        if len(functions) == 1:
            return functions[0]()
        costs = self.classifier.multiplications(
            _size_of(features, axes=3), _size_of(class_embeddings, axes=1)
        )
        first_is_cheaper = costs[0] <= costs[1]
        if isinstance(first_is_cheaper, bool):
            return functions[not first_is_cheaper]()
        return tf.cond(first_is_cheaper, *functions)

    def _scores(self, features, class_side):
        shape = tf.shape(features)
        regions = tf.reshape(features, (shape[0], shape[1] * shape[2], features.shape[-1]))
        regions = tf.ensure_shape(regions, (features.shape[0], _regions(features), None))
        # A branch of a condition must not hand an input of the layer through as it is.
        class_side = tf.identity(class_side)
        return top_k_of_products(regions, class_side, self.k, self.responses_at_a_time)

    def compute_output_shape(self, input_shape):
        """Returns `(batch, classes)`."""
        return (input_shape[0][0], input_shape[1][0])

    def compute_output_spec(self, inputs, training=False):
        """Returns the symbolic scores: float32 under any dtype policy."""
        del training
        shape = self.compute_output_shape([tensor.shape for tensor in inputs])
        return keras.KerasTensor(shape, "float32")

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "k": self.k,
            "responses_at_a_time": self.responses_at_a_time,
        }

    @classmethod
    def from_config(cls, config):
        """Makes the layer, and its classifier, of a configuration."""
        classifier = keras.saving.deserialize_keras_object(config.pop("classifier"))
        return cls(classifier, **config)


def _regions(features) -> int | None:
    height, width = features.shape[1:3]
    return None if height is None or width is None else height * width


def _size_of(tensor, axes: int):
    """Product of the first axes' lengths: a float, or a tensor where one is not known yet."""
    static = tensor.shape[:axes].num_elements()
    if static is not None:
        return float(static)
    return tf.cast(tf.reduce_prod(tf.shape(tensor)[:axes]), tf.float32)


def top_k_of_products(regions, class_side, k, products_at_a_time=RESPONSES_AT_A_TIME):
    """Returns, for each class, the mean of the k largest of its products with an image's regions.

    Args:
        regions: (B, n, d).
        class_side: (C, d).
        k: at most n.
        products_at_a_time: numbers of a block of classes, but at least one class's B * n.

    Returns:
        (B, C) float32.
    """
    images, n = regions.shape[:2]
    classes = class_side.shape[0]
    if None not in (images, n, classes) and images * n * classes <= products_at_a_time:
        return _strongest(regions, class_side, k)[0]
    scores = _top_k_in_blocks(regions, class_side, k, products_at_a_time)
    return tf.ensure_shape(scores, (images, classes))


def _strongest(regions, class_side, k):
    """Returns (B, C) float32 means of the k largest products, and their regions (B, C, k)."""
    shape = tf.shape(regions)
    rows = tf.reshape(regions, (-1, regions.shape[-1]))
    products = tf.reshape(
        tf.matmul(rows, class_side, transpose_b=True), (shape[0], shape[1], tf.shape(class_side)[0])
    )
    products = tf.cast(tf.transpose(products, (0, 2, 1)), tf.float32)  # (B, C, n)
    values, places = tf.math.top_k(products, k, sorted=False)
    return tf.reduce_mean(values, axis=-1), places


def _top_k_in_blocks(regions, class_side, k, products_at_a_time):
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

        def strongest(block, means, places):
            part = class_side[block * width : (block + 1) * width]
            mean, regions_of_part = _strongest(regions, part, k)
            # Classes come first, so that blocks of them follow each other.
            means = means.write(block, tf.transpose(mean))
            return block + 1, means, places.write(block, tf.transpose(regions_of_part, (1, 0, 2)))

        kinds = (tf.float32, (None, regions.shape[0])), (tf.int32, (None, regions.shape[0], k))
        means, places = loop(strongest, arrays(*kinds))
        places = places.concat()  # (C, B, k)

        def gradients(upstream):
            by_class = tf.cast(tf.transpose(upstream) / k, regions.dtype)  # (C, B)

            def of_block(block, of_rows, of_classes):
                start = block * width
                part = class_side[start : start + width]
                count = tf.shape(part)[0]
                # Only k regions of an image and class have a gradient; as rows of one matrix
                # they still take two dense products, which processors do fastest.
                row = tf.range(images)[None, :, None] * n + places[start : start + width]
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
