"""The pairwise logistic loss of Fast0Tag."""

import tensorflow as tf

from biam_tf.losses.ranking import check_shapes, loss_dtype


def ranknet_loss(labels, scores) -> tf.Tensor:
    """Mean of log(1 + exp(s_n - s_p)) over the (positive, negative) pairs of each image.

    Zhang et al., "Fast zero-shot image tagging" (CVPR 2016), after RankNet. A logistic of
    a difference does not come apart as a hinge does: all pairs are made, for the present classes
    alone, so that memory is O(B·P·C) with P the largest number of them in the batch.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (in no pair).
        scores: (B, C), floating point; computed in at least float32.

    Returns:
        (B,) losses; 0 for an image without positives or without negatives.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """
    labels, scores = tf.convert_to_tensor(labels), tf.convert_to_tensor(scores)
    check_shapes(labels, scores)
    scores = tf.cast(scores, loss_dtype(scores))
    # Whatever stands at an unknown class, a NaN included, takes no part.
    scores = tf.where(labels != 0, scores, tf.zeros_like(scores))
    present = tf.cast(labels > 0, scores.dtype)
    absent = tf.cast(labels < 0, scores.dtype)
    most = tf.cast(tf.reduce_max(tf.reduce_sum(present, axis=1)), tf.int32)
    most = tf.maximum(most, 0)  # an empty batch has a most of minus infinity
    is_positive, columns = tf.math.top_k(present, most)  # (B, P), the present ones first
    positives = tf.gather(scores, columns, batch_dims=1)
    pairs = tf.math.softplus(scores[:, None, :] - positives[:, :, None])  # (B, P, C)
    total = tf.einsum("bpc,bp,bc->b", pairs, is_positive, absent)
    number = tf.reduce_sum(present, axis=1) * tf.reduce_sum(absent, axis=1)
    return tf.math.divide_no_nan(total, number)
