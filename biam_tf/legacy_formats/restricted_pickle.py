"""What every reader of a stranger's pickle here does first: look at it without running it.

Unpickling runs whatever a file says. The readers of this package replace `find_class`, so that
nothing exists for a pickle but the parts it may have; what is in this module guards the rest:
sizes and memo indices that would fill the memory before a single object is built.
"""

import io
import pickletools
from typing import BinaryIO


class Damaged(Exception):
    """The file is not what it claims to be; the message completes `{path}: …`."""


def check_opcodes(file: BinaryIO) -> None:
    """Walks over the pickle at the file's position, building nothing; stops behind it.

    The walk finds declared lengths that pass the end of the file, and memo indices that would
    make the unpickler allocate gigabytes for a file of a few bytes.

    Raises:
        Damaged: the pickle is cut, hostile, or uses what no numbers or texts need.
    """
    writes = 0
    try:
        for opcode, argument, _ in pickletools.genops(_BoundedFile(file)):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                writes += 1
                # Picklers number their memo 0, 1, 2, …; a few gaps come from optimizers.
                if argument is not None and argument > 8 * writes + 256:
                    raise Damaged(f"its pickle is damaged (memo index {argument})")
            elif opcode.name.startswith("EXT") or "BUFFER" in opcode.name:
                raise Damaged(f"its pickle uses {opcode.name}, which no tensor needs; refused")
    except (ValueError, EOFError) as error:
        raise Damaged(f"its pickle is damaged or incomplete ({error})") from None


class _BoundedFile:
    """A file whose `read` never asks for more than is left, whatever length it is given."""

    def __init__(self, file: BinaryIO):
        position = file.tell()
        self.end = file.seek(0, io.SEEK_END)
        file.seek(position)
        self.file, self.tell, self.readline = file, file.tell, file.readline

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, self.end - self.file.tell()))
