"""Reads the tensors of a file saved by `torch.save`, without torch and without running code.

`torch_pickle` reads the descriptions of the tensors. Here every size in them is compared with
the bytes in the file; arrays are views of those bytes, so that no file needs more memory than its
own size.

Both containers are read: the zip archive that torch writes since version 1.6, and the older
sequence of pickles followed by raw storages.
"""

import contextlib
import io
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from biam_tf.errors import UserError
from biam_tf.legacy_formats.restricted_pickle import Damaged
from biam_tf.legacy_formats.torch_pickle import DTYPES, Storage, Tensor, unpickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

# Keys of the weights in files that contain other things, too.
STATE_KEYS = ("state_dict", "model", "model_state_dict")


def read_torch_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the state dictionary in a file saved by `torch.save`, without torch.

    `{"state_dict": …}`, `{"model": …}` and `{"model_state_dict": …}` are unwrapped, entries
    that are not tensors (an epoch, an optimizer) are left out, and the prefix `module.` that
    `torch.nn.DataParallel` adds to every name is removed.

    Args:
        path: a `.pth`/`.pt` file, in torch's zip format or in its older one.

    Returns:
        Read-only arrays by parameter name, in the layout of torch (convolutions are
        (out, in, height, width)). bfloat16 becomes float32; other dtypes are kept.

    Raises:
        UserError: the file is missing, is not a checkpoint or is damaged, or its pickle names
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
        self.root = unpickle(io.BytesIO(self._read(pickles[0])))

    def _read(self, name: str) -> bytes:
        try:
            return self.archive.read(name)
        except KeyError:
            raise Damaged(f"the entry {name} is missing") from None
        except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OSError) as error:
            raise Damaged(f"the entry {name} is damaged ({error})") from None

    def read_storage(self, storage: Storage) -> bytes:
        return self._read(f"{self.top}data/{storage.key}")


class _LegacyContainer:
    """Pickles of magic number, protocol, system, state and keys; then counts and numbers."""

    # Little-endian on every machine: torch swaps the bytes when it writes.
    byte_order = "<"

    def __init__(self, file: BinaryIO):
        if unpickle(file) != LEGACY_MAGIC:
            raise Damaged("a pickle, but not one saved by torch.save")
        protocol = unpickle(file)
        if protocol != LEGACY_PROTOCOL:
            raise Damaged(f"unknown torch protocol version {protocol!r}")
        unpickle(file)  # the sizes of C types on the machine that wrote it
        storages: dict[str, Storage] = {}
        self.root = unpickle(file, storages)
        keys = unpickle(file)
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
            if struct.unpack("<q", count)[0] != storage.length:
                raise Damaged(
                    f"storage {key!r} has {struct.unpack('<q', count)[0]} numbers, "
                    f"its tensor declares {storage.length}"
                )
            self.positions[key] = start
            file.seek(start + storage.size)

    def read_storage(self, storage: Storage) -> bytes:
        if storage.key not in self.positions:
            raise Damaged(f"the numbers of storage {storage.key!r} are missing")
        self.file.seek(self.positions[storage.key])
        return self.file.read(storage.size)


def _state_in(root: Any) -> dict[str, Tensor]:
    if isinstance(root, dict):
        root = next((root[key] for key in STATE_KEYS if isinstance(root.get(key), dict)), root)
    if not isinstance(root, dict):
        raise Damaged("holds no state dictionary; save one: torch.save(model.state_dict(), …)")
    state = {k: v for k, v in root.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        names = ", ".join(str(key) for key in list(root)[:10] if isinstance(key, (str, int)))
        raise Damaged(f"holds no tensors; its entries: {names or 'none'}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _arrays(
    state: dict[str, Tensor], container: _ZipContainer | _LegacyContainer
) -> dict[str, np.ndarray]:
    blocks: dict[tuple[Storage, str], np.ndarray] = {}
    arrays = {}
    for name, tensor in state.items():
        block = tensor.storage, tensor.dtype
        if block not in blocks:
            blocks[block] = _numbers(tensor, container)
        arrays[name] = _view(blocks[block], tensor, name)
    return arrays


def _numbers(tensor: Tensor, container: _ZipContainer | _LegacyContainer) -> np.ndarray:
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


def _view(numbers: np.ndarray, tensor: Tensor, name: str) -> np.ndarray:
    """Returns a strided view of a storage's `numbers`; refuses one that reaches outside.

    Python's integers do not overflow, so that no size in the file passes these comparisons by
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
