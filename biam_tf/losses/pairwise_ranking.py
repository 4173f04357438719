"""Losses over the (present, absent) pairs of classes of an image.

The hinge losses sum over P·C pairs, for P positives and C classes, without an array of that size:
one sort of an image's scores gives the number of pairs that each class violates, which is the
slope of the loss in that class's score, and the slopes give the value.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from biam_tf.tensor_types import Tensor
from biam_tf.ways_to_compute import has_float64, is_tensorflow, take_in_rows


def pairwise_ranking_loss(
    labels: Tensor, scores: Tensor, margin: float = 1.0, mean_of_violations: bool = False
) -> Tensor:
    """Hinge loss over the (positive, negative) pairs of each image, eq. 10 of the paper.

    For an image with positives P and negatives N::

        loss = Σ_{p∈P} Σ_{n∈N} max(s_n - s_p + margin, 0)

    A pair is violated if its hinge is strictly positive; a pair exactly at the margin is not.
    Value and gradient are exact (pairs are counted in float64, with JAX in float32 unless
    `jax_enable_x64` is set); time is O(B·C·log C), memory O(B·C). It works eagerly and in a
    `tf.function`, with or without XLA, with unknown shapes, for an empty batch, and with any
    backend of Keras. An image without positives or without negatives has loss 0.

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
        losses = losses / (violations + 1e-8)
    return ops.cast(losses, loss_dtype(scores))


def weighted_ranking_loss(labels: Tensor, scores: Tensor, margin: float = 1.0) -> Tensor:
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
        ranks = ops.arange(1, ops.shape(violating)[1] + 1, dtype=violating.dtype)
        harmonic = ops.concatenate([ops.zeros_like(ranks[:1]), ops.cumsum(1 / ranks)], axis=0)
        found = ops.take(harmonic, ops.cast(violating, "int32"))
        return ops.divide_no_nan(found, violating)

    losses, _ = hinges_of_pairs(labels, scores, margin, weigh)
    positives = ops.sum(ops.cast(ops.convert_to_tensor(labels) > 0, losses.dtype), axis=1)
    return ops.cast(ops.divide_no_nan(losses, positives), loss_dtype(scores))


def ranknet_loss(labels: Tensor, scores: Tensor) -> Tensor:
    """Mean of log(1 + exp(s_n - s_p)) over the (positive, negative) pairs of each image.

    Zhang et al., "Fast zero-shot image tagging" (CVPR 2016), after RankNet. Unlike a hinge, the
    logistic of a difference is not a sum of terms of single classes: memory is O(B·P·C), with P
    the largest number of present classes in the batch, and O(B·C·C) with JAX, whose shapes cannot
    depend on values.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (in no pair).
        scores: (B, C), floating point; computed in at least float32.

    Returns:
        (B,) losses; 0 for an image without positives or without negatives.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """
    labels, scores = ops.convert_to_tensor(labels), ops.convert_to_tensor(scores)
    check_shapes(labels, scores)
    scores = ops.cast(scores, loss_dtype(scores))
    # The score of an unknown class takes no part, even if it is NaN.
    scores = ops.where(labels != 0, scores, ops.zeros_like(scores))
    present = ops.cast(labels > 0, scores.dtype)
    absent = ops.cast(labels < 0, scores.dtype)
    is_positive, positives = present, scores
    if is_tensorflow():
        most = ops.cast(ops.max(ops.sum(present, axis=1), initial=0), "int32")
        is_positive, columns = ops.top_k(present, most)  # (B, P), the present ones first
        positives = take_in_rows(scores, columns)
    pairs = ops.softplus(scores[:, None, :] - positives[:, :, None])  # (B, P, C)
    total = ops.einsum("bpc,bp,bc->b", pairs, is_positive, absent)
    number = ops.sum(present, axis=1) * ops.sum(absent, axis=1)
    return ops.divide_no_nan(total, number)


def loss_dtype(scores: Tensor) -> str:
    """Returns float64 for float64 scores, else float32."""
    given = keras.backend.standardize_dtype(ops.convert_to_tensor(scores).dtype)
    return "float64" if given == "float64" else "float32"


def hinges_of_pairs(
    labels: Tensor,
    scores: Tensor,
    margin: float,
    weigh: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums the hinges of all (positive, negative) pairs of each image, weighted by the positive.

    Args:
        labels: (B, C), +1, -1, 0.
        scores: (B, C), floating point.
        margin: difference by which a positive's score must exceed a negative's.
        weigh: function of the numbers (B, 2C), float64, of negatives that violate each positive to
            the weights of its hinges, which are constants for the gradient. Defaults to `None`:
            all weights are 1.

    Returns:
        The (weighted) sums (B,) and the numbers (B,) of violated pairs, both float64 where the
        backend has it (`has_float64`). The sum is NaN for an image with a NaN score on a
        labelled class.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """
    labels, scores = ops.convert_to_tensor(labels), ops.convert_to_tensor(scores)
    check_shapes(labels, scores)
    # In float64 the difference of two float32 numbers is almost exact, so that a pair at the
    # margin is recognized, and sums over millions of pairs stay precise.
    dtype = "float64" if has_float64() else "float32"
    scores = ops.cast(scores, dtype)
    positive, negative = labels > 0, labels < 0

    # One descending order of positives (by s_p - margin) and negatives (by s_n): a positive
    # is violated by exactly the negatives before it. The sort is stable and positives come
    # first in the row, so that a pair at the margin counts as satisfied.
    last = ops.full_like(scores, float("inf"))
    keys = ops.concatenate(
        [ops.where(positive, margin - scores, last), ops.where(negative, -scores, last)], axis=1
    )
    order = ops.argsort(keys, axis=1)  # (B, 2C)
    nowhere = ops.zeros_like(positive)
    is_positive = _in_order(ops.concatenate([positive, nowhere], axis=1), order, dtype)
    is_negative = _in_order(ops.concatenate([nowhere, negative], axis=1), order, dtype)
    violated_by_positive = is_positive * ops.cumsum(is_negative, axis=1)
    violations = ops.stop_gradient(ops.sum(violated_by_positive, axis=1))
    weights = is_positive if weigh is None else is_positive * weigh(violated_by_positive)

    # d loss / d score of each entry. It is piecewise constant, so that the loss is
    # Σ slope · score + margin · Σ weights of violated pairs, whose gradient is the slopes.
    after = ops.sum(weights, axis=1, keepdims=True) - ops.cumsum(weights, axis=1)
    slopes = ops.stop_gradient(is_negative * after - weights * violated_by_positive)
    margins = margin * ops.sum(weights * violated_by_positive, axis=1)
    scores_in_order = take_in_rows(ops.concatenate([scores, scores], axis=1), order)
    # A score may be infinite or NaN where its slope is zero.
    counted = ops.where(slopes != 0, scores_in_order, ops.zeros_like(scores_in_order))
    losses = ops.sum(counted * slopes, axis=1) + ops.stop_gradient(margins)

    # A NaN has no place in an order; without this, a slope of zero could hide it.
    is_nan = ops.logical_and(ops.isnan(scores), ops.logical_or(positive, negative))
    losses = ops.where(ops.any(is_nan, axis=1), ops.full_like(losses, float("nan")), losses)
    return losses, violations


def _in_order(flags: Tensor, order: Tensor, dtype: str) -> Tensor:
    return ops.cast(take_in_rows(flags, order), dtype)


def check_shapes(labels: Tensor, scores: Tensor) -> None:
    """Raises a ValueError unless labels and scores are both (B, C)."""
    for name, tensor in (("labels", labels), ("scores", scores)):
        if rank(tensor) not in (None, 2):
            raise ValueError(f"ranking loss: {name} must be (images, classes), not {tensor.shape}")
    if None in (rank(labels), rank(scores)):
        return
    pairs = zip(labels.shape, scores.shape, strict=True)
    if any(one != other and None not in (one, other) for one, other in pairs):
        raise ValueError(
            f"ranking loss: labels {labels.shape} and scores {scores.shape} must have one shape, "
            "(images, classes)"
        )


def rank(tensor: Any) -> int | None:
    """Returns the number of axes; `None` where TensorFlow does not know it yet."""
    shape = tensor.shape
    return shape.rank if hasattr(shape, "rank") else len(shape)
