"""Probabilities and tags in the graph, by the rule of `biam_tf.class_calibration`."""

import numpy as np
import tensorflow as tf

from biam_tf.class_calibration import NewClassRule
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary

# Of a calibration, in this order.
COLUMNS = ("slopes", "offsets", "cuts")
_ROWS_AT_A_TIME = 256


class CalibrationTable(tf.Module):
    """Calibrations of classes, in a graph that can be saved.

    Args:
        thresholds: of the run.
        own: the run's vocabulary, with its seen classes.
    """

    def __init__(self, thresholds: Thresholds, own: Vocabulary) -> None:
        super().__init__()
        self._listed = tf.constant(thresholds.own.columns)
        self._rule = thresholds.rule
        self._seen = None
        if not self._rule.is_constant:
            seen = own.embeddings[np.array(own.groups, dtype=object) == "seen"]
            self._seen = tf.Variable(seen, trainable=False)

    def of_listed(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns slopes, offsets and cuts (..., 3), float64, of rows of the thresholds."""
        return tf.gather(self._listed, rows)

    def of_new(self, class_embeddings: tf.Tensor) -> tf.Tensor:
        """Returns slopes, offsets and cuts (C, 3) of class embeddings (C, d_a) of new classes."""
        rule = self._rule
        if self._seen is None:
            return tf.repeat(tf.constant(rule.knots), tf.shape(class_embeddings)[0], axis=0)
        similarity = _similarity(class_embeddings, tf.convert_to_tensor(self._seen), rule.neighbors)
        return _read_off(rule, tf.cast(similarity, tf.float64))

    def of_named(self, rows: tf.Tensor, class_embeddings: tf.Tensor) -> tf.Tensor:
        """Returns slopes, offsets and cuts (C, 3) of classes by name.

        Args:
            rows: (C,) int64, the row of each class in the thresholds; -1: it is new.
            class_embeddings: (C, d_a).
        """
        known, new = tf.where(rows >= 0), tf.where(rows < 0)
        own = self.of_listed(tf.gather_nd(rows, known))
        others = tf.cond(
            tf.size(new) > 0,
            lambda: self.of_new(tf.gather_nd(class_embeddings, new)),
            lambda: tf.zeros([0, 3], tf.float64),
        )
        return tf.tensor_scatter_nd_update(
            tf.scatter_nd(known, own, [tf.size(rows, tf.int64), 3]), new, others
        )


def answers(scores: tf.Tensor, calibration: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns `probabilities` float32 and `present` bool, each (B, C).

    Args:
        scores: (B, C).
        calibration: slopes, offsets and cuts, (C, 3) or (B, C, 3).
    """
    slopes, offsets, cuts = (calibration[..., column] for column in range(3))
    wide = tf.cast(scores, tf.float64)
    probabilities = tf.sigmoid(slopes * wide + offsets)
    return {"probabilities": tf.cast(probabilities, tf.float32), "present": wide >= cuts}


def _similarity(class_embeddings: tf.Tensor, seen: tf.Tensor, neighbors: int) -> tf.Tensor:
    """Some rows at a time: the cosines of 30,000 classes and 7,000 seen ones are 840 MB."""
    count = min(neighbors, seen.shape[0])
    if not count:
        return tf.zeros(tf.shape(class_embeddings)[:1])

    def of_block(start: tf.Tensor) -> tf.Tensor:
        cosines = tf.matmul(classes[start : start + _ROWS_AT_A_TIME], seen, transpose_b=True)
        return tf.reduce_mean(tf.math.top_k(cosines, count, sorted=False).values, axis=1)

    classes = tf.math.divide_no_nan(
        class_embeddings, tf.norm(class_embeddings, axis=1, keepdims=True)
    )
    padding = -tf.shape(classes)[0] % _ROWS_AT_A_TIME
    classes = tf.pad(classes, [[0, padding], [0, 0]])
    starts = tf.range(0, tf.shape(classes)[0], _ROWS_AT_A_TIME)
    blocks = tf.map_fn(of_block, starts, fn_output_signature=tf.float32, parallel_iterations=1)
    return tf.reshape(blocks, [-1])[: tf.shape(class_embeddings)[0]]


def _read_off(rule: NewClassRule, similarity: tf.Tensor) -> tf.Tensor:
    knots, places = tf.constant(rule.knots), tf.constant(rule.similarity)
    values = tf.clip_by_value(similarity, places[0], places[-1])
    right = tf.clip_by_value(tf.searchsorted(places, values, side="right"), 1, len(rule.knots) - 1)
    low, high = tf.gather(places, right - 1), tf.gather(places, right)
    share = ((values - low) / (high - low))[:, None]
    left_knots = tf.gather(knots, right - 1)
    return left_knots + share * (tf.gather(knots, right) - left_knots)
