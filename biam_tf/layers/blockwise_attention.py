"""Attention that holds the relation scores of a few heads at a time, for TensorFlow."""

from collections.abc import Callable

import tensorflow as tf

from biam_tf.ways_to_compute import in_blocks

# Numbers of relation scores in memory at a time: 16 MB in float32, which fit in caches.
SCORES_AT_A_TIME = 1 << 22


def attend(
    q: tf.Tensor,
    k: tf.Tensor,
    v: tf.Tensor,
    relations: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    dropout_rate: float = 0.0,
    seed: tf.Tensor | None = None,
    scores_at_a_time: int = SCORES_AT_A_TIME,
) -> tf.Tensor:
    """Returns relations(q, k) v, computed in blocks; gradients recompute the relations.

    Beside inputs and outputs it holds one block, (block, n, n), in memory, where plain attention
    keeps several arrays of (heads, n, n) until the gradients are computed. Value and gradients
    are those of the formula; there is no second derivative.

    Args:
        q: (heads, n, d') queries, with the heads of all images in one axis.
        k: (heads, n, d') keys.
        v: (heads, n, d'') values.
        relations: function of the queries and keys of some heads to their relation scores
            (some, n, n).
        dropout_rate: rate of dropout on the relation scores, rounded to 1/65536.
        seed: (2,) int32, seed of the dropout.
        scores_at_a_time: numbers in a block; a block has at least one head.

    Returns:
        (heads, n, d'').
    """

    if not in_blocks() and not dropout_rate:
        return tf.ensure_shape(tf.matmul(relations(q, k), v), v.shape)

    def of_block(q, k, v, block):
        r = relations(q, k)
        if dropout_rate:
            own_seed = tf.random.experimental.stateless_fold_in(seed, block)
            r = drop(r, dropout_rate, own_seed)
        return tf.matmul(r, v)

    @tf.custom_gradient
    def blockwise(q, k, v):
        heads, n = tf.shape(q)[0], tf.shape(q)[1]
        size = tf.maximum(1, scores_at_a_time // (n * n))
        blocks = (heads + size - 1) // size

        def slices(tensors, block):
            return [tensor[block * size : (block + 1) * size] for tensor in tensors]

        def for_each(function, like):
            """Concatenates the results of all blocks to the shapes of `like`."""
            arrays = [
                tf.TensorArray(
                    whole.dtype, blocks, infer_shape=False, element_shape=(None, *whole.shape[1:])
                )
                for whole in like
            ]

            def body(block, *arrays):
                values = function(block)
                return block + 1, *map(tf.TensorArray.write, arrays, [block] * len(like), values)

            _, *arrays = tf.while_loop(
                lambda block, *_: block < blocks, body, (0, *arrays), parallel_iterations=1
            )
            return [
                tf.reshape(array.concat(), tf.shape(whole))
                for array, whole in zip(arrays, like, strict=True)
            ]

        def gradients(upstream):
            def of(block):
                parts = slices((q, k, v), block)
                with tf.GradientTape() as tape:
                    tape.watch(parts)
                    alpha = of_block(*parts, block)
                return tape.gradient(alpha, parts, slices((upstream,), block)[0])

            return for_each(of, (q, k, v))

        alpha = for_each(lambda block: [of_block(*slices((q, k, v), block), block)], (v,))[0]
        return alpha, gradients

    return tf.ensure_shape(blockwise(q, k, v), v.shape)


def drop(values: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Dropout by 16 random bits per number, half the work of a random float32.

    Args:
        values: (..., n).
        rate: share of the values that are set to 0, rounded to 1/65536.
        seed: (2,) int32.
    """
    threshold = round(rate * 65536)
    shape = tf.shape(values)
    pairs = tf.concat([shape[:-1], (shape[-1:] + 1) // 2], axis=0)
    numbers = tf.random.stateless_uniform(pairs, seed, None, None, tf.uint32)
    bits = tf.reshape(tf.bitcast(numbers, tf.uint16), tf.concat([shape[:-1], [-1]], axis=0))
    kept = bits[..., : shape[-1]] >= tf.constant(threshold, tf.uint16)
    scale = tf.constant(65536 / (65536 - threshold), values.dtype)
    return tf.where(kept, values * scale, tf.zeros((), values.dtype))
