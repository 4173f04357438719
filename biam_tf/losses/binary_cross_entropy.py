"""Cross-entropy of each class by itself: present or not."""

import tensorflow as tf


def binary_cross_entropy(labels, scores) -> tf.Tensor:
    """Mean binary cross-entropy of an image's classes, each a question of its own.

    With scores s as logits and labels y of +1 and -1, over the labelled classes L::

        loss = 1/|L| Σ_{c∈L} log(1 + exp(-y_c s_c))

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (takes no part).
        scores: (B, C), floating point; computed in at least float32.

    Returns:
        (B,) losses, float64 for float64 scores, else float32; 0 for an image without labels.
    """
    labels, scores = tf.convert_to_tensor(labels), tf.convert_to_tensor(scores)
    dtype = tf.float64 if scores.dtype == tf.float64 else tf.float32
    signs, labelled = tf.sign(tf.cast(labels, dtype)), tf.cast(labels != 0, dtype)
    entropies = tf.math.softplus(-signs * tf.cast(scores, dtype))
    return tf.math.divide_no_nan(
        tf.reduce_sum(labelled * entropies, axis=1), tf.reduce_sum(labelled, axis=1)
    )
