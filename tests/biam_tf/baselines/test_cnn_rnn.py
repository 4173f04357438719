"""The decoder of label sequences against NumPy: its losses, its search, its scores."""

import itertools

import keras
import numpy as np
import pytest

from biam_tf.baselines.cnn_rnn import CNN_RNN, LabelSequenceDecoder
from biam_tf.models.systems import build_system_head

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

CLASSES, SIZE, UNITS = 4, 3, 5
END = CLASSES


@pytest.fixture
def images(rng):
    return rng.normal(size=(3, SIZE)).astype("float32")


def decoder(**settings) -> LabelSequenceDecoder:
    keras.utils.set_random_seed(0)
    made = LabelSequenceDecoder(CLASSES, units=UNITS, **settings)
    made.build((None, SIZE))
    for weight in made.trainable_weights:  # large enough for sequences to be of unlike likelihood
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    return made


class Reference:
    """One image at a time, in float64."""

    def __init__(self, layer: LabelSequenceDecoder):
        kernel, recurrent, bias = (w.numpy().astype("float64") for w in layer.lstm.weights)
        self.gates = lambda x, h: x @ kernel + h @ recurrent + bias
        self.labels, self.start, self.output = (
            w.numpy().astype("float64") for w in (layer.labels, layer.start, layer.output_kernel)
        )

    def log_next(self, image, sequence, excluded=()):
        """Log-probabilities of what follows a sequence of labels, END the last."""
        h = c = np.zeros(UNITS)
        for x in [self.start, *self.labels[list(sequence)]]:
            i, f, g, o = np.split(self.gates(x, h), 4)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
        logits = self.labels @ np.maximum(h @ self.output + image, 0)
        logits[list(excluded)] = -np.inf
        return logits - np.log(np.exp(logits).sum())


def test_the_loss_is_the_surprise_of_the_labels_in_order_of_frequency(images):
    layer = decoder(max_labels=2)
    layer.class_counts.assign([5, 9, 5, 1])
    reference = Reference(layer)
    labels = np.array([[1, 1, -1, -1], [1, 0, 1, -1], [1, 1, 1, -1]], "int8")
    # Of equally frequent classes the first; a third label is one too many, and no END.
    sequences = [([1, 0, END], []), ([0, 2, END], [1]), ([1, 0], [])]
    expected = [
        -sum(reference.log_next(image, seq[:t], unknown)[seq[t]] for t in range(len(seq)))
        for image, (seq, unknown) in zip(images, sequences, strict=True)
    ]
    np.testing.assert_allclose(layer.sequence_losses(labels, images), expected, rtol=1e-5)


def test_an_image_without_labels_is_the_end(images):
    layer = decoder(max_labels=2)
    expected = [-Reference(layer).log_next(image, [])[END] for image in images]
    losses = layer.sequence_losses(np.full((3, CLASSES), -1), images)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_with_beams_for_all_sequences_the_score_is_the_probability_of_the_label(images):
    layer = decoder(max_labels=3, beams=100)
    reference = Reference(layer)
    expected = np.zeros((len(images), CLASSES))
    for row, image in enumerate(images):
        for length in range(3):
            for before in itertools.permutations(range(CLASSES), length):
                path = sum(
                    reference.log_next(image, before[:t], before[:t])[before[t]]
                    for t in range(length)
                )
                expected[row] += np.exp(path + reference.log_next(image, before, before))[:CLASSES]
    np.testing.assert_allclose(np.exp(layer(images)), expected, rtol=1e-5)
    assert (expected <= 1).all()


def test_the_search_keeps_the_most_probable_beginnings(images):
    layer = decoder(max_labels=3, beams=2)
    reference = Reference(layer)
    for image, scores in zip(images, layer(images).numpy(), strict=True):
        beams, expected = [((), 0.0)], np.zeros(CLASSES)
        for _ in range(3):
            shares = np.exp([path for _, path in beams])
            shares /= shares.sum()
            grown = []
            for (before, path), share in zip(beams, shares, strict=True):
                if before[-1:] == (END,):
                    grown.append((before, path))
                    continue
                follows = reference.log_next(image, before, before)
                expected += share * np.exp(follows[:CLASSES])
                grown += [((*before, k), path + follows[k]) for k in range(CLASSES + 1)]
            beams = sorted(grown, key=lambda beam: -beam[1])[:2]
        np.testing.assert_allclose(np.exp(scores), expected, rtol=1e-5)


def test_it_counts_the_classes_of_the_training_photos():
    head = build_system_head(
        "cnn_rnn", (2, 2, 3), 6, 2, seen_embeddings=np.eye(2), units=4, label_size=3
    )
    CNN_RNN.prepare(head, np.array([[1, -1], [1, 1], [0, -1]], "int8"))
    np.testing.assert_array_equal(head.get_layer("label_sequences").class_counts, [2, 1])
