"""The description of a backbone in the registry."""

import dataclasses
import pathlib
from collections.abc import Callable

import keras

from biam_tf.backbones.classifier import BackboneClassifier

# What the region features of a model of images and texts are: in the space of its text embeddings,
# or the last tokens of its image encoder.
JOINT, TOKENS = "joint", "tokens"


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """A backbone as data.

    Attributes:
        name: its name in configurations.
        description: one line for lists of backbones.
        build: function of a picture size to the model, with random weights.
        default_image_size: default side of the square pictures; `None`: there is no default.
        image_size_step: other sizes must be multiples of this one.
        fixed_image_size: the reason why no other size is possible. Defaults to `""`: others are.
        load_imagenet: loads the ImageNet weights into a model of `build`. Defaults to `None`:
            there are none.
        load_preset: loads the weights that belong to the backbone's name into a model of `build`.
            Defaults to `None`: the name does not stand for weights.
        check_trainable: raises a `UserError` for a picture size at which the backbone cannot be
            trained. Defaults to `None`: there is no such size.
        load_file: loads one of `published_files`; files of Keras are read without it. Defaults to
            `None`.
        load_classifier: function of one of `published_files`, or `None` for the ImageNet weights or
            those of the preset, to the classifier that was trained with them. Defaults to `None`:
            there is none.
        published_files: suffixes of the files in which its pretrained weights are published.
            Defaults to `()`.
        regions: `"joint"` for features in the space of text embeddings. Defaults to `"tokens"`.
    """

    name: str
    description: str
    build: Callable[[int], keras.Model]
    default_image_size: int | None
    image_size_step: int
    fixed_image_size: str = ""
    load_imagenet: Callable[[keras.Model], None] | None = None
    load_preset: Callable[[keras.Model], None] | None = None
    check_trainable: Callable[[int], None] | None = None
    load_file: Callable[[keras.Model, pathlib.Path], None] | None = None
    load_classifier: Callable[[pathlib.Path | None], BackboneClassifier] | None = None
    published_files: tuple[str, ...] = ()
    regions: str = TOKENS
