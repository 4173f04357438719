"""Reads the tensors of a file saved by `torch.save`, without torch.

Such a file is a pickle, and unpickling a stranger's file runs whatever it says. This reader
knows the few names that a tensor is made of, and refuses a file that mentions any other. It
trusts no number in the file either: every size is compared with the bytes that are there, and
the arrays are windows on those bytes, so a file can't ask for more memory than its own size.

Both containers are read: the zip archive that torch writes since 1.6, and the sequence of
pickles followed by raw storages that came before.
"""

import collections
import contextlib
import io
import math
import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from biam_tf.errors import UserError
from biam_tf.legacy_formats.restricted_pickle import Damaged, check_opcodes

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

# Where training scripts put the weights when they save more than those.
STATE_KEYS = ("state_dict", "model", "model_state_dict")

# torch's dtype name -> how its numbers lie in the file. NumPy has no bfloat16: it is read as
# the upper half of a float32, which is what it is.
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


# What a pickle builds are named tuples, because its opcode BUILD writes past the guard of a
# frozen dataclass, and nothing may change after it was read.
class _DType(NamedTuple):
    name: str


class _Storage(NamedTuple):
    """A block of numbers elsewhere in the file, as the pickle declares it."""

    key: str
    dtype: str
    count: int

    @property
    def size(self) -> int:
        return self.count * np.dtype(DTYPES[self.dtype]).itemsize


class _Tensor(NamedTuple):
    """A strided window on a storage; offset and strides count elements of `dtype`.

    As the pickle declares it: `_window` checks that it lies inside.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


def read_torch_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the state dictionary in a file saved by `torch.save`, without torch.

    `{"state_dict": …}`, `{"model": …}` and `{"model_state_dict": …}` are unwrapped, entries
    that are no tensors (an epoch, an optimizer) are left out, and the prefix `module.` that
    `torch.nn.DataParallel` puts before every name is removed.

    Args:
        path: a `.pth`/`.pt` file, in torch's zip format or in its older one.

    Returns:
        Read-only arrays by parameter name, in the layout of torch (convolutions are
        (out, in, height, width)). bfloat16 becomes float32, every other dtype is kept.

    Raises:
        UserError: the file is missing, is not a checkpoint, is damaged, or its pickle names
            anything that is not part of a tensor.
    """
    path = pathlib.Path(path)
    with _open(path) as file:
        try:
            container = _container_of(file)
            return _arrays(_state_in(container.root), container)
        except Damaged as error:
            raise UserError(f"{path}: {error}") from None


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[BinaryIO]:
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name the .pth file in it")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        yield file


def _container_of(file: BinaryIO) -> "_ZipContainer | _LegacyContainer":
    start = file.read(64)
    file.seek(0)
    if not start:
        raise Damaged("the file is empty")
    if start.startswith(b"PK\x03\x04"):
        return _ZipContainer(file)
    if start.startswith(b"\x80"):
        return _LegacyContainer(file)
    raise Damaged(
        f"not a checkpoint saved by torch.save: it starts with {start[:24]!r}"
        + (" and looks like text; was a web page saved in its place?" if _is_text(start) else "")
    )


def _is_text(start: bytes) -> bool:
    return all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start)


# === Containers ===


class _ZipContainer:
    """`TOP/data.pkl` and one uncompressed entry `TOP/data/KEY` per storage."""

    def __init__(self, file: BinaryIO):
        try:
            self.archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise Damaged(
                f"the zip archive is incomplete or damaged ({error}); download or copy it again"
            ) from None
        entries = self.archive.infolist()
        pickles = [e.filename for e in entries if e.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise Damaged("a zip archive, but not one saved by torch.save: it has no data.pkl")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED:
                raise Damaged(f"{entry.filename} is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise Damaged("its entries declare more bytes than the file has")
        self.top = pickles[0].removesuffix("data.pkl")
        names = self.archive.NameToInfo
        order = self._read(f"{self.top}byteorder") if f"{self.top}byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise Damaged(f"unknown byte order {order!r}")
        self.byte_order = "<" if order == b"little" else ">"
        self.root = _unpickle(io.BytesIO(self._read(pickles[0])))

    def _read(self, name: str) -> bytes:
        try:
            return self.archive.read(name)
        except KeyError:
            raise Damaged(f"the entry {name} is missing") from None
        except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OSError) as error:
            raise Damaged(f"the entry {name} is damaged ({error})") from None

    def read_storage(self, storage: _Storage) -> bytes:
        return self._read(f"{self.top}data/{storage.key}")


class _LegacyContainer:
    """Pickles of magic number, protocol, system, state and keys; then counts and numbers."""

    # Numbers lie little-endian here on every machine: torch swaps them while writing.
    byte_order = "<"

    def __init__(self, file: BinaryIO):
        if _unpickle(file) != LEGACY_MAGIC:
            raise Damaged("a pickle, but not one saved by torch.save")
        protocol = _unpickle(file)
        if protocol != LEGACY_PROTOCOL:
            raise Damaged(f"unknown torch protocol version {protocol!r}")
        _unpickle(file)  # the sizes of C types on the machine that wrote it
        storages: dict[str, _Storage] = {}
        self.root = _unpickle(file, storages)
        keys = _unpickle(file)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise Damaged("the list of storages is damaged")
        self.file = file
        self.positions: dict[str, int] = {}
        end = os.fstat(file.fileno()).st_size
        for key in keys:
            if key not in storages:
                raise Damaged(f"storage {key!r} belongs to no tensor")
            storage, count = storages[key], file.read(8)
            start = file.tell()
            if len(count) < 8 or start + storage.size > end:
                raise Damaged(
                    f"the file ends before the numbers of storage {key!r} do; "
                    "download or copy it again"
                )
            if struct.unpack("<q", count)[0] != storage.count:
                raise Damaged(
                    f"storage {key!r} has {struct.unpack('<q', count)[0]} numbers, "
                    f"its tensor declares {storage.count}"
                )
            self.positions[key] = start
            file.seek(start + storage.size)

    def read_storage(self, storage: _Storage) -> bytes:
        if storage.key not in self.positions:
            raise Damaged(f"the numbers of storage {storage.key!r} are missing")
        self.file.seek(self.positions[storage.key])
        return self.file.read(storage.size)


# === Pickle ===


def _unpickle(file: BinaryIO, storages: dict[str, _Storage] | None = None) -> Any:
    """Loads the pickle that starts at the file's position, and leaves the file behind it.

    `storages` receives every storage that the pickle declares, by key.
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
    """An unpickler for which nothing exists but the parts of a tensor."""

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage] | None):
        super().__init__(file, encoding="utf-8")
        self._storages = {} if storages is None else storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONSTRUCTORS:
            return _CONSTRUCTORS[module, name]()
        if module == "torch" and name in DTYPES:
            return _DType(name)
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _DType(STORAGES[name])
        raise Damaged(
            f"contains {module}.{name}, which is not a tensor; refused. "
            "Save only the weights: torch.save(model.state_dict(), …)"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _DType(dtype), str(key), str(), int(count), *view) if (
                count >= 0 and view in ([], [None])
            ):
                storage = _Storage(key, dtype, count)
            case _:
                raise Damaged("its pickle refers to something that is not a tensor's storage")
        if self._storages.setdefault(key, storage) != storage:
            raise Damaged(f"storage {key!r} is declared twice, differently")
        return storage


def _rebuild_tensor_v2(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides), storage.dtype)


def _rebuild_tensor_v3(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, *rest: Any
) -> _Tensor:
    _requires_grad, _hooks, dtype = rest[:3]
    return _Tensor(storage, offset, tuple(shape), tuple(strides), dtype.name)


# Each entry makes a new function, so that a pickle which writes attributes onto what it was
# given (the opcode BUILD) changes nothing outside of its own reading.
_CONSTRUCTORS: Mapping[tuple[str, str], Callable[[], Callable]] = {
    ("torch._utils", "_rebuild_tensor_v2"): lambda: lambda *a: _rebuild_tensor_v2(*a),
    ("torch._utils", "_rebuild_tensor_v3"): lambda: lambda *a: _rebuild_tensor_v3(*a),
    ("torch._utils", "_rebuild_parameter"): lambda: lambda data, *_: data,
    ("torch", "Size"): lambda: lambda shape: tuple(shape),
    ("collections", "OrderedDict"): lambda: collections.OrderedDict,
}


# === State ===


def _state_in(root: Any) -> dict[str, _Tensor]:
    if isinstance(root, dict):
        root = next((root[key] for key in STATE_KEYS if isinstance(root.get(key), dict)), root)
    if not isinstance(root, dict):
        raise Damaged("holds no state dictionary; save one: torch.save(model.state_dict(), …)")
    state = {k: v for k, v in root.items() if isinstance(k, str) and isinstance(v, _Tensor)}
    if not state:
        names = ", ".join(str(key) for key in list(root)[:10] if isinstance(key, (str, int)))
        raise Damaged(f"holds no tensors; its entries: {names or 'none'}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _arrays(
    state: dict[str, _Tensor], container: _ZipContainer | _LegacyContainer
) -> dict[str, np.ndarray]:
    blocks: dict[tuple[_Storage, str], np.ndarray] = {}
    arrays = {}
    for name, tensor in state.items():
        block = tensor.storage, tensor.dtype
        if block not in blocks:
            blocks[block] = _numbers(tensor, container)
        arrays[name] = _window(blocks[block], tensor, name)
    return arrays


def _numbers(tensor: _Tensor, container: _ZipContainer | _LegacyContainer) -> np.ndarray:
    content = container.read_storage(tensor.storage)
    if len(content) != tensor.storage.size:
        raise Damaged(
            f"storage {tensor.storage.key!r} has {len(content)} bytes, "
            f"its tensor declares {tensor.storage.size}"
        )
    stored = np.dtype(container.byte_order + DTYPES[tensor.dtype])
    numbers = np.frombuffer(content, stored, count=len(content) // stored.itemsize)
    if tensor.dtype == "bfloat16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(stored.newbyteorder("="), copy=False)


def _window(numbers: np.ndarray, tensor: _Tensor, name: str) -> np.ndarray:
    """Returns the tensor's window on its storage `numbers`, or refuses one that leaves it.

    Python's integers don't overflow, so no size in the file can pass these comparisons by
    wrapping around.
    """
    _, offset, shape, strides, _ = tensor
    if len(shape) != len(strides) or any(
        type(number) is not int or number < 0 for number in (offset, *shape, *strides)
    ):
        raise Damaged(f"{name}: impossible shape {shape}, strides {strides}, offset {offset}")
    size = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # More elements than numbers (an expanded tensor) is legal in torch, but no parameter is
    # one, and it would let a file of a few bytes fill the memory of whoever copies it.
    if len(shape) > 32 or size > numbers.size or (size and last >= numbers.size):
        raise Damaged(f"{name}: shape {shape} reaches beyond its {numbers.size} stored numbers")
    if size == 0:
        return np.empty(shape, numbers.dtype)
    return np.lib.stride_tricks.as_strided(
        numbers[offset:], shape, [stride * numbers.itemsize for stride in strides], writeable=False
    )
