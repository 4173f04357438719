"""Losses that compare the photos of a batch, for a batch that no device has whole.

A loss such as `softmax_over_images` is not a sum of numbers that each belong to one photo: the sum
of the losses of a batch's halves is another loss. The scores are therefore gathered from all
devices and parts before the loss is computed. By the chain rule, the gradient of a weight is the
sum over scores of the derivative of the loss by the score times that of the score by the weight;
each device and part adds the terms of its own scores.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from training.loop.objective import Objective

Outputs = Mapping[str, tf.Tensor]  # of a model, by name


def share_of_batch(
    objective: Objective, labels: tf.Tensor, outputs: Outputs, batch_size: int
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Returns this device's share of the whole batch's loss, and the loss' slopes in its outputs.

    Called on every device. The shares are equal and add up to the loss.

    Args:
        objective: its losses depend on labels and outputs alone, not on other weights.
        labels: (n, C) of this device's photos, as many as on every other device.
        outputs: of the model for these photos, by name; the first axis is theirs.
        batch_size: number of photos of the whole batch.
    """
    device = tf.distribute.get_replica_context()
    devices = device.num_replicas_in_sync
    whole_labels: tf.Tensor = labels
    whole = {name: tf.stop_gradient(output) for name, output in outputs.items()}
    if devices > 1:
        # As int32: not all devices can send int8.
        whole_labels = device.all_gather(tf.cast(labels, tf.int32), axis=0)
        whole = {name: device.all_gather(output, axis=0) for name, output in whole.items()}
    with tf.GradientTape() as tape:
        tape.watch(whole)
        losses = objective.losses(whole_labels, whole)
        loss = tf.reduce_sum(losses) / (batch_size if objective.is_mean else 1)
    slopes = tape.gradient(loss, whole, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    if devices > 1:
        own = tf.shape(labels)[0]
        first = own * tf.cast(device.replica_id_in_sync_group, tf.int32)
        slopes = {name: slope[first : first + own] for name, slope in slopes.items()}
    return loss / devices, slopes


def share_of_parts(
    objective: Objective,
    labels: Sequence[tf.Tensor],
    outputs: Sequence[Outputs],
    batch_size: int,
) -> tuple[tf.Tensor, list[dict[str, tf.Tensor]]]:
    """Returns `share_of_batch` of a device's parts of a batch, with the slopes of each part.

    Args:
        objective: see `share_of_batch`.
        labels: (n, C) of each part.
        outputs: of each part, by name.
        batch_size: number of photos of the whole batch, over all parts and devices.
    """
    joined = {name: tf.concat([part[name] for part in outputs], axis=0) for name in outputs[0]}
    loss, slopes = share_of_batch(objective, tf.concat(labels, axis=0), joined, batch_size)
    split = {name: tf.split(slope, len(labels), axis=0) for name, slope in slopes.items()}
    return loss, [{name: pieces[i] for name, pieces in split.items()} for i in range(len(labels))]


class LayerState:
    """What layers change when they are called in training: statistics and random numbers.

    Args:
        strategy: the devices.
        variables: of the layers, not trained.
    """

    def __init__(self, strategy: tf.distribute.Strategy, variables: Sequence[Any]):
        self._copies = [
            own
            for variable in variables
            for own in strategy.experimental_local_results(variable.value)
        ]
        self._values: list[tf.Tensor] = []

    def keep(self) -> None:
        """Remembers the present values, each device's own."""
        self._values = [tf.identity(variable) for variable in self._copies]

    def restore(self) -> None:
        """Assigns the remembered values: the next calls of the layers repeat the last ones."""
        for variable, value in zip(self._copies, self._values, strict=True):
            variable.assign(value)
