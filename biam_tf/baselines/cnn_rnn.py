"""CNN-RNN: an image's labels as a sequence, each predicted from the image and earlier labels."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from biam_tf.baselines.known_class_systems import (  # noqa: F401
    CNN_RNN,
    CnnRnnSettings,
)
from biam_tf.baselines.known_classes import known_class_scores
from biam_tf.models.system import HeadInputs, Losses
from biam_tf.sparse_labels import Labels
from biam_tf.tensor_types import Shape, Tensor

_IMAGE, _DECODER = "image_projection", "label_sequences"
_IMPOSSIBLE = -1e9  # a logit; the difference of two infinities would be NaN


@keras.saving.register_keras_serializable(package="biam_tf")
class LabelSequenceDecoder(layers.Layer):
    """Predicts the labels of an image one after the other, and scores every class.

    With the embedding u_k of label k (a class, or the END of a sequence), rows of U, and the
    image v in the space of these embeddings::

        o_t = LSTM(u of the previous label)           u of a START at t = 1
        p_t = softmax(U relu(U_o o_t + v))            over the classes and END

    A call runs a beam search: of all prefixes of t labels it keeps the `beams` most probable
    ones, each label at most once per prefix. The score of a class is the logarithm of its expected
    count among the first `max_labels` labels::

        score_c = log Σ_t Σ_b q_tb p_t(c | v, prefix b)

    where q_t are the probabilities of the kept prefixes of t - 1 labels, scaled to sum to one.
    With as many beams as there are sequences, that is the probability that c is one of the
    labels.

    Args:
        num_classes: int, number of learned classes.
        units: int, units of the LSTM. Defaults to `512`.
        max_labels: int, steps of the search. Defaults to `10`.
        beams: int, prefixes kept at each step. Defaults to `5`.

    Input shape:
        Images in the space of the label embeddings, `(batch, label_size)`.

    Output shape:
        Scores `(batch, num_classes)`, float32.
    """

    def __init__(
        self,
        num_classes: int,
        units: int = 512,
        max_labels: int = 10,
        beams: int = 5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.units = units
        self.max_labels = max_labels
        self.beams = beams
        self.steps = min(max_labels, num_classes)
        self.lstm = layers.LSTM(units, return_sequences=True, dtype=self.dtype_policy, name="lstm")

    def build(self, input_shape: Shape) -> None:
        size = input_shape[-1]
        self.labels = self.add_weight(
            shape=(self.num_classes + 1, size),  # END is the last
            initializer="glorot_uniform",
            name="labels",
        )
        self.start = self.add_weight(shape=(size,), initializer="random_normal", name="start")
        self.output_kernel = self.add_weight(
            shape=(self.units, size), initializer="glorot_uniform", name="output_kernel"
        )
        self.class_counts = self.add_weight(
            shape=(self.num_classes,),
            initializer="zeros",
            trainable=False,
            autocast=False,  # counts of more than 16 bits
            name="class_counts",
        )
        self.lstm.build((None, None, size))

    def call(self, image: Tensor) -> Tensor:
        photos = tf.shape(image)[0]
        prefixes = photos * self.beams
        every = tf.range(self.num_classes + 1)  # label, END the last
        states = [tf.zeros((prefixes, self.units), self.compute_dtype)] * 2
        previous = tf.tile(self._cast(self.start)[None], (prefixes, 1))
        # There is one prefix at first, the empty one; the others are impossible copies of it.
        log_paths = tf.tile([[0.0] + [_IMPOSSIBLE] * (self.beams - 1)], (photos, 1))  # B,N
        closed = tf.zeros((photos, self.beams, self.num_classes + 1), tf.bool)
        expected = []
        for _ in range(self.steps):
            output, states = self.lstm.cell(previous, states)
            logits = self._logits(tf.reshape(output, (photos, self.beams, self.units)), image)
            log_next = tf.nn.log_softmax(tf.where(closed, _IMPOSSIBLE, logits))  # B,N,S+1
            weights = tf.nn.log_softmax(log_paths)[..., None]
            expected.append(tf.reduce_logsumexp(weights + log_next[..., :-1], axis=1))
            totals = tf.reshape(log_paths[..., None] + log_next, (photos, -1))
            log_paths, indices = tf.math.top_k(totals, self.beams)
            parents, labels = indices // (self.num_classes + 1), indices % (self.num_classes + 1)
            chosen = labels[..., None] == every
            ended = labels[..., None] == self.num_classes
            # A label occurs once; END is followed by END only.
            closed = tf.gather(closed, parents, batch_dims=1)
            closed = tf.where(ended, ~chosen, closed | chosen)
            rows = tf.reshape(parents + self.beams * tf.range(photos)[:, None], [-1])
            states = [tf.gather(state, rows) for state in states]
            previous = tf.gather(self._cast(self.labels), tf.reshape(labels, [-1]))
        return tf.reduce_logsumexp(tf.stack(expected), axis=0)

    def sequence_losses(self, labels: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """Returns -log p of the sequence of each image's labels, followed by END.

        Each label is predicted from the true ones before it. Frequent labels, by `class_counts`,
        come first; of equally frequent ones, that of the lower index. Of more than `max_labels`
        labels, the first `max_labels` are used, without an END.

        Args:
            labels: (batch, num_classes), +1 present, -1 absent, 0 unknown (takes no part in the
                softmax).
            image: (batch, label_size).

        Returns:
            (batch,) float32.
        """
        targets, counted = self._sequences(labels)
        previous = tf.gather(self._cast(self.labels), targets[:, :-1])
        start = tf.tile(self._cast(self.start)[None, None], (tf.shape(previous)[0], 1, 1))
        outputs = self.lstm(tf.concat([start, previous], axis=1))  # B,T,U
        logits = self._logits(outputs, image)
        unknown = tf.pad(labels == 0, [(0, 0), (0, 1)])[:, None]
        logits = tf.where(unknown, _IMPOSSIBLE, logits)
        surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tf.reduce_sum(counted * surprise, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.num_classes)

    def compute_output_spec(self, image: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(image.shape), "float32")

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "units": self.units,
            "max_labels": self.max_labels,
            "beams": self.beams,
        }

    def _logits(self, outputs: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """U relu(U_o o + v): (batch, T, units) to (batch, T, num_classes + 1), float32."""
        outputs = tf.einsum("btu,ue->bte", outputs, self._cast(self.output_kernel))
        joint = tf.nn.relu(outputs + self._cast(image)[:, None])
        return tf.cast(tf.einsum("bte,ke->btk", joint, self._cast(self.labels)), tf.float32)

    def _sequences(self, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Targets (batch, T) int32, and 1 where they count, else 0; T is that of the longest."""
        counts = tf.convert_to_tensor(self.class_counts)
        keys, classes = tf.math.top_k(tf.where(labels > 0, counts, -1.0), self.steps)
        targets = tf.where(keys >= 0, classes, self.num_classes)
        targets = tf.pad(targets, [(0, 0), (0, 1)], constant_values=self.num_classes)
        present = tf.reduce_sum(tf.cast(labels > 0, tf.int32), axis=1, keepdims=True)
        step = tf.range(self.steps + 1)[None]
        counted = (step <= present) & ((step < self.steps) | (present <= self.steps))
        length = tf.clip_by_value(tf.reduce_max(present), 0, self.steps) + 1
        return targets[:, :length], tf.cast(counted, tf.float32)[:, :length]

    def _cast(self, weight: keras.Variable | tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(weight), self.compute_dtype)


def build(inputs: HeadInputs, settings: CnnRnnSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes) of the learned classes: see `LabelSequenceDecoder`.

    The image in the space of the label embeddings is v = U_I x, with the scene feature x of the
    backbone, which is the CNN. Label embeddings of length 64 and an LSTM of 512 units are from
    the paper, which assigns an image the labels of its most probable sequence. Here every class
    gets a score from all sequences that the search keeps, since average precision ranks all
    images.
    """
    seen = inputs.require_seen_embeddings("the system cnn_rnn")
    image = layers.Dense(settings.label_size, use_bias=False, name=_IMAGE)(inputs.scene_feature)
    decoder = LabelSequenceDecoder(
        len(seen), settings.units, settings.max_labels, settings.beams, name=_DECODER
    )
    return known_class_scores(inputs, decoder(image), seen)


def training_outputs(head: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the decoder's input, and the scores, so that the decoder is part of the model."""
    return {"image": head.get_layer(_IMAGE).output, "scores": head.output}


def prepare(head: keras.Model, labels: Labels) -> None:
    """Counts the classes of the training photos, which are predicted in order of frequency."""
    head.get_layer(_DECODER).class_counts.assign(np.asarray((labels > 0).sum(axis=0)))


def make_losses(head: keras.Model, settings: CnnRnnSettings) -> Losses:
    """Returns the negative log-likelihood of each image's sequence of labels."""
    del settings
    decoder = head.get_layer(_DECODER)
    return lambda labels, outputs: decoder.sequence_losses(labels, outputs["image"])
