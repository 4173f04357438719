"""Cross-entropy losses: present classes against the others, and photos that show a class.

Against a hinge over pairs, a softmax has its gradient where the hardest entries are, and with
scores of bounded size (a cosine times a scale) it stops to push what is told apart already.
"""

import tensorflow as tf


def softmax_over_classes(labels, scores) -> tf.Tensor:
    """Cross-entropy of each image's classes against its present ones, all alike.

    For an image with present classes P and absent ones N::

        loss = -1/|P| Σ_{p∈P} log( exp s_p / Σ_{c∈P,N} exp s_c )

    the softmax loss for several labels of Gong et al., "Deep convolutional ranking for
    multilabel image annotation" (2013); classes of unknown presence take no part.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown.
        scores: (B, C), floating point; computed in at least float32.

    Returns:
        (B,) losses; 0 for an image without a present class.
    """
    labels, scores = _in_full_precision(labels, scores)
    present = tf.cast(labels > 0, scores.dtype)
    log_likelihoods = _log_softmax(scores, labels != 0, axis=1)
    return -tf.math.divide_no_nan(
        tf.reduce_sum(present * log_likelihoods, axis=1), tf.reduce_sum(present, axis=1)
    )


def softmax_over_images(labels, scores) -> tf.Tensor:
    """Cross-entropy of the batch's images, for each class, against those that show it.

    For a present class p of image i, with the images J of the batch in which p is present or
    absent::

        loss_i = -1/|P_i| Σ_{p∈P_i} log( exp s_ip / Σ_{j∈J} exp s_jp )

    Average precision ranks the images of a class, which a loss within each image never
    compares. Under `tf.distribute` the images are those of one replica.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown.
        scores: (B, C), floating point; computed in at least float32.

    Returns:
        (B,) losses; 0 for an image without a present class.
    """
    labels, scores = _in_full_precision(labels, scores)
    present = tf.cast(labels > 0, scores.dtype)
    shares = tf.math.divide_no_nan(present, tf.reduce_sum(present, axis=1, keepdims=True))
    return -tf.reduce_sum(shares * _log_softmax(scores, labels != 0, axis=0), axis=1)


def _in_full_precision(labels, scores) -> tuple[tf.Tensor, tf.Tensor]:
    labels, scores = tf.convert_to_tensor(labels), tf.convert_to_tensor(scores)
    dtype = tf.float64 if scores.dtype == tf.float64 else tf.float32
    return labels, tf.cast(scores, dtype)


def _log_softmax(scores, known, axis: int) -> tf.Tensor:
    """log-softmax over the known entries; unknown ones get a finite number without meaning."""
    taking_part = tf.where(known, scores, tf.constant(scores.dtype.min / 2, scores.dtype))
    return tf.nn.log_softmax(taking_part, axis=axis)
