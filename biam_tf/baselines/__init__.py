"""Systems to compare BiAM with, each from its own paper; see `biam_tf.models.system.System`."""
