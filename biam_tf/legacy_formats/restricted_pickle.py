"""The check of a pickle's opcodes that comes before any unpickling: see `biam_tf.legacy_formats`.

It finds the sizes and memo indices that would fill the memory before a single object is built.
"""

import io
import pickletools
from typing import IO, BinaryIO, cast


class Damaged(Exception):
    """The file is damaged or refused; the message completes `{path}: …`."""


def check_opcodes(file: BinaryIO) -> None:
    """Reads the opcodes of the pickle at the file's position, which is then behind it.

    Nothing is built. Declared lengths must lie within the file, and memo indices must be about as
    many as the pickle writes: others make the unpickler allocate gigabytes for a few bytes.

    Raises:
        Damaged: the pickle is incomplete, hostile, or uses opcodes that arrays do not need.
    """
    writes = 0
    try:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], _BoundedFile(file))):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                writes += 1
                # Picklers number their memo 0, 1, 2, …; pickletools.optimize leaves a few gaps.
                if argument is not None and argument > 8 * writes + 256:
                    raise Damaged(f"its pickle is damaged (memo index {argument})")
            elif opcode.name.startswith("EXT") or "BUFFER" in opcode.name:
                raise Damaged(f"its pickle uses {opcode.name}, which no tensor needs; refused")
    except (ValueError, EOFError) as error:
        raise Damaged(f"its pickle is damaged or incomplete ({error})") from None


class _BoundedFile:
    """A file whose `read` never requests more bytes than are left."""

    def __init__(self, file: BinaryIO):
        position = file.tell()
        self.end = file.seek(0, io.SEEK_END)
        file.seek(position)
        self.file, self.tell, self.readline = file, file.tell, file.readline

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, self.end - self.file.tell()))
