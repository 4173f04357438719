"""The rivals of BiAM, each from its own paper, behind the interface of `biam_tf.models.system`."""
