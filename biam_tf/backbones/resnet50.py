"""ResNet-50 in the variant whose weights DINO and torchvision publish."""

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


class Stage(NamedTuple):
    """Bottlenecks of equal width; the first of them has the stride."""

    repeats: int
    filters: int
    strides: int


# Table 1 of ResNet (He et al. 2016), 50 layers. Stages count from 1, as in the published weights.
STAGES = (Stage(3, 64, 1), Stage(4, 128, 2), Stage(6, 256, 2), Stage(3, 512, 2))
STEM_FILTERS = 64
EXPANSION = 4

# Mean and standard deviation of the ImageNet training pictures, RGB values 0 to 1, with which the
# published weights were trained.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def build(image_size: int) -> keras.Model:
    """Builds the backbone: at 224x224, regions 14x14x1024; at 448x448, 28x28x1024.

    `region_features` are the output of the third stage, `scene_feature` is the mean over the
    picture of the fourth's 2048 channels, both after ReLU. The third stage has the 14x14 regions of
    the paper ("Implementation Details") for the 224x224 pictures that the weights were trained on;
    the fourth has 7x7, too few for small objects. The paper does not say which one it used for
    its table 8.

    The stride is in the 3x3 convolution, and padding is PyTorch's: equal on all sides, where
    TensorFlow's "same" adds an odd pixel at the right and the bottom.
    """
    # === Functional Model ===
    images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
    x = layers.Rescaling(
        [1 / (255 * deviation) for deviation in DEVIATION],
        offset=[-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)],
        dtype="float32",
        name="rescaling",
    )(images)
    x = _conv(x, STEM_FILTERS, 7, "stem", strides=2)
    # After a ReLU, zeros as padding do not change the maximum.
    x = layers.ZeroPadding2D(1, name="stem_pool_padding")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    outputs = []
    for number, stage in enumerate(STAGES, start=1):
        for block in range(stage.repeats):
            x = _bottleneck(x, stage, stage.strides if block == 0 else 1, f"stage{number}_{block}")
        outputs.append(x)
    region_features = outputs[2]  # (B, S/16, S/16, 1024)
    scene_feature = layers.GlobalAveragePooling2D(name="scene_feature")(outputs[3])
    return keras.Model(
        images,
        {"region_features": region_features, "scene_feature": scene_feature},
        name=SPEC.name,
    )


def _bottleneck(
    inputs: keras.KerasTensor, stage: Stage, strides: int, name: str
) -> keras.KerasTensor:
    width = stage.filters * EXPANSION
    x = _conv(inputs, stage.filters, 1, f"{name}_reduce")
    x = _conv(x, stage.filters, 3, f"{name}_spatial", strides=strides)
    x = _conv(x, width, 1, f"{name}_expand", activation=False)
    if inputs.shape[-1] != width:  # only the first of a stage
        inputs = _conv(inputs, width, 1, f"{name}_shortcut", strides=strides, activation=False)
    x = layers.Add(name=f"{name}_add")([x, inputs])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    name: str,
    strides: int = 1,
    activation: bool = True,
) -> keras.KerasTensor:
    if kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_padding")(x)
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=is_tensorflow(), name=f"{name}_bn"
    )(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def load_file(model: keras.Model, path: pathlib.Path) -> None:
    """Loads a `.pth` file with torchvision's names, which are also those of DINO's file.

    The classification layer, which DINO's file does not have, is ignored. From the checkpoint of a
    larger model, the weights with the prefix `backbone.` are loaded.

    Raises:
        UserError: it is not such a file; the error lists what is missing or does not fit.
    """
    state = read_torch_state(path)
    nested = {
        name.removeprefix("backbone."): array
        for name, array in state.items()
        if name.startswith("backbone.")
    }
    assign_torch_weights(_torch_names(model), nested or state, path, leave_out=["fc"])


def load_classifier(path: pathlib.Path | None = None) -> BackboneClassifier:
    """Returns the classifier of a `.pth` file of torchvision.

    It takes the scene feature. Regions are those of the third stage, and the fourth, which is
    between them and the classifier, has a coarser grid.

    Raises:
        UserError: there is no file, or it has no classifier, like DINO's.
    """
    if path is None:
        raise UserError(
            "backbone resnet50: its classifier comes with weights of torchvision; set the "
            "backbone's weights to that .pth file"
        )
    classifier = torch_dense_layer(read_torch_state(path), "fc", str(path))
    return BackboneClassifier(imagenet_names_for(len(classifier.bias), str(path)), (classifier,))


def _torch_names(model: keras.Model) -> dict[str, keras.Layer]:
    names = {"stem_conv": "conv1", "stem_bn": "bn1"}
    parts = {
        "reduce_conv": "conv1",
        "reduce_bn": "bn1",
        "spatial_conv": "conv2",
        "spatial_bn": "bn2",
        "expand_conv": "conv3",
        "expand_bn": "bn3",
        "shortcut_conv": "downsample.0",
        "shortcut_bn": "downsample.1",
    }
    for number, stage in enumerate(STAGES, start=1):
        for block in range(stage.repeats):
            prefix = f"stage{number}_{block}"
            names |= {
                f"{prefix}_{our}": f"layer{number}.{block}.{its}" for our, its in parts.items()
            }
    return {names[layer.name]: layer for layer in model.layers if layer.weights}


SPEC = BackboneSpec(
    name="resnet50",
    description="ResNet-50, weights of DINO or torchvision from a file: regions 14x14x1024 at "
    "224, scene feature 2048",
    build=build,
    default_image_size=224,
    image_size_step=32,
    load_file=load_file,
    load_classifier=load_classifier,
    published_files=(".pth", ".pt"),
)
