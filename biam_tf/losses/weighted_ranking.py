"""The weighted approximate ranking loss, which cares most for the top of the ranking."""

import tensorflow as tf

from biam_tf.losses.ranking import hinges_of_pairs, loss_dtype


def weighted_ranking_loss(labels, scores, margin: float = 1.0) -> tf.Tensor:
    """Hinges of the (positive, negative) pairs, weighted by the positive's rank.

    For a positive p that k negatives violate::

        loss_p = β_k / k · Σ_n max(s_n - s_p + margin, 0),   β_k = 1 + 1/2 + … + 1/k

    averaged over the image's positives: the ranking objective of WSABIE and WARP (Weston et al.,
    IJCAI 2011; Gong et al., 2013) in the form of Akata et al., "Label-embedding for image
    classification" (PAMI 2016). They sample negatives until one violates, which
    estimates k; here k is counted, exactly, in O(B·C·log C). It is a constant for the gradient.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (in no pair).
        scores: (B, C), floating point; computed in float64.
        margin: by how much a positive must outrank a negative.

    Returns:
        (B,) losses, float64 for float64 scores, else float32; 0 for an image without positives
        or without negatives.

    Raises:
        ValueError: if labels and scores aren't both (B, C).
    """

    def weigh(violating):
        ranks = tf.range(1, tf.shape(violating)[1] + 1, dtype=tf.float64)
        harmonic = tf.concat([[0.0], tf.cumsum(1 / ranks)], axis=0)
        return tf.math.divide_no_nan(tf.gather(harmonic, tf.cast(violating, tf.int32)), violating)

    losses, _ = hinges_of_pairs(labels, scores, margin, weigh)
    positives = tf.reduce_sum(tf.cast(tf.convert_to_tensor(labels) > 0, tf.float64), axis=1)
    return tf.cast(tf.math.divide_no_nan(losses, positives), loss_dtype(scores))
