"""The classifier of a preset of KerasHub that was saved as an image classifier."""

import pathlib

import keras
import numpy as np

from biam_tf.backbones.classifier import BackboneClassifier, DenseLayer, imagenet_names_for
from biam_tf.errors import UserError

TASK, TASK_WEIGHTS = "task.json", "task.weights.h5"
# Layers that change nothing in inference.
_NEUTRAL = (keras.layers.Dropout, keras.layers.Flatten)
_POOLING = ("GlobalAveragePooling2D", "GetItem", "Mean")
_PROBES = 2
# Largest difference of logits, relative to the largest logit: rounding.
_TOLERANCE = 1e-3


def read_classifier(folder: pathlib.Path, backbone: keras.Model, name: str) -> BackboneClassifier:
    """Returns the classifier of a preset, whose classes must be those of ImageNet.

    KerasHub's order of these classes is that of other published classifiers. Dense layers (and 1x1
    convolutions) that follow the pooled feature are taken. That they give the logits of KerasHub's
    own model from this project's scene feature is tried with pictures of noise. They can be applied
    to regions if there is one layer, and the scene feature is the mean of the regions.

    Args:
        folder: the preset.
        backbone: the backbone with the preset's weights, at the size of its pictures.
        name: of the backbone; begins errors.

    Raises:
        UserError: the preset has no classifier, one of other classes, or one of another kind.
    """
    where = f"backbone {name}"
    task = _load_task(folder, where)
    layers, softmax = _dense_layers(task, where)
    names = imagenet_names_for(len(layers[-1].bias), where)
    pictures = np.random.default_rng(0).uniform(0, 255, (_PROBES, *backbone.input_shape[1:]))
    pictures = pictures.astype("float32")
    outputs = {key: np.asarray(value) for key, value in backbone(pictures, training=False).items()}
    scene, regions = outputs["scene_feature"], outputs["region_features"]
    if scene.shape[1] != layers[0].kernel.shape[0] or not _gives_its_logits(
        task, layers, softmax, _preprocessed(backbone, pictures), scene
    ):
        raise UserError(
            f"{where}: its classifier does not take the scene feature (the pooled output of the "
            "network, else its class token, else the mean of the regions); use another preset"
        )
    means = regions.mean(axis=(1, 2))
    is_mean = means.shape == scene.shape and np.allclose(means, scene, rtol=1e-4, atol=1e-5)
    return BackboneClassifier(names, layers, layers if is_mean and len(layers) == 1 else None)


def _load_task(folder: pathlib.Path, where: str) -> keras.Model:
    import keras_hub

    missing = [file for file in (TASK, TASK_WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"{where}: {folder} has no {' and no '.join(missing)}, so it comes without a "
            "classifier; write the folder with save_to_preset of an image classifier of KerasHub"
        )
    try:
        # An absolute path is not a name in KerasHub's list, so that nothing is downloaded.
        return keras_hub.models.ImageClassifier.from_preset(str(folder.absolute()))
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"{where}: {folder} is no image classifier ({reason})") from error


def _dense_layers(task: keras.Model, where: str) -> tuple[tuple[DenseLayer, ...], bool]:
    """Returns the layers from the pooled feature to the logits, and whether a softmax follows."""
    place = task.layers.index(task.backbone)
    found: list[DenseLayer] = []
    activations: list[str | None] = []
    for layer in task.layers[place + 1 :]:
        if isinstance(layer, _NEUTRAL) or (type(layer).__name__ in _POOLING and not found):
            continue
        is_pointwise = isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)
        if not (is_pointwise or isinstance(layer, keras.layers.Dense)):
            raise UserError(
                f"{where}: its classifier has a layer {type(layer).__name__}, which cannot be "
                "taken; those of dense layers behind the pooled feature can"
            )
        kernel = np.asarray(layer.kernel, np.float32)
        kernel = kernel.reshape(-1, kernel.shape[-1])
        bias = np.zeros(kernel.shape[1], np.float32)
        if layer.use_bias:
            bias = np.asarray(layer.bias, np.float32)
        found.append(DenseLayer(kernel, bias))
        activation = keras.activations.serialize(layer.activation)
        activations.append(None if activation == "linear" else str(activation))
    if not found or activations[-1] not in (None, "softmax"):
        raise UserError(f"{where}: its classifier does not end with a dense layer of logits")
    layers = [
        DenseLayer(layer.kernel, layer.bias, activation=activation)
        for layer, activation in zip(found[:-1], activations, strict=False)
    ]
    return (*layers, found[-1]), activations[-1] == "softmax"


def _preprocessed(backbone: keras.Model, pictures: np.ndarray) -> np.ndarray:
    """Returns pictures as KerasHub's network takes them."""
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Rescaling):
            return np.asarray(layer(pictures))
    return pictures


def _gives_its_logits(
    task: keras.Model,
    layers: tuple[DenseLayer, ...],
    softmax: bool,
    pictures: np.ndarray,
    scene: np.ndarray,
) -> bool:
    x = scene
    for layer in layers:
        x = x @ layer.kernel + layer.bias
        if layer.activation is not None:
            x = np.asarray(keras.activations.get(layer.activation)(keras.ops.convert_to_tensor(x)))
    expected = np.asarray(task(pictures, training=False))
    if softmax:
        expected = np.log(np.maximum(expected, np.finfo(np.float32).tiny))
        x, expected = (values - values.max(axis=1, keepdims=True) for values in (x, expected))
    return bool(np.abs(x - expected).max() <= _TOLERANCE * max(1.0, np.abs(expected).max()))
