"""Loads the pickles of a file saved by `torch.save` as descriptions of tensors, without numbers.

For these pickles nothing exists but the parts of a tensor: see `biam_tf.legacy_formats`.
"""

import collections
import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from biam_tf.legacy_formats.restricted_pickle import Damaged, check_opcodes

# torch's dtype to NumPy's dtype in the file. NumPy has no bfloat16, the upper half of a float32.
DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "?",
}
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",  # counted in bytes
}


# Named tuples, because the opcode BUILD can change a frozen dataclass.
class DType(NamedTuple):
    """A dtype by torch's name, a key of `DTYPES`."""

    name: str


class Storage(NamedTuple):
    """A block of numbers elsewhere in the file, as the pickle declares it: its key and length."""

    key: str
    dtype: str
    length: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.length * np.dtype(DTYPES[self.dtype]).itemsize


class Tensor(NamedTuple):
    """A strided view of a storage as the pickle declares it, which may reach outside.

    Offset and strides count elements of `dtype`.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


def unpickle(file: BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """Loads the pickle at the file's position; the position is then behind it.

    Args:
        file: the file.
        storages: receives every storage that the pickle declares, by key.

    Raises:
        Damaged: the pickle is incomplete or hostile, or names what is not part of a tensor.
    """
    start = file.tell()
    check_opcodes(file)
    end = file.tell()
    file.seek(start)
    try:
        return _TensorUnpickler(io.BytesIO(file.read(end - start)), storages).load()
    except Damaged:
        raise
    except Exception as error:  # a broken pickle can raise nearly anything
        raise Damaged(f"its pickle is damaged ({error})") from None


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler for which only the parts of a tensor exist."""

    def __init__(self, file: BinaryIO, storages: dict[str, Storage] | None):
        super().__init__(file, encoding="utf-8")
        self._storages = {} if storages is None else storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONSTRUCTORS:
            return _CONSTRUCTORS[module, name]()
        if module == "torch" and name in DTYPES:
            return DType(name)
        if module in ("torch", "torch.storage") and name in STORAGES:
            return DType(STORAGES[name])
        raise Damaged(
            f"contains {module}.{name}, which is not a tensor; refused. "
            "Save only the weights: torch.save(model.state_dict(), …)"
        )

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", DType(dtype), str(key), str(), int(count), *view) if (
                count >= 0 and view in ([], [None])
            ):
                storage = Storage(key, dtype, count)
            case _:
                raise Damaged("its pickle refers to something that is not a tensor's storage")
        if self._storages.setdefault(key, storage) != storage:
            raise Damaged(f"storage {key!r} is declared twice, differently")
        return storage


def _rebuild_tensor_v2(
    storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any
) -> Tensor:
    return Tensor(storage, offset, tuple(shape), tuple(strides), storage.dtype)


def _rebuild_tensor_v3(
    storage: Storage, offset: int, shape: tuple, strides: tuple, *rest: Any
) -> Tensor:
    _requires_grad, _hooks, dtype = rest[:3]
    return Tensor(storage, offset, tuple(shape), tuple(strides), dtype.name)


# Each entry makes a new function, so that a pickle that sets attributes of it (the opcode BUILD)
# changes nothing else.
_CONSTRUCTORS: Mapping[tuple[str, str], Callable[[], Callable]] = {
    ("torch._utils", "_rebuild_tensor_v2"): lambda: lambda *a: _rebuild_tensor_v2(*a),
    ("torch._utils", "_rebuild_tensor_v3"): lambda: lambda *a: _rebuild_tensor_v3(*a),
    ("torch._utils", "_rebuild_parameter"): lambda: lambda data, *_: data,
    ("torch", "Size"): lambda: lambda shape: tuple(shape),
    ("collections", "OrderedDict"): lambda: collections.OrderedDict,
}
