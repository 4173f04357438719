"""Scores under top-k pooling that hold the responses of a few classes at a time, for TensorFlow."""

import tensorflow as tf


def top_k_in_blocks(
    regions: tf.Tensor,
    class_side: tf.Tensor,
    k: int,
    products_at_a_time: int,
) -> tf.Tensor:
    """Returns, for each class, the mean of the k largest of its products with an image's regions.

    There is no second derivative.

    Args:
        regions: (B, n, d).
        class_side: (C, d).
        k: at most n.
        products_at_a_time: numbers in a block of classes; a block has at least one class.

    Returns:
        (B, C) float32.
    """

    # A branch of a condition must not return an input of the layer itself.
    class_side = tf.identity(class_side)

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

    scores = blockwise(regions, class_side)
    return tf.ensure_shape(scores, (regions.shape[0], class_side.shape[0]))


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
