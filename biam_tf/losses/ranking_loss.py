"""The pairwise ranking loss as a Keras loss."""

import keras
from keras import ops

from biam_tf.losses.pairwise_ranking import pairwise_ranking_loss, rank
from biam_tf.tensor_types import Tensor
from biam_tf.ways_to_compute import is_tensorflow

REDUCTIONS = ("sum", "mean_of_violations")


@keras.saving.register_keras_serializable(package="biam_tf")
class RankingLoss(keras.losses.Loss):
    """Pairwise ranking loss over present and absent classes (eq. 10 of the paper).

    The loss of one image is that of `pairwise_ranking_loss`. A batch's value is

    - with `reduction="sum"`: the plain sum over its images (the paper);
    - with `reduction="mean_of_violations"`: each image's sum divided by its number of violated
      pairs, then the mean over the images that have at least one positive (the released code,
      which drops the others). 0 if no image has one.

    `sample_weight`, one number per image, multiplies the images' losses; as elsewhere in Keras
    it does not change the mean's divisor. Images that a Keras mask excludes count as absent
    from the batch. Under `fit` with a `tf.distribute` strategy, the mean is over the images of all
    replicas together.

    ```python
    model.compile("adam", loss=RankingLoss(reduction="mean_of_violations"))
    ```

    Args:
        margin: difference by which a positive's score must exceed a negative's. Defaults to `1.0`.
        reduction: `"sum"` or `"mean_of_violations"`. Defaults to `"sum"`.
        name: name of the loss. Defaults to `"ranking_loss"`.
        dtype: dtype of the result. Defaults to `None`: `keras.config.floatx()`.

    Input shape:
        `y_true` (B, C) with +1 present, -1 absent, 0 unknown; `y_pred` (B, C) scores.

    Raises:
        ValueError: for another reduction; on a call, for shapes that do not match.
    """

    def __init__(
        self,
        margin: float = 1.0,
        reduction: str = "sum",
        name: str = "ranking_loss",
        dtype: str | None = None,
    ):
        if reduction not in REDUCTIONS:
            raise ValueError(
                f"RankingLoss: reduction {reduction!r} is not known; "
                f"use {' or '.join(map(repr, REDUCTIONS))}"
            )
        super().__init__(name=name, reduction="sum", dtype=dtype)
        # Not one of Keras's reductions; `__call__` below applies it.
        self.reduction = reduction
        self.margin = float(margin)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the losses (B,) of the images, before weights and the reduction."""
        return pairwise_ranking_loss(
            y_true, y_pred, self.margin, self.reduction == "mean_of_violations"
        )

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        # Keras has no public access to the mask; a test fails if a release renames it.
        mask = getattr(y_pred, "_keras_mask", None)
        with keras.name_scope(self.name):
            y_true = ops.convert_to_tensor(y_true)
            y_pred = ops.convert_to_tensor(y_pred)
            losses = ops.cast(self.call(y_true, y_pred), self.dtype)
            counts = ops.cast(ops.any(y_true > 0, axis=1), self.dtype)
            if mask is not None:
                mask = _one_per_image(mask, "mask", self.dtype)
                # Not a product: a masked image may hold anything, NaN included.
                losses = ops.where(mask > 0, losses, ops.zeros_like(losses))
                counts = counts * mask
            if sample_weight is not None:
                losses = losses * _one_per_image(sample_weight, "sample_weight", self.dtype)
            total = ops.sum(losses)
            if self.reduction == "sum":
                return total
            return ops.divide_no_nan(total, _over_replicas(ops.sum(counts)))

    def get_config(self) -> dict:
        return {
            "margin": self.margin,
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
        }


def _over_replicas(divisor: Tensor) -> Tensor:
    """Sums a replica's divisor over the replicas of `tf.distribute`, whose gradients add up."""
    if not is_tensorflow():
        return divisor
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None:  # in the strategy's scope, but not on a replica
        return divisor * tf.distribute.get_strategy().num_replicas_in_sync
    if replica.num_replicas_in_sync > 1:
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, divisor)
    return divisor


def _one_per_image(values: Tensor, what: str, dtype: str) -> Tensor:
    values = ops.cast(ops.convert_to_tensor(values), dtype)
    axes = rank(values)
    if axes == 2 and values.shape[1] == 1:
        values = ops.squeeze(values, axis=1)
    elif axes not in (None, 0, 1):
        raise ValueError(
            f"RankingLoss: {what} of shape {values.shape}; expected one number per image. "
            "A label of 0 leaves out a single class of an image."
        )
    return values
