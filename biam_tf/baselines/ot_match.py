"""Optimal transport of regions to classes, solved against the seen classes alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops
from numpy.typing import ArrayLike

from biam_tf.baselines.image_text_systems import OtMatchSettings
from biam_tf.layers import BoundClassEmbeddings
from biam_tf.layers.region_classifier import match_classes
from biam_tf.models.system import (
    HeadInputs,
    Losses,
)
from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class TransportToClasses(layers.Layer):
    """Scores classes by the regions that an optimal transport plan assigns to them.

    With the cosines x_rc of regions and classes, and S fixed reference classes, the plan T solves
    entropic optimal transport of the regions, of mass u_r, to the reference classes, each of mass
    1/S::

        u = softmax_r(max_s x_rs / weight_temperature)
        M_rc = 1 - min(1, exp(κ x_rc) / Σ_s exp(κ x_rs))                    κ: cost_scale
        T_rs = p_r exp(-M_rs / regularization) q_s        (Sinkhorn's algorithm)

    The algorithm ends with an update of q, which normalizes the column of each reference class by
    itself. A column thus follows from the regions' factors p alone, also of a class that is no
    reference class::

        π_rc = softmax_r(log p_r - M_rc / regularization)
        local_c = scale_l Σ_r π_rc x_rc,   global_c = scale_g y_c

    where y_c is the cosine of the photo and the class; the mass 1/S is part of `scale_l`. For the
    reference classes this plan is T; that of a class depends on no other class of a request. The
    plan is a constant for the gradient. All is computed in float32 under
    any dtype policy. The reference classes are saved with the weights and never trained.

    Args:
        scale: float, initial value of `scale_l` and `scale_g`.
        cost_scale: float.
        weight_temperature: float.
        regularization: float.
        iterations: int, of Sinkhorn's algorithm.
        reference: array-like `(S, embedding_size)`. Defaults to `None`: zeros, for weights that
            are loaded afterwards.
        num_classes: int, S, needed where `reference` is `None`. Defaults to `None`.
        embedding_size: int, needed where `reference` is `None`. Defaults to `None`.

    Input shape:
        A list of unit vectors of regions `(batch, height, width, d_a)` and of photos `(batch,
        d_a)`, and class embeddings `(classes, d_a)`, without a batch axis.

    Output shape:
        A tuple of the terms of the local scores, `(batch, height, width, classes)`, the local and
        the global scores, both `(batch, classes)`, and the logarithms of the sums of their
        exponentials over the reference classes, both `(batch, 1)`.
    """

    def __init__(
        self,
        scale: float,
        cost_scale: float,
        weight_temperature: float,
        regularization: float,
        iterations: int,
        reference: ArrayLike | None = None,
        num_classes: int | None = None,
        embedding_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.scale = scale
        self.cost_scale = cost_scale
        self.weight_temperature = weight_temperature
        self.regularization = regularization
        self.iterations = iterations
        self.reference = BoundClassEmbeddings(
            reference, num_classes, embedding_size, dtype="float32", name="reference"
        )

    def build(self, input_shape: Sequence[Shape]) -> None:
        start = keras.initializers.Constant(math.log(self.scale))
        self.log_local_scale = self.add_weight(shape=(), initializer=start, name="log_local_scale")
        self.log_global_scale = self.add_weight(
            shape=(), initializer=start, name="log_global_scale"
        )

    def call(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        regions, photo, class_embeddings = inputs
        batch, height, width, _ = ops.shape(regions)
        rows = ops.reshape(regions, (batch, height * width, regions.shape[-1]))
        classes = ops.normalize(class_embeddings)
        reference = ops.normalize(ops.convert_to_tensor(self.reference.matrix))
        x, x_reference = match_classes(rows, classes), match_classes(rows, reference)

        total = ops.logsumexp(self.cost_scale * x_reference, axis=2, keepdims=True)
        factors = self._region_factors(x_reference, self._log_kernel(x_reference, total))
        terms, local = self._local(factors, x, total)
        _, local_reference = self._local(factors, x_reference, total)
        scale = ops.exp(self.log_global_scale)
        whole, whole_reference = (scale * match_classes(photo, to) for to in (classes, reference))
        maps = ops.reshape(terms, (batch, height, width, ops.shape(classes)[0]))
        totals = (
            ops.logsumexp(scores, axis=1, keepdims=True)
            for scores in (local_reference, whole_reference)
        )
        return maps, local, whole, *totals

    def _log_kernel(self, x: Tensor, total: Tensor) -> Tensor:
        """Returns -M / regularization (B, n, C) for cosines x and log Σ_s exp(κ x_rs)."""
        share = ops.exp(ops.minimum(self.cost_scale * x - total, 0.0))
        return (share - 1.0) / self.regularization

    def _region_factors(self, x_reference: Tensor, log_kernel: Tensor) -> Tensor:
        """Returns log p (B, n, 1) of the regions after Sinkhorn's algorithm."""
        mass = ops.log_softmax(ops.max(x_reference, axis=2) / self.weight_temperature, axis=1)
        mass = mass[:, :, None]
        class_mass = -math.log(self.reference.matrix.shape[0])
        log_p = mass - ops.logsumexp(log_kernel, axis=2, keepdims=True)
        for _ in range(self.iterations - 1):
            log_q = class_mass - ops.logsumexp(log_kernel + log_p, axis=1, keepdims=True)
            log_p = mass - ops.logsumexp(log_kernel + log_q, axis=2, keepdims=True)
        return log_p

    def _local(self, factors: Tensor, x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the terms of the local scores (B, n, C), and their sums over the regions."""
        plan = ops.softmax(factors + self._log_kernel(x, total), axis=1)
        terms = ops.exp(self.log_local_scale) * ops.stop_gradient(plan) * x
        return terms, ops.sum(terms, axis=1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> tuple[Shape, ...]:
        regions_shape, _, embeddings_shape = input_shape
        batch, classes = regions_shape[0], embeddings_shape[0]
        maps, scores = (*regions_shape[:3], classes), (batch, classes)
        return maps, scores, scores, (batch, 1), (batch, 1)

    def get_config(self) -> dict:
        # The reference classes themselves are a weight.
        return {
            **super().get_config(),
            "scale": self.scale,
            "cost_scale": self.cost_scale,
            "weight_temperature": self.weight_temperature,
            "regularization": self.regularization,
            "iterations": self.iterations,
            "num_classes": self.reference.num_classes,
            "embedding_size": self.reference.embedding_size,
        }


def build_scores(inputs: HeadInputs, settings: OtMatchSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32; the equations are in `TransportToClasses`.

    The response maps are the terms of the local score.

    Raises:
        ValueError: the seen embeddings are missing.
    """
    seen = inputs.require_seen_embeddings("the system ot_match")
    regions, scene = inputs.region_features, inputs.scene_feature
    if settings.dropout:
        regions = layers.SpatialDropout2D(settings.dropout, name="region_dropout")(regions)
        scene = layers.Dropout(settings.dropout, name="scene_dropout")(scene)
    transport = TransportToClasses(
        settings.scale,
        settings.cost_scale,
        settings.weight_temperature,
        settings.regularization,
        settings.iterations,
        seen,
        dtype="float32",
        name="transport",
    )
    maps, local, whole, *totals = transport(
        [
            _direction(settings, regions, seen.shape[1], "region"),
            _direction(settings, scene, seen.shape[1], "scene"),
            inputs.class_embeddings,
        ]
    )
    maps, local, whole = (
        layers.Activation("linear", dtype="float32", name=name)(part)
        for name, part in (
            ("response_maps", maps),
            ("local_scores", local),
            ("global_scores", whole),
        )
    )
    return LogMeanShare(dtype="float32", name="scores")([local, whole, *totals, maps])


@keras.saving.register_keras_serializable(package="biam_tf")
class LogMeanShare(layers.Layer):
    """The logarithm of the mean of two softmax values over the reference classes s::

        score_c = log ½ ( exp(local_c) / Σ_s exp(local_s) + exp(global_c) / Σ_s exp(global_s) )

    Input shape:
        A list of local and global scores `(batch, classes)`, the logarithms of their two sums
        `(batch, 1)`, and response maps, which do not change the scores: they are only connected to
        the model.

    Output shape:
        Scores `(batch, classes)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        local, whole, local_total, whole_total, _ = inputs
        # Not logaddexp, which uses an operation that ONNX lacks.
        shares = ops.stack([local - local_total, whole - whole_total], axis=-1)
        return ops.logsumexp(shares, axis=-1) - math.log(2.0)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[0]


def _direction(
    settings: OtMatchSettings, x: keras.KerasTensor, size: int, name: str
) -> keras.KerasTensor:
    if settings.channels is not None:
        x = layers.Dense(settings.channels, activation="relu", name=f"{name}_hidden")(x)
    x = layers.Dense(size, name=f"{name}_vectors")(x)
    return layers.UnitNormalization(dtype="float32", name=f"{name}_directions")(x)


def training_outputs(head: keras.Model) -> Mapping[str, keras.KerasTensor]:
    """Returns the inputs of the loss: `local_scores` and `global_scores`, both (B, C)."""
    return {name: head.get_layer(name).output for name in ("local_scores", "global_scores")}


def multi_matching_loss(labels: Tensor, scores: Tensor) -> tf.Tensor:
    """Cross-entropy of a softmax over all pairs of an image and a class of a batch.

    With the present pairs P of the batch and all present or absent ones A::

        loss_i = -B/|P| Σ_{(i,p)∈P} log( exp s_ip / Σ_{(j,c)∈A} exp s_jc )

    whose mean over the B images is the multi-matching contrastive loss of the method.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (takes no part).
        scores: (B, C), floating point; computed in float32.

    Returns:
        (B,) float32; 0 for an image without a present class.
    """
    labels, scores = tf.convert_to_tensor(labels), tf.cast(scores, tf.float32)
    present = tf.cast(labels > 0, tf.float32)
    masked = tf.where(labels != 0, scores, tf.constant(scores.dtype.min / 2, scores.dtype))
    log_likelihoods = masked - tf.reduce_logsumexp(masked)
    images = tf.cast(tf.shape(scores)[0], tf.float32)
    losses = -images * tf.reduce_sum(present * log_likelihoods, axis=1)
    return tf.math.divide_no_nan(losses, tf.reduce_sum(present))


def make_losses(head: keras.Model, settings: OtMatchSettings) -> Losses:
    """Returns the sum of the multi-matching losses of the local and the global scores."""
    del head, settings
    return lambda labels, outputs: (
        multi_matching_loss(labels, outputs["local_scores"])
        + multi_matching_loss(labels, outputs["global_scores"])
    )
