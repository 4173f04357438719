"""Identifies processes, to distinguish what a killed process left behind from running work.

A number alone is not enough, as the system gives the numbers of ended processes to new ones.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import socket


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """A process on some machine.

    Attributes:
        number: the process number.
        started: when it started, in ticks since the machine did; 0 where that is not known.
        host: name of the machine.
    """

    number: int
    started: int
    host: str

    @property
    def is_of_this_host(self) -> bool:
        """Whether the process is, or was, on this machine."""
        return self.host in (socket.gethostname(), _digest_of_host())

    @property
    def is_running(self) -> bool:
        """Whether the process, which must be of this machine, still runs."""
        if self.number == os.getpid():
            return self.started == _start_of(self.number)
        try:
            os.kill(self.number, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            pass  # it is another user's
        return self.started == _start_of(self.number)

    def in_a_name(self) -> str:
        """Returns a text for names of files, from which `of_name` reads the identity."""
        return f"{_digest_of_host()}-{self.number}-{self.started}"

    @classmethod
    def of_name(cls, text: str) -> "ProcessIdentity | None":
        """Reads the identity from a name that contains `in_a_name`; None if it does not."""
        found = re.search(r"\.([0-9a-f]{8})-(\d{1,10})-(\d{1,20})-", text)
        return cls(int(found[2]), int(found[3]), found[1]) if found else None


def this_process() -> ProcessIdentity:
    """Returns the identity of this process."""
    return ProcessIdentity(os.getpid(), _start_of(os.getpid()), socket.gethostname())


@functools.cache
def _digest_of_host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _start_of(process: int) -> int:
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        # The name of the program, in parentheses, may contain spaces and parentheses.
        return int(fields.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
