"""What the systems that attend to regions share: the features they attend to, and their scores."""

import keras
from keras import layers, ops

from biam_tf.models.system import require_setting


def require_at_least(settings, least: int, *names: str) -> None:
    """Raises the UserError for a setting below what is possible, beginning with its name."""
    for name in names:
        value = getattr(settings, name)
        require_setting(value >= least, name, value, f"at least {least}")


def require_share(settings, *names: str) -> None:
    """Raises the UserError for a setting outside [0, 1), beginning with its name."""
    for name in names:
        value = getattr(settings, name)
        require_setting(0.0 <= value < 1.0, name, value, "at least 0 and below 1")


def embed_regions(region_features, channels: int, batch_norm_momentum: float):
    """Returns f (batch, height, width, channels): ReLU(BN(conv(x))) by a 2x2 convolution.

    As in the released code of LESA (`_conv` of its model): the grid stays as it is ("same"
    padding), the convolution has no bias since the normalization's follows.

    Args:
        region_features: (batch, height, width, any number of channels).
        channels: of the result; 512 in LESA.
        batch_norm_momentum: share of the old running statistics kept at a step.
    """
    convolution = layers.Conv2D(channels, 2, padding="same", use_bias=False, name="region_conv")
    # Synchronized: under tf.distribute the statistics are those of the global batch, so that
    # several devices train like one.
    norm = layers.BatchNormalization(
        momentum=batch_norm_momentum, synchronized=True, name="region_batch_norm"
    )
    return layers.ReLU(name="region_embedding")(norm(convolution(region_features)))


def attend(attention, responses):
    """Returns the scores (batch, classes), float32, of one attention for each class.

    For attention alpha and responses f_r·w_c, with f_r the feature of region r and w_c = W a_c the
    weights of class c::

        score_c = (Σ_r alpha_cr f_r)·w_c = Σ_r alpha_cr (f_r·w_c)

    The right-hand side needs no pooled feature for every class, (batch, classes, channels). Its
    terms are the response maps.

    Args:
        attention: (batch, height, width, classes), its sum over the regions 1.
        responses: (batch, height, width, classes).
    """
    response_maps = layers.Multiply(name="response_maps")([attention, responses])
    return SumOverRegions(dtype="float32", name="scores")(response_maps)


@keras.saving.register_keras_serializable(package="biam_tf")
class SumOverRegions(layers.Layer):
    """Adds up response maps (batch, height, width, classes) to scores (batch, classes)."""

    def call(self, response_maps):
        """Returns the scores."""
        return ops.sum(response_maps, axis=(1, 2))

    def compute_output_shape(self, input_shape):
        """Returns `(batch, classes)`."""
        return (input_shape[0], input_shape[3])
