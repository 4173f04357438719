"""Losses over the (present, absent) pairs of classes of an image.

The hinge losses sum over P·C pairs, for P positives and C classes, without an array of that size:
one sort of an image's scores gives the number of pairs that each class violates, which is the
slope of the loss in that class's score, and the slopes give the value.
"""

from collections.abc import Callable

import tensorflow as tf

from biam_tf.tensor_types import Tensor


def pairwise_ranking_loss(
    labels: Tensor, scores: Tensor, margin: float = 1.0, mean_of_violations: bool = False
) -> tf.Tensor:
    """Hinge loss over the (positive, negative) pairs of each image, eq. 10 of the paper.

    For an image with positives P and negatives N::

        loss = Σ_{p∈P} Σ_{n∈N} max(s_n - s_p + margin, 0)

    A pair is violated if its hinge is strictly positive; a pair exactly at the margin is not.
    Value and gradient are exact (pairs are counted in float64); time is O(B·C·log C), memory
    O(B·C). It works eagerly and in a `tf.function`, with or without XLA, with unknown shapes, and
    for an empty batch. An image without positives or without negatives has loss 0.

    Args:
        labels: (B, C), any numeric dtype: +1 present, -1 absent, 0 unknown (in no pair). Not
            0/1: with zeros for absent classes there would be no pair and no loss.
        scores: (B, C), any floating dtype; half precision is computed in at least float32.
        margin: difference by which a positive's score must exceed a negative's. Defaults to `1.0`.
        mean_of_violations: whether each image's sum is divided by its number of violated pairs
            plus 1e-8, as in the released code; the number is a constant for the gradient. Defaults
            to `False`.

    Returns:
        (B,) losses, float64 for float64 scores, else float32. NaN for an image with a NaN
        score on a labelled class.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """
    losses, violations = hinges_of_pairs(labels, scores, margin)
    if mean_of_violations:
        losses /= violations + 1e-8
    return tf.cast(losses, loss_dtype(scores))


def weighted_ranking_loss(labels: Tensor, scores: Tensor, margin: float = 1.0) -> tf.Tensor:
    """Hinge loss over the (positive, negative) pairs, weighted by the positive's rank.

    For a positive p that k negatives violate::

        loss_p = β_k / k · Σ_n max(s_n - s_p + margin, 0),   β_k = 1 + 1/2 + … + 1/k

    averaged over the image's positives: the ranking objective of WSABIE and WARP (Weston et al.,
    IJCAI 2011; Gong et al., 2013) in the form of Akata et al., "Label-embedding for image
    classification" (PAMI 2016). They sample negatives until one violates the margin, which
    estimates k; here k is counted exactly, in O(B·C·log C). It is a constant for the gradient.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (in no pair).
        scores: (B, C), floating point; computed in float64.
        margin: difference by which a positive's score must exceed a negative's. Defaults to `1.0`.

    Returns:
        (B,) losses, float64 for float64 scores, else float32; 0 for an image without positives
        or without negatives.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """

    def weigh(violating):
        ranks = tf.range(1, tf.shape(violating)[1] + 1, dtype=tf.float64)
        harmonic = tf.concat([[0.0], tf.cumsum(1 / ranks)], axis=0)
        return tf.math.divide_no_nan(tf.gather(harmonic, tf.cast(violating, tf.int32)), violating)

    losses, _ = hinges_of_pairs(labels, scores, margin, weigh)
    positives = tf.reduce_sum(tf.cast(tf.convert_to_tensor(labels) > 0, tf.float64), axis=1)
    return tf.cast(tf.math.divide_no_nan(losses, positives), loss_dtype(scores))


def ranknet_loss(labels: Tensor, scores: Tensor) -> tf.Tensor:
    """Mean of log(1 + exp(s_n - s_p)) over the (positive, negative) pairs of each image.

    Zhang et al., "Fast zero-shot image tagging" (CVPR 2016), after RankNet. Unlike a hinge, the
    logistic of a difference is not a sum of terms of single classes: memory is O(B·P·C), with P
    the largest number of present classes in the batch.

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
    # The score of an unknown class takes no part, even if it is NaN.
    scores = tf.where(labels != 0, scores, tf.zeros_like(scores))
    present = tf.cast(labels > 0, scores.dtype)
    absent = tf.cast(labels < 0, scores.dtype)
    most = tf.cast(tf.reduce_max(tf.reduce_sum(present, axis=1)), tf.int32)
    most = tf.maximum(most, 0)  # the maximum of an empty batch is minus infinity
    is_positive, columns = tf.math.top_k(present, most)  # (B, P), the present ones first
    positives = tf.gather(scores, columns, batch_dims=1)
    pairs = tf.math.softplus(scores[:, None, :] - positives[:, :, None])  # (B, P, C)
    total = tf.einsum("bpc,bp,bc->b", pairs, is_positive, absent)
    number = tf.reduce_sum(present, axis=1) * tf.reduce_sum(absent, axis=1)
    return tf.math.divide_no_nan(total, number)


def loss_dtype(scores: Tensor) -> tf.DType:
    """Returns float64 for float64 scores, else float32."""
    return tf.float64 if tf.convert_to_tensor(scores).dtype == tf.float64 else tf.float32


def hinges_of_pairs(
    labels: Tensor,
    scores: Tensor,
    margin: float,
    weigh: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums the hinges of all (positive, negative) pairs of each image, weighted by the positive.

    Args:
        labels: (B, C), +1, -1, 0.
        scores: (B, C), floating point.
        margin: difference by which a positive's score must exceed a negative's.
        weigh: function of the numbers (B, 2C), float64, of negatives that violate each positive to
            the weights of its hinges, which are constants for the gradient. Defaults to `None`:
            all weights are 1.

    Returns:
        The (weighted) sums (B,) and the numbers (B,) of violated pairs, both float64. The sum is
        NaN for an image with a NaN score on a labelled class.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """
    labels, scores = tf.convert_to_tensor(labels), tf.convert_to_tensor(scores)
    check_shapes(labels, scores)
    # In float64 the difference of two float32 numbers is almost exact, so that a pair at the
    # margin is recognized, and sums over millions of pairs stay precise.
    scores = tf.cast(scores, tf.float64)
    margin = tf.constant(margin, tf.float64)
    positive, negative = labels > 0, labels < 0

    # One descending order of positives (by s_p - margin) and negatives (by s_n): a positive
    # is violated by exactly the negatives before it. The sort is stable and positives come
    # first in the row, so that a pair at the margin counts as satisfied.
    lowest = tf.constant(float("-inf"), tf.float64)
    keys = tf.concat(
        [tf.where(positive, scores - margin, lowest), tf.where(negative, scores, lowest)], axis=1
    )
    order = tf.argsort(keys, axis=1, direction="DESCENDING", stable=True)  # (B, 2C)
    nowhere = tf.zeros_like(positive)
    is_positive = _in_order(tf.concat([positive, nowhere], axis=1), order)
    is_negative = _in_order(tf.concat([nowhere, negative], axis=1), order)
    violated_by_positive = is_positive * tf.cumsum(is_negative, 1)
    violations = tf.stop_gradient(tf.reduce_sum(violated_by_positive, axis=1))
    weights = is_positive if weigh is None else is_positive * weigh(violated_by_positive)

    # d loss / d score of each entry. It is piecewise constant, so that the loss is
    # Σ slope · score + margin · Σ weights of violated pairs, whose gradient is the slopes.
    slopes = is_negative * tf.cumsum(weights, 1, exclusive=True, reverse=True)
    slopes = tf.stop_gradient(slopes - weights * violated_by_positive)
    margins = margin * tf.reduce_sum(weights * violated_by_positive, axis=1)
    scores_in_order = tf.gather(tf.concat([scores, scores], axis=1), order, batch_dims=1)
    losses = tf.reduce_sum(tf.math.multiply_no_nan(scores_in_order, slopes), axis=1)
    losses += tf.stop_gradient(margins)

    # A NaN has no place in an order; without this, a slope of zero could hide it.
    has_nan = tf.reduce_any(tf.math.is_nan(scores) & (positive | negative), axis=1)
    return tf.where(has_nan, tf.constant(float("nan"), tf.float64), losses), violations


def _in_order(flags: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.gather(flags, order, batch_dims=1), tf.float64)


def check_shapes(labels: tf.Tensor, scores: tf.Tensor) -> None:
    """Raises a ValueError unless labels and scores are both (B, C)."""
    for name, tensor in (("labels", labels), ("scores", scores)):
        if tensor.shape.rank not in (None, 2):
            raise ValueError(f"ranking loss: {name} must be (images, classes), not {tensor.shape}")
    if not labels.shape.is_compatible_with(scores.shape):
        raise ValueError(
            f"ranking loss: labels {labels.shape} and scores {scores.shape} must have one shape, "
            "(images, classes)"
        )
