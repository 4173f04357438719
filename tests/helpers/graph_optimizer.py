"""TensorFlow optimizes graphs before their first call: a quarter of the time of a short run."""


def optimize_graphs(value: bool) -> None:
    """Whether this process optimizes graphs before their first call from now on, as for users."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not value})
