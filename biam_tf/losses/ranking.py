"""The pairwise ranking loss of the paper (eq. 10) and of the released code.

Both sum a hinge over all (positive, negative) pairs of classes of an image. With P positives
and C classes that is P·C terms; nothing of that size is ever made here. Sorting an image's
scores once tells for every class how many pairs it violates, which is the loss's slope in that
class's score, and the slopes give the value.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

REDUCTIONS = ("sum", "mean_of_violations")


def pairwise_ranking_loss(
    labels, scores, margin: float = 1.0, mean_of_violations: bool = False
) -> tf.Tensor:
    """Hinge loss over the (positive, negative) pairs of each image, eq. 10 of the paper.

    For an image with positives P and negatives N::

        loss = Σ_{p∈P} Σ_{n∈N} max(s_n - s_p + margin, 0)

    A pair is violated where the hinge is strictly positive; a pair exactly at the margin is
    not. Value and gradient are exact (the counting is done in float64), time is
    O(B·C·log C), memory O(B·C). Works eagerly, in a `tf.function` with or without XLA, with
    unknown shapes, and for an empty batch. An image without positives or without negatives
    has loss 0.

    Args:
        labels: (B, C), any numeric dtype: +1 present, -1 absent, 0 unknown (in no pair). Not
            0/1: with zeros for absent classes there would be no pair and no loss.
        scores: (B, C), any floating dtype; half precision is computed in at least float32.
        margin: by how much a positive must outrank a negative.
        mean_of_violations: True divides each image's sum by its number of violated pairs
            plus 1e-8, as the released code does; the number is a constant for the gradient.

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


def loss_dtype(scores) -> tf.DType:
    """Returns float64 for float64 scores, else float32."""
    return tf.float64 if tf.convert_to_tensor(scores).dtype == tf.float64 else tf.float32


def hinges_of_pairs(
    labels, scores, margin: float, weigh: Callable[[tf.Tensor], tf.Tensor] | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums the hinges of all (positive, negative) pairs of each image, weighted by the positive.

    Args:
        labels: (B, C), +1, -1, 0.
        scores: (B, C), floating point.
        margin: by how much a positive must outrank a negative.
        weigh: numbers (B, 2C), float64, of the negatives that violate a positive to the weights
            of its hinges, which are constants for the gradient; None: all weigh 1.

    Returns:
        The (weighted) sums (B,) and the numbers (B,) of violated pairs, both float64. The sum is
        NaN for an image with a NaN score on a labelled class.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """
    labels, scores = tf.convert_to_tensor(labels), tf.convert_to_tensor(scores)
    check_shapes(labels, scores)
    # The difference of two float32 numbers is (all but) exact in float64, so a pair at the
    # margin is recognized as such, and sums over millions of pairs keep their digits.
    scores = tf.cast(scores, tf.float64)
    margin = tf.constant(margin, tf.float64)
    positive, negative = labels > 0, labels < 0

    # One descending order of positives (at s_p - margin) and negatives (at s_n): a positive
    # violates with exactly the negatives before it. The sort is stable and positives stand
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

    # d loss / d score of each entry; constant between two kinks, so that the loss itself is
    # Σ slope · score + margin · Σ weights of violated pairs, and automatic differentiation gives
    # the slopes back.
    slopes = is_negative * tf.cumsum(weights, 1, exclusive=True, reverse=True)
    slopes = tf.stop_gradient(slopes - weights * violated_by_positive)
    margins = margin * tf.reduce_sum(weights * violated_by_positive, axis=1)
    scores_in_order = tf.gather(tf.concat([scores, scores], axis=1), order, batch_dims=1)
    losses = tf.reduce_sum(tf.math.multiply_no_nan(scores_in_order, slopes), axis=1)
    losses += tf.stop_gradient(margins)

    # A NaN has no place in an order; without this, it could hide behind a slope of zero.
    has_nan = tf.reduce_any(tf.math.is_nan(scores) & (positive | negative), axis=1)
    return tf.where(has_nan, tf.constant(float("nan"), tf.float64), losses), violations


@keras.saving.register_keras_serializable(package="biam_tf")
class RankingLoss(keras.losses.Loss):
    """Pairwise ranking loss over present and absent classes (eq. 10 of the paper).

    The loss of one image is that of `pairwise_ranking_loss`. A batch's value is

    - with `reduction="sum"`: the plain sum over its images (the paper);
    - with `reduction="mean_of_violations"`: each image's sum divided by its number of violated
      pairs, then the mean over the images that have at least one positive (the released code,
      which drops the others). 0 if no image has one.

    `sample_weight`, one number an image, multiplies the images' losses; as elsewhere in Keras
    it does not enter the mean's divisor. Images that a Keras mask excludes count as absent
    from the batch. Under `fit` with a `tf.distribute` strategy the mean is one over each
    replica's own images, averaged over replicas, as with every Keras loss.

    ```python
    model.compile("adam", loss=RankingLoss(reduction="mean_of_violations"))
    ```

    Args:
        margin: by how much a positive must outrank a negative.
        reduction: `"sum"` or `"mean_of_violations"`.
        name: name of the loss.
        dtype: dtype of the result; None means `keras.config.floatx()`.

    Input shape:
        `y_true` (B, C) with +1 present, -1 absent, 0 unknown; `y_pred` (B, C) scores.

    Raises:
        ValueError: for another reduction; on a call, for shapes that don't fit.
    """

    def __init__(
        self,
        margin: float = 1.0,
        reduction: str = "sum",
        name: str = "ranking_loss",
        dtype=None,
    ):
        if reduction not in REDUCTIONS:
            raise ValueError(
                f"RankingLoss: reduction {reduction!r} is not known; "
                f"use {' or '.join(map(repr, REDUCTIONS))}"
            )
        super().__init__(name=name, reduction="sum", dtype=dtype)
        # Keras knows other reductions than this loss; `__call__` below applies ours.
        self.reduction = reduction
        self.margin = float(margin)

    def call(self, y_true, y_pred) -> tf.Tensor:
        """Returns the (B,) losses of the images, before weights and the reduction."""
        return pairwise_ranking_loss(
            y_true, y_pred, self.margin, self.reduction == "mean_of_violations"
        )

    def __call__(self, y_true, y_pred, sample_weight=None) -> tf.Tensor:
        """Returns the batch's loss, a scalar of the loss's dtype."""
        mask = getattr(y_pred, "_keras_mask", None)
        with tf.name_scope(self.name):
            y_true = keras.ops.convert_to_tensor(y_true)
            y_pred = keras.ops.convert_to_tensor(y_pred)
            losses = tf.cast(self.call(y_true, y_pred), self.dtype)
            counts = tf.cast(tf.reduce_any(y_true > 0, axis=1), self.dtype)
            if mask is not None:
                mask = _one_per_image(mask, "mask", self.dtype)
                # Not a product: a masked image may hold anything, NaN included.
                losses = tf.where(mask > 0, losses, tf.zeros_like(losses))
                counts *= mask
            if sample_weight is not None:
                losses *= _one_per_image(sample_weight, "sample_weight", self.dtype)
            total = tf.reduce_sum(losses)
            if self.reduction == "sum":
                return total
            # Replicas' gradients are added up, so each contributes its share of the mean.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            return tf.math.divide_no_nan(total, tf.reduce_sum(counts)) / replicas

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "margin": self.margin,
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
        }


def _in_order(flags: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.gather(flags, order, batch_dims=1), tf.float64)


def check_shapes(labels: tf.Tensor, scores: tf.Tensor) -> None:
    """Raises the ValueError for labels and scores that aren't both (B, C)."""
    for name, tensor in (("labels", labels), ("scores", scores)):
        if tensor.shape.rank not in (None, 2):
            raise ValueError(f"ranking loss: {name} must be (images, classes), not {tensor.shape}")
    if not labels.shape.is_compatible_with(scores.shape):
        raise ValueError(
            f"ranking loss: labels {labels.shape} and scores {scores.shape} must have one shape, "
            "(images, classes)"
        )


def _one_per_image(values, what: str, dtype) -> tf.Tensor:
    values = tf.cast(tf.convert_to_tensor(values), dtype)
    if values.shape.rank == 2 and values.shape[1] == 1:
        values = tf.squeeze(values, axis=1)
    if values.shape.rank not in (None, 0, 1):
        raise ValueError(
            f"RankingLoss: {what} of shape {values.shape}; expected one number an image. "
            "A single class of an image is left out by its label 0."
        )
    return values
