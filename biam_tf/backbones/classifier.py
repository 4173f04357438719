"""The classes that a pretrained backbone was trained on, and the layers that recognize them."""

import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping, Sequence

import numpy as np

from biam_tf.errors import UserError

IMAGENET_CLASSES = "imagenet_classes.txt"


@dataclasses.dataclass(frozen=True, eq=False)
class DenseLayer:
    """A dense layer as arrays, with the batch normalization behind it, if any, folded in.

    Attributes:
        kernel: (inputs, units) float32.
        bias: (units,) float32.
        relu6: whether min(max(x, 0), 6) follows. Defaults to `False`.
        activation: name of another activation of Keras that follows. Defaults to `None`: none does.
    """

    kernel: np.ndarray
    bias: np.ndarray
    relu6: bool = False
    activation: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class BackboneClassifier:
    """The classifier that belongs to the weights of a backbone.

    Attributes:
        names: K class names, all different.
        scene_layers: layers from the scene feature to the K logits.
        region_layers: layers from the features of one region to its K logits; `None`: the
            classifier cannot be applied to single regions.
    """

    names: tuple[str, ...]
    scene_layers: tuple[DenseLayer, ...]
    region_layers: tuple[DenseLayer, ...] | None = None

    def __post_init__(self) -> None:
        for layers in (self.scene_layers, self.region_layers or self.scene_layers):
            if layers[-1].kernel.shape[1] != len(self.names):
                raise ValueError(
                    f"{len(self.names)} class names, but {layers[-1].kernel.shape[1]} logits"
                )

    def subset(self, rows: Sequence[int]) -> "BackboneClassifier":
        """Returns the classifier of some of the classes, in the order of `rows`."""
        rows = list(rows)

        def of_rows(layers: tuple[DenseLayer, ...]) -> tuple[DenseLayer, ...]:
            last = layers[-1]
            kept = dataclasses.replace(last, kernel=last.kernel[:, rows], bias=last.bias[rows])
            return (*layers[:-1], kept)

        return BackboneClassifier(
            tuple(self.names[row] for row in rows),
            of_rows(self.scene_layers),
            None if self.region_layers is None else of_rows(self.region_layers),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class BackboneClasses:
    """The classes of a backbone in the space of the class embeddings.

    Attributes:
        classifier: features to the logits of K classes.
        embeddings: (K, d_a) float32, of their names.
    """

    classifier: BackboneClassifier
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        names = len(self.classifier.names)
        if np.ndim(self.embeddings) != 2 or len(self.embeddings) != names:
            raise ValueError(
                f"embeddings of {names} backbone classes must be a matrix ({names}, "
                f"embedding_size); got shape {np.shape(self.embeddings)}"
            )


@functools.cache
def imagenet_class_names() -> tuple[str, ...]:
    """Returns the names of ImageNet's 1,000 classes, in the order of published classifiers."""
    file = importlib.resources.files("biam_tf.backbones") / IMAGENET_CLASSES
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def imagenet_names_for(units: int, where: str) -> tuple[str, ...]:
    """Returns the names of ImageNet's classes for a classifier with that many logits.

    Raises:
        UserError: it has other classes; the message begins with `where`.
    """
    names = imagenet_class_names()
    if units != len(names):
        raise UserError(
            f"{where}: its classifier has {units} classes; only those of ImageNet's {len(names)} "
            "classes are known by name"
        )
    return names


def torch_dense_layer(
    state: Mapping[str, np.ndarray], prefix: str, where: str, norm: str | None = None
) -> DenseLayer:
    """Returns a linear layer or a 1x1 convolution of a PyTorch state.

    Args:
        state: arrays by name.
        prefix: name of the layer, e.g. `"fc"` for `fc.weight`.
        where: the file, named in the error.
        norm: name of the batch normalization behind it, with epsilon 1e-3 and ReLU6 after it;
            it is folded in. Defaults to `None`: there is none.

    Raises:
        UserError: an array is missing.
    """

    def array(name: str) -> np.ndarray:
        if name not in state:
            raise UserError(
                f"{where}: has no {name}; these weights come without the classifier of ImageNet's "
                "classes"
            )
        return np.asarray(state[name], np.float64)

    kernel = array(f"{prefix}.weight")
    kernel = kernel.reshape(kernel.shape[:2]).T
    if norm is None:
        return DenseLayer(kernel.astype(np.float32), array(f"{prefix}.bias").astype(np.float32))
    scale = array(f"{norm}.weight") / np.sqrt(array(f"{norm}.running_var") + 1e-3)
    bias = array(f"{norm}.bias") - array(f"{norm}.running_mean") * scale
    return DenseLayer((kernel * scale).astype(np.float32), bias.astype(np.float32), relu6=True)
