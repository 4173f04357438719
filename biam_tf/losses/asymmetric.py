"""Asymmetric loss: a binary cross-entropy in which easy absent classes count little."""

from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

from biam_tf.losses.pairwise_ranking import check_shapes, loss_dtype
from biam_tf.tensor_types import Tensor

_LEAST_PROBABILITY = 1e-8


def asymmetric_loss(
    labels: Tensor,
    scores: Tensor,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
) -> Tensor:
    """Sum of the asymmetric losses of an image's classes.

    Ridnik et al., "Asymmetric loss for multi-label classification" (ICCV 2021). With the
    probability p = sigmoid(s) of a class and the shifted probability q = max(p - clip, 0)::

        loss_c = -(1 - p)^gamma_positive · log p        for a present class
        loss_c = -q^gamma_negative · log(1 - q)         for an absent class

    The factors (1 - p)^gamma and q^gamma are constants for the gradient, as in the code of
    ML-Decoder and DualCoOp. An absent class whose probability is below `clip` costs nothing.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (takes no part).
        scores: (B, C), floating point; computed in at least float32.
        gamma_positive: focusing of present classes, at least 0. Defaults to `0.0`.
        gamma_negative: focusing of absent classes, at least 0. Defaults to `4.0`.
        clip: shift of the probability of absent classes, in [0, 1). Defaults to `0.05`.

    Returns:
        (B,) losses, float64 for float64 scores, else float32; 0 for an image without labels.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """
    labels, scores = ops.convert_to_tensor(labels), ops.convert_to_tensor(scores)
    check_shapes(labels, scores)
    scores = ops.cast(scores, loss_dtype(scores))
    # The score of an unknown class takes no part, even if it is NaN.
    scores = ops.where(labels != 0, scores, ops.zeros_like(scores))
    p = ops.sigmoid(scores)
    present = -ops.stop_gradient((1 - p) ** gamma_positive) * ops.log_sigmoid(scores)
    # 1 - q = min(1 - p + clip, 1), computed from sigmoid(-s): 1 - p loses its digits near p = 1.
    absent_probability = ops.minimum(ops.sigmoid(-scores) + clip, 1.0)
    factor = ops.stop_gradient((1 - absent_probability) ** gamma_negative)
    absent = -factor * ops.log(ops.maximum(absent_probability, _LEAST_PROBABILITY))
    losses = ops.where(labels > 0, present, absent)
    return ops.sum(ops.where(labels != 0, losses, ops.zeros_like(losses)), axis=1)


def asymmetric_losses(head: Any, settings: Any) -> Callable[[Tensor, Mapping[str, Tensor]], Tensor]:
    """Returns the loss of a system (`System.make_losses`) with this loss's three settings.

    Args:
        head: not used.
        settings: its `gamma_positive`, `gamma_negative` and `clip` are those of `asymmetric_loss`.
    """
    del head
    return lambda labels, outputs: asymmetric_loss(
        labels,
        outputs["scores"],
        settings.gamma_positive,
        settings.gamma_negative,
        settings.clip,
    )
