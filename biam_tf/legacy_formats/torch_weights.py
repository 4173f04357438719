"""Assigns arrays in the layout of PyTorch to Keras layers; errors list what does not fit."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import keras
import numpy as np

from biam_tf.errors import UserError


class _Slot(NamedTuple):
    """A Keras variable, and its axes in the order of PyTorch's layout."""

    variable: keras.Variable
    axes: tuple[int, ...]

    @property
    def torch_shape(self) -> tuple[int, ...]:
        return tuple(self.variable.shape[axis] for axis in self.axes)

    def fits(self, array: np.ndarray) -> bool:
        # A matrix can be stored as a 1x1 convolution.
        as_convolution = (*self.torch_shape, 1, 1) if len(self.axes) == 2 else self.torch_shape
        return array.shape in (self.torch_shape, as_convolution)

    def assign(self, array: np.ndarray) -> None:
        array = array.reshape(self.torch_shape).transpose(np.argsort(self.axes))
        self.variable.assign(array)


def assign_torch_weights(
    layers: Mapping[str, keras.Layer],
    state: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    leave_out: Iterable[str] = (),
) -> None:
    """Assigns a PyTorch state dictionary to built Keras layers: all of it or nothing.

    Args:
        layers: by prefix in the state, e.g. `{"conv1": layer}` for `conv1.weight` and
            `conv1.bias`. Convolutions (depthwise too), dense layers, batch normalization, and
            any layer with a matrix `kernel` and a `bias`.
        state: arrays by name, as `read_torch_state` returns them.
        path: their file, named in errors.
        leave_out: prefixes in the state that are ignored.

    Raises:
        UserError: lists the missing names, the unexpected names, and the arrays whose shape differs
            from the layer's.
    """
    slots = {
        f"{prefix}.{name}": slot
        for prefix, layer in layers.items()
        for name, slot in _slots(layer).items()
    }
    ignored = tuple(f"{prefix}." for prefix in leave_out)
    found = {
        name: array
        for name, array in state.items()
        # Used only by batch normalization with momentum=None.
        if not name.endswith(".num_batches_tracked") and not name.startswith(ignored)
    }
    missing = [name for name in slots if name not in found]
    extra = [name for name in found if name not in slots]
    differing = [
        f"{name} (expected {slot.torch_shape}, found {found[name].shape})"
        for name, slot in slots.items()
        if name in found and not slot.fits(found[name])
    ]
    if missing or extra or differing:
        lists = {"missing": missing, "unexpected": extra, "of another shape": differing}
        raise UserError(
            f"{path}: these weights do not fit this model; "
            + "; ".join(f"{what}: {', '.join(names)}" for what, names in lists.items() if names)
        )
    for name, slot in slots.items():
        slot.assign(found[name])


def _slots(layer: keras.Layer) -> dict[str, _Slot]:
    kind = next((kind for kind in _SLOTS_BY_KIND if isinstance(layer, kind)), None)
    return _SLOTS_BY_KIND[kind](layer) if kind else _kernel_and_bias(layer, (1, 0))


def _kernel_and_bias(layer: keras.Layer, axes: tuple[int, ...]) -> dict[str, _Slot]:
    slots = {"weight": _Slot(layer.kernel, axes)}
    if layer.bias is not None:
        slots["bias"] = _Slot(layer.bias, (0,))
    return slots


def _normalization(layer: keras.layers.BatchNormalization) -> dict[str, _Slot]:
    return {
        "weight": _Slot(layer.gamma, (0,)),
        "bias": _Slot(layer.beta, (0,)),
        "running_mean": _Slot(layer.moving_mean, (0,)),
        "running_var": _Slot(layer.moving_variance, (0,)),
    }


_SLOTS_BY_KIND: Mapping[type, Callable[[keras.Layer], dict[str, _Slot]]] = {
    keras.layers.BatchNormalization: _normalization,
    # (height, width, channels, 1) -> (channels, 1, height, width)
    keras.layers.DepthwiseConv2D: lambda layer: _kernel_and_bias(layer, (2, 3, 0, 1)),
    # (height, width, in, out) -> (out, in, height, width)
    keras.layers.Conv2D: lambda layer: _kernel_and_bias(layer, (3, 2, 0, 1)),
}
