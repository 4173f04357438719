"""The arrays of a model that Hugging Face publishes: one safetensors file, or several shards."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from biam_tf.backbones.preset_folder import first_line
from biam_tf.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_OTHER_FORMATS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5")


def read_arrays(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], pathlib.Path]:
    """Reads the arrays of a model, in the floats in which they are stored.

    Args:
        folder: with `model.safetensors`, or `model.safetensors.index.json` and the shards that it
            lists.

    Returns:
        The arrays by name, and the file that errors about them name.

    Raises:
        UserError: there are no such files, or they are damaged or incomplete.
    """
    if (folder / WEIGHTS).is_file():
        return _read(folder / WEIGHTS), folder / WEIGHTS
    index = folder / INDEX
    if not index.is_file():
        others = [name for name in _OTHER_FORMATS if (folder / name).exists()]
        found = f"; {others[0]} is not read" if others else ""
        raise UserError(
            f"{folder} has no {WEIGHTS} and no {INDEX}{found}; download the model's files in the "
            "format safetensors"
        )
    arrays: dict[str, np.ndarray] = {}
    places = _places(index)
    for shard in sorted(set(places.values())):
        if not (folder / shard).is_file():
            raise UserError(f"{index} lists {shard}, which is not there; the download is not whole")
        arrays |= _read(folder / shard)
    missing = sorted(places.keys() - arrays.keys())
    if missing:
        raise UserError(
            f"{index}: {missing[0]!r} is not in {places[missing[0]]}; the files are of different "
            "models"
        )
    return arrays, index


def _places(index: pathlib.Path) -> Mapping[str, str]:
    """Returns the names of the shards by names of arrays."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{index}: cannot be read ({error!r})") from error
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index}: weight_map lists no arrays")
    for shard in places.values():
        # A shard lies beside the index: a path could lead to any file of the machine.
        if not isinstance(shard, str) or pathlib.PurePath(shard).name != shard or "\\" in shard:
            raise UserError(
                f"{index}: the shard {shard!r} is not the name of a file in the same folder"
            )
    return places


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise UserError("safetensors is not installed; pip install 'biam-tf[text]'") from error
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(
                f"{path}: is a pointer of Git LFS, not the weights; run git lfs pull, or download "
                "the file itself"
            )
    try:
        return load_file(path)
    except Exception as error:  # its errors have no public base class
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error


def as_floats(array: np.ndarray) -> np.ndarray:
    """Returns an array in float32.

    Raises:
        ValueError: it is not of real floats, or has numbers that are not finite.
    """
    name: Any = array.dtype.name
    if name not in ("float64", "float32", "float16", "bfloat16"):
        raise ValueError(f"its numbers are {name}, not floats; quantized weights are not converted")
    floats = np.asarray(array, np.float32)
    if not np.isfinite(floats).all():
        raise ValueError("it has numbers that are not finite; the file is damaged")
    return floats
