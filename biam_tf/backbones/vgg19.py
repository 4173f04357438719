"""VGG19, the backbone of the paper."""

import os
import pathlib

import h5py
import keras
import numpy as np
from keras import layers, ops

from biam_tf.backbones.classifier import BackboneClassifier, DenseLayer, imagenet_names_for
from biam_tf.backbones.spec import BackboneSpec
from biam_tf.errors import UserError

# The file that keras.applications downloads for `VGG19(weights="imagenet")`.
WEIGHTS_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels.h5"
WEIGHTS_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{WEIGHTS_FILE}"
WEIGHTS_MD5 = "cbe5617147190e668d6c5d5026f83318"

# Mean of the ImageNet training pictures. Unlike torchvision's, these weights were trained on BGR
# values 0 to 255 minus this mean, without other scaling.
MEAN_RGB = (123.68, 116.779, 103.939)


def build(image_size: int) -> keras.Model:
    """Builds VGG19 (Simonyan & Zisserman 2015) up to fc2.

    `region_features` are the output of block5_conv4, 14x14x512, `scene_feature` is that of
    fc2, of length 4096, both after ReLU, as in the paper ("Implementation Details").
    """
    # === Functional Model ===
    images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
    bgr = preprocessed(images)
    # The classification layer is removed below; with one class it takes no memory.
    classifier = keras.applications.VGG19(weights=None, input_tensor=bgr, classes=1)
    outputs = {
        "region_features": classifier.get_layer("block5_conv4").output,
        "scene_feature": classifier.get_layer("fc2").output,
    }
    return keras.Model(images, outputs, name=SPEC.name)


def preprocessed(images: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the pictures as in the training of these weights: BGR, minus the mean."""
    offset = [-mean for mean in MEAN_RGB]
    centered = layers.Rescaling(1.0, offset=offset, dtype="float32", name="centering")(images)
    return ops.flip(centered, axis=-1)


def load_imagenet(model: keras.Model) -> None:
    """Loads the ImageNet weights of keras.applications, downloading them once (575 MB).

    Raises:
        UserError: they are not in the cache of Keras and cannot be downloaded.
    """
    load_file(model, published_weights())


def published_weights() -> pathlib.Path:
    """Returns the weights file of keras.applications, downloading it once (575 MB).

    Raises:
        UserError: it is not in the cache of Keras and cannot be downloaded.
    """
    home = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    try:
        path = keras.utils.get_file(
            WEIGHTS_FILE, WEIGHTS_URL, cache_subdir="models", file_hash=WEIGHTS_MD5
        )
    except Exception as error:  # get_file raises bare Exceptions
        raise UserError(
            "backbone vgg19: its ImageNet weights are not on this machine and cannot be "
            f"downloaded ({error}). Download {WEIGHTS_URL} on another machine and copy it to "
            f"{home / 'models' / WEIGHTS_FILE}, or set the backbone's weights to the file, or to "
            "'none' (random). Or use the backbone efficientnet_lite0, whose weights come with a "
            "Python package"
        ) from error
    return pathlib.Path(path)


def load_file(model: keras.Model, path: pathlib.Path) -> None:
    """Loads a weights file of VGG19 of keras.applications, with the dense layers.

    Raises:
        UserError: it is not such a file, or lacks layers, like the "notop" file.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if "model_weights" in file else file
            names = {
                name.decode() if isinstance(name, bytes) else name
                for name in root.attrs["layer_names"]
            }
    except (OSError, KeyError) as error:
        raise UserError(
            f"{path}: not a weights file of keras.applications ({error}); expected {WEIGHTS_FILE}"
        ) from None
    missing = [layer.name for layer in model.layers if layer.weights and layer.name not in names]
    if missing:
        raise UserError(
            f"{path}: the weights of {', '.join(missing)} are missing; the scene feature needs "
            f"the file with the dense layers, {WEIGHTS_FILE}"
        )
    try:
        model.load_weights(path, by_name=True)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(f"{path}: does not fit VGG19 ({error})") from error


def load_classifier(path: pathlib.Path | None = None) -> BackboneClassifier:
    """Returns the classifier of a weights file of VGG19 of keras.applications.

    It takes the scene feature. The dense layers before it belong to one 7x7 grid of regions, the
    whole picture, so that single regions have no logits.

    Args:
        path: the `.h5` file. Defaults to `None`: the published one.

    Raises:
        UserError: the file is not available or has no layer `predictions`.
    """
    path = published_weights() if path is None else path
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if "model_weights" in file else file
            weights = [np.asarray(root["predictions"][n]) for n in _weight_names(root)]
    except (OSError, KeyError) as error:
        raise UserError(
            f"{path}: has no layer 'predictions', the classifier of ImageNet's classes ({error}); "
            f"expected {WEIGHTS_FILE}"
        ) from None
    kernel, bias = sorted(weights, key=lambda array: -array.ndim)
    names = imagenet_names_for(len(bias), str(path))
    return BackboneClassifier(names, (DenseLayer(kernel, bias),))


def _weight_names(root: h5py.Group) -> list[str]:
    """Names of the arrays of the layer `predictions`."""
    names = root["predictions"].attrs["weight_names"]
    return [name.decode() if isinstance(name, bytes) else name for name in names]


SPEC = BackboneSpec(
    name="vgg19",
    description="VGG19 on ImageNet, the paper's backbone: regions 14x14x512, scene feature 4096",
    build=build,
    default_image_size=224,
    image_size_step=224,
    fixed_image_size="the dense layers behind its scene feature take 224x224 pictures only",
    load_imagenet=load_imagenet,
    load_file=load_file,
    load_classifier=load_classifier,
    published_files=(".h5", ".hdf5"),
)
