"""Reads the arrays, lists, dictionaries and strings of a pickle without running code from it.

Word vectors are often published as a pickle of NumPy arrays. For this reader only the parts of an
array exist, and it calls none of NumPy's functions for the pickle: it keeps the descriptions of
arrays and makes the arrays afterwards, each size compared with the bytes in the file.
"""

import collections
import io
import math
import os
import pathlib
import pickle
import re
from typing import Any

import numpy as np

from biam_tf.errors import UserError
from biam_tf.legacy_formats.restricted_pickle import Damaged, check_opcodes

# Numbers and strings an array may hold; "O": a list of what a pickle may hold itself.
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU]\d{1,6}|O[48]?)")
_MOST_DIMENSIONS = 32


def read_pickled_arrays(path: str | os.PathLike) -> Any:
    """Reads a pickle of arrays, lists, tuples, dictionaries, strings and numbers.

    Args:
        path: the file, of any protocol, from Python 2 or 3.

    Returns:
        The pickled value; arrays of Python objects become lists.

    Raises:
        UserError: the file is missing, damaged, or names anything else, such as a function.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        problem = "this is a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {problem}; name the pickled file")
    content = path.read_bytes()
    try:
        file = io.BytesIO(content)
        check_opcodes(file)
        if file.tell() != len(content):
            raise Damaged(f"{len(content) - file.tell()} bytes follow its pickle")
        try:
            return _plain(_ArrayUnpickler(io.BytesIO(content)).load(), {})
        except Damaged:
            raise
        except Exception as error:  # a broken pickle can raise nearly anything
            raise Damaged(f"its pickle is damaged ({error})") from None
    except Damaged as error:
        raise UserError(f"{path}: {error}") from None


class _DType:
    """The dtype of an array, as the pickle declares it."""

    def __init__(self, code: Any, *_: Any):
        code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise Damaged(f"an array of {code!r} holds neither numbers nor strings; refused")
        self.name = code

    def __setstate__(self, state: Any) -> None:
        match state:
            case (int(), str(order) | bytes(order), None, None, None, *_) if (
                _text(order) in "<>|=" and len(order) == 1
            ):
                self.name = _text(order) + self.name.lstrip("<>|=")
            case _:
                raise Damaged("an array of records holds neither numbers nor strings; refused")


class _Array:
    """An array as the pickle declares it; BUILD adds shape, dtype and bytes later."""

    def __init__(self, *_: Any):
        self.state: tuple | None = None

    def __setstate__(self, state: Any) -> None:
        match state:
            case (int(), tuple(shape), _DType() as dtype, fortran, raw) if isinstance(
                raw, (bytes, bytearray, str, list)
            ):
                self.state = shape, dtype, bool(fortran), raw
            case _:
                raise Damaged("the description of an array is damaged")


class _Name:
    """Replaces `numpy.ndarray`, which a pickle passes to `_reconstruct`."""


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order in ("F", b"F"), raw))
    return array


def _scalar(dtype: Any, raw: Any) -> _Array:
    return _from_buffer(raw, dtype, (), "C")


def _encode(text: Any, encoding: Any) -> bytes:
    """Returns bytes, which Python 3 writes into a pickle of protocol 2 as an encoded string."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Damaged(f"the encoding {encoding!r} belongs to no array; refused")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """Returns empty bytes, as a pickle of protocol 0 to 2 makes them."""
    if arguments:
        raise Damaged("bytes made of something else belong to no array; refused")
    return b""


_PARTS = {
    ("_reconstruct", "multiarray"): _Array,
    ("scalar", "multiarray"): _scalar,
    ("_frombuffer", "numeric"): _from_buffer,
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler for which only the parts of an array exist."""

    def __init__(self, file: io.BytesIO):
        # The bytes of an array written by Python 2 become a string, which NumPy encodes so.
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        package, _, part = module.rpartition(".")
        if package in ("numpy.core", "numpy._core") and (name, part) in _PARTS:
            # A new function each time, so that attributes set by the pickle do not last.
            return lambda *arguments, make=_PARTS[name, part]: make(*arguments)
        if (module, name) == ("numpy", "dtype"):
            return lambda *arguments: _DType(*arguments)
        if (module, name) == ("numpy", "ndarray"):
            return _Name
        if (module, name) == ("_codecs", "encode"):
            return lambda *arguments: _encode(*arguments)
        if module in ("builtins", "__builtin__") and name == "bytes":
            return lambda *arguments: _no_bytes(*arguments)
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise Damaged(
            f"contains {module}.{name}, which is not an array, list, dictionary or string; "
            "refused. Unpickle only what you made yourself, and save it as an .npz file"
        )


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Returns `value` with its arrays made; `seen` holds those made before, by identity.

    Each object is made once: a few bytes can refer to one list a billion times.
    """
    if id(value) in seen:
        return seen[id(value)]
    made: Any
    if isinstance(value, _Array):
        made = _make_array(value, seen)
    elif isinstance(value, dict):
        made = {_plain(key, seen): _plain(entry, seen) for key, entry in value.items()}
    elif isinstance(value, (list, tuple)):
        made = type(value)(_plain(entry, seen) for entry in value)
    elif value is None or isinstance(value, (str, bytes, int, float)):
        return value
    else:
        raise Damaged(f"holds a {type(value).__name__}; refused")
    seen[id(value)] = made
    return made


def _make_array(array: _Array, seen: dict[int, Any]) -> np.ndarray | list | str | float:
    if array.state is None:
        raise Damaged("an array without numbers")
    shape, dtype, fortran, raw = array.state
    if len(shape) > _MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise Damaged(f"an array of the impossible shape {shape}")
    count = math.prod(shape)
    if "O" in dtype.name:
        if not isinstance(raw, list) or len(shape) != 1 or len(raw) != count:
            raise Damaged(f"an array of objects of shape {shape} does not fit its contents")
        return [_plain(entry, seen) for entry in raw]
    kind = np.dtype(dtype.name)
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if isinstance(raw, list) or len(raw) != count * kind.itemsize:
        raise Damaged(f"an array of shape {shape} does not fit its {len(raw)} bytes")
    if not kind.itemsize:
        return np.zeros(shape, kind)
    numbers = np.frombuffer(raw, kind).astype(kind.newbyteorder("="))
    whole = numbers.reshape(shape, order="F" if fortran else "C")
    return whole if shape else whole.item()


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value
