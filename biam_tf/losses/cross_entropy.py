"""Cross-entropy losses over the classes of an image, over the images of a class, and binary.

Unlike a hinge over pairs, a softmax concentrates its gradient on the hardest entries, and with
bounded scores (a cosine times a scale) the gradient of entries that are already separated vanishes.
"""

import keras
import numpy as np
from keras import ops

from biam_tf.losses.pairwise_ranking import loss_dtype
from biam_tf.tensor_types import Tensor


def softmax_over_classes(labels: Tensor, scores: Tensor) -> Tensor:
    """Cross-entropy of a softmax over each image's classes, with equal weights for present ones.

    For an image with present classes P and absent ones N::

        loss = -1/|P| Σ_{p∈P} log( exp s_p / Σ_{c∈P,N} exp s_c )

    the multi-label softmax loss of Gong et al., "Deep convolutional ranking for multilabel image
    annotation" (2013); classes of unknown presence take no part.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown.
        scores: (B, C), floating point; computed in at least float32.

    Returns:
        (B,) losses; 0 for an image without a present class.
    """
    labels, scores = _in_full_precision(labels, scores)
    present = ops.cast(labels > 0, scores.dtype)
    log_likelihoods = _log_softmax(scores, labels != 0, axis=1)
    return -ops.divide_no_nan(ops.sum(present * log_likelihoods, axis=1), ops.sum(present, axis=1))


def softmax_over_images(labels: Tensor, scores: Tensor) -> Tensor:
    """Cross-entropy of a softmax over the batch's images, for each present class.

    For a present class p of image i, with the images J of the batch in which p is present or
    absent::

        loss_i = -1/|P_i| Σ_{p∈P_i} log( exp s_ip / Σ_{j∈J} exp s_jp )

    Average precision ranks the images of a class, which a loss within each image does not
    compare. The images are those of the arguments: where a batch is divided among devices, their
    scores must be gathered first, as `training.loop.train_step.TrainStep` does.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown.
        scores: (B, C), floating point; computed in at least float32.

    Returns:
        (B,) losses; 0 for an image without a present class.
    """
    labels, scores = _in_full_precision(labels, scores)
    present = ops.cast(labels > 0, scores.dtype)
    shares = ops.divide_no_nan(present, ops.sum(present, axis=1, keepdims=True))
    return -ops.sum(shares * _log_softmax(scores, labels != 0, axis=0), axis=1)


def binary_cross_entropy(labels: Tensor, scores: Tensor) -> Tensor:
    """Mean of the binary cross-entropies of an image's classes.

    With scores s as logits and labels y of +1 and -1, over the labelled classes L::

        loss = 1/|L| Σ_{c∈L} log(1 + exp(-y_c s_c))

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (takes no part).
        scores: (B, C), floating point; computed in at least float32.

    Returns:
        (B,) losses, float64 for float64 scores, else float32; 0 for an image without labels.
    """
    labels, scores = _in_full_precision(labels, scores)
    signs = ops.sign(ops.cast(labels, scores.dtype))
    labelled = ops.cast(labels != 0, scores.dtype)
    entropies = ops.softplus(-signs * scores)
    return ops.divide_no_nan(ops.sum(labelled * entropies, axis=1), ops.sum(labelled, axis=1))


def _in_full_precision(labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    return ops.convert_to_tensor(labels), ops.cast(scores, loss_dtype(scores))


def _log_softmax(scores: Tensor, known: Tensor, axis: int) -> Tensor:
    """log-softmax over the known entries; the value of unknown ones is finite and meaningless."""
    lowest = float(np.finfo(keras.backend.standardize_dtype(scores.dtype)).min) / 2
    masked = ops.where(known, scores, ops.full_like(scores, lowest))
    return ops.log_softmax(masked, axis=axis)
