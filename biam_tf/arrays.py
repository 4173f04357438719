"""Files of arrays (`.npz`): the one place that opens them, with a bound on what they unpack to."""

import contextlib
import io
import os
import pathlib
import zipfile
from collections.abc import Iterator
from math import prod
from typing import IO, cast

import numpy as np
from numpy.lib import format as npy

from biam_tf.errors import UserError
from biam_tf.files import size_in_words

# Embeddings hardly shrink, and names to a tenth. A file that unpacks to more than this many bytes
# and to more than this many times its own size was made to fill the memory.
_ALWAYS_ALLOWED, _LARGEST_RATIO = 256 << 20, 32
# `np.load` parses a header as Python literals; those of arrays have a hundred bytes.
_LONGEST_HEADER = 10_000


@contextlib.contextmanager
def open_npz(source: str | os.PathLike | bytes) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens an .npz file whose arrays fit into memory by what their headers say.

    Nothing is unpickled. An array is read when it is asked for.

    Args:
        source: path or contents of the file.

    Raises:
        UserError: the arrays are larger than a file of this size holds, or the file holds a single
            array.
        OSError, ValueError, zipfile.BadZipFile: it is no readable .npz file.
    """
    is_path = not isinstance(source, bytes)
    name = str(source) if is_path else "an .npz file"
    packed = os.path.getsize(cast(str, source)) if is_path else len(cast(bytes, source))
    with open(cast(str, source), "rb") if is_path else io.BytesIO(cast(bytes, source)) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise UserError(f"{name}: a single array, not an .npz file of several")
        file.seek(0)
        arrays = np.load(file, allow_pickle=False)
        with arrays:
            unpacked = _unpacked_bytes(arrays)
            if unpacked > max(_ALWAYS_ALLOWED, _LARGEST_RATIO * packed):
                raise UserError(
                    f"{name}: {size_in_words(packed)} that would unpack to "
                    f"{size_in_words(unpacked)}; such a file was made to fill the memory, and is "
                    "not read. If it is yours, save it with np.savez, without compression"
                )
            yield arrays


def _unpacked_bytes(arrays: np.lib.npyio.NpzFile) -> int:
    """Returns the memory of all arrays by their headers, which decide what is read."""
    assert arrays.zip is not None
    total = 0
    for member in arrays.zip.infolist():
        if not member.filename.endswith(".npy"):
            continue  # returned as it is, if asked for by its whole name
        with arrays.zip.open(member) as file:
            total += _claimed_bytes(file, pathlib.PurePosixPath(member.filename).stem)
    return total


def _claimed_bytes(file: IO[bytes], key: str) -> int:
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    # Version 3 differs from 2 in the encoding of names of fields alone.
    shape, _, dtype = read_header.get(version, npy.read_array_header_2_0)(
        file, max_header_size=_LONGEST_HEADER
    )
    if any(size < 0 for size in shape):
        raise ValueError(f"array {key!r} claims the shape {shape}")
    return prod(shape) * dtype.itemsize
