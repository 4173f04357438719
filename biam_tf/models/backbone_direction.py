"""What a pretrained backbone recognizes in a region or photo, in the space of class embeddings.

With the logits z of a region over the K classes that a pretrained backbone knows, and the
embeddings e_k of their names with the mean μ::

    p_k = softmax_k(z / temperature), 0 except for the `kept_classes` most probable
    m = Σ_k p_k (e_k - μ) / |Σ_k p_k (e_k - μ)|

The mixture is that of CONSE (Norouzi et al., ICLR 2014). Nothing of it is trained here.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from biam_tf.backbones.classifier import BackboneClasses, DenseLayer
from biam_tf.layers import EmbeddingMixture


class Recognized(NamedTuple):
    """What a backbone's classifier makes of features.

    Attributes:
        hidden: (..., units), the input of its last layer.
        direction: (..., d_a), m, unit vectors.
    """

    hidden: keras.KerasTensor
    direction: keras.KerasTensor


def recognize(
    features: keras.KerasTensor,
    dense: tuple[DenseLayer, ...],
    classes: BackboneClasses,
    kept_classes: int,
    temperature: float,
    center: bool = True,
    dtype: str | None = None,
) -> Recognized:
    """Applies a backbone's classifier to features (..., channels) and mixes its classes' names.

    Args:
        features: of regions or of photos, as the classifier takes them.
        dense: the layers of the classifier.
        classes: the classes of the backbone.
        kept_classes: number of the most probable classes that are mixed.
        temperature: of the softmax.
        center: whether μ is subtracted. Defaults to `True`.
        dtype: of the computation. Defaults to `None`: that of the dtype policy.

    Raises:
        ValueError: the classifier takes other features.
    """
    hidden, logits = _apply(features, dense, dtype)
    embeddings = np.asarray(classes.embeddings, np.float32)
    if center:
        embeddings = embeddings - embeddings.mean(axis=0)
    mixture = EmbeddingMixture(
        embeddings,
        min(kept_classes, len(embeddings)),
        temperature,
        dtype=dtype,
        trainable=False,
        name="mixture",
    )
    return Recognized(hidden, mixture(logits))


def _apply(
    features: keras.KerasTensor, dense: tuple[DenseLayer, ...], dtype: str | None
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns the input of the last layer, and its output, the logits."""
    hidden = features
    for number, arrays in enumerate(dense):
        hidden = features
        inputs, units = arrays.kernel.shape
        if features.shape[-1] != inputs:
            raise ValueError(
                f"the backbone's classifier takes features of length {inputs}; got "
                f"{features.shape[-1]}"
            )
        name = f"backbone_classifier_{number}"
        layer = layers.Dense(units, trainable=False, dtype=dtype, name=name)
        features = layer(features)
        layer.set_weights([arrays.kernel, arrays.bias])
        if arrays.relu6:
            relu6 = layers.ReLU(max_value=6.0, dtype=dtype, name=f"backbone_relu6_{number}")
            features = relu6(features)
        if arrays.activation is not None:
            name = f"backbone_activation_{number}"
            features = layers.Activation(arrays.activation, dtype=dtype, name=name)(features)
    return hidden, features
