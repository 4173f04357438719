"""What the registry knows of a backbone."""

import dataclasses
import pathlib
from collections.abc import Callable

import keras


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """A backbone as data.

    Attributes:
        name: what configurations call it.
        description: one line for lists of backbones.
        build: makes the model with random weights for a picture size.
        default_image_size: side of the pictures it is made for; `None`: any, and none by itself.
        image_size_step: other sizes must be multiples of this one.
        fixed_image_size: why no other size is possible; empty where others are.
        load_imagenet: puts the ImageNet weights into a model of `build`; `None`: there are none.
        load_preset: puts the weights that belong to its name into a model of `build`; `None`: its
            name stands for no certain weights.
        check_trainable: raises a UserError for a picture size at which it can't be trained; `None`:
            it can be at all.
        load_file: reads `published_files`, beside the formats of Keras that all can read.
        published_files: endings of the files in which its pretrained weights are published.
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
    published_files: tuple[str, ...] = ()
