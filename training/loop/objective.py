"""What a training step minimizes: losses of a batch's examples and how they add up."""

import dataclasses
from collections.abc import Mapping

import keras
import tensorflow as tf

from biam_tf.losses import pairwise_ranking_loss, softmax_over_classes, softmax_over_images
from biam_tf.models.head import scores_alone
from biam_tf.models.system import Losses
from biam_tf.models.systems import SYSTEMS
from biam_tf.sparse_labels import Labels
from training.config import HeadConfig, LossConfig


@dataclasses.dataclass(frozen=True)
class Objective:
    """The losses of a step.

    Attributes:
        losses: a function of labels (B, C) and the model's outputs by name to losses (B,).
        is_mean: whether the loss of a batch is their mean; else it is their sum.
        compares_images: whether the loss of an image depends on the other images of its batch.
            Such losses are computed from the outputs of the whole batch, over all devices and
            parts, and must depend on labels and outputs alone. Defaults to `False`.
    """

    losses: Losses
    is_mean: bool
    compares_images: bool = False

    @classmethod
    def of_loss(cls, loss: LossConfig) -> "Objective":
        """Returns the objective that a configuration's `training.loss` describes."""
        if loss.name == "softmax":
            over_images = loss.over_images
            return cls(_softmax(over_images), is_mean=True, compares_images=over_images > 0)
        by_violations = loss.reduction == "mean_of_violations"

        def ranking(labels: tf.Tensor, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
            return pairwise_ranking_loss(labels, outputs["scores"], loss.margin, by_violations)

        return cls(ranking, is_mean=by_violations)


def make_objective(head: keras.Model, config: HeadConfig, loss: LossConfig) -> Objective:
    """Returns the losses of a head: its system's own, or those of `training.loss`.

    Args:
        head: as `training_model` takes it.
        config: its system and settings.
        loss: settings of the loss; without a name, the loss that suits the head.
    """
    system, settings = SYSTEMS[config.system], config.settings
    if system.make_losses is not None:
        losses = system.make_losses(head, settings)
        return Objective(losses, is_mean=True, compares_images=system.compares_images)
    if loss.name is None:
        is_cosine = getattr(settings, "classifier", None) == "cosine"
        loss = dataclasses.replace(loss, name="softmax" if is_cosine else "ranking")
    return Objective.of_loss(loss)


def prepare_head(head: keras.Model, config: HeadConfig, labels: Labels) -> None:
    """Lets a system set what its head keeps of the training labels, before the first step.

    Args:
        head: as built.
        config: which system it is.
        labels: (N, S) of all training examples for the seen classes, +1, -1 or 0.
    """
    prepare = SYSTEMS[config.system].prepare
    if prepare is not None:
        prepare(head, labels)


def training_model(head: keras.Model, config: HeadConfig) -> keras.Model:
    """Returns a model of the head's layers with the outputs that its losses take by name."""
    outputs = SYSTEMS[config.system].training_outputs
    if outputs is None:
        return scores_alone(head)
    return keras.Model(head.inputs, outputs(head), name=f"{head.name}_in_training")


def _softmax(over_images: float) -> Losses:
    def losses(labels: tf.Tensor, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        scores = outputs["scores"]
        value = softmax_over_classes(labels, scores)
        return value + over_images * softmax_over_images(labels, scores) if over_images else value

    return losses
