"""A request while it is answered, whether it came over gRPC or HTTP."""

import dataclasses
import re
import threading
import time
import uuid
from collections.abc import Mapping

import grpc

from serving.rpc.status import RequestError

REQUEST_ID = "x-request-id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclasses.dataclass
class Call:
    """A request while it is answered.

    Attributes:
        method: the gRPC method, or that of gRPC with the same effect.
        headers: metadata of gRPC or headers of HTTP, by lower-case name.
        deadline: when the client stops waiting, by `time.monotonic`; None for never.
        signature: name of the signature; "unknown" for one that the model lacks.
        photos: number of photos; None for a request without any.
        classes: number of classes; None for a request without any.
        id: the client's `x-request-id` if it is short and plain, else one of our own.
        received: when it was received, by `time.time`.
        started: when its work started; None before.
        ended: when it was answered; None before.
    """

    method: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    deadline: float | None = None
    signature: str = ""
    photos: int | None = None
    classes: int | None = None
    id: str = ""
    received: float = dataclasses.field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None

    def __post_init__(self) -> None:
        self._given_up = threading.Event()
        given = self.headers.get(REQUEST_ID, "")
        self.id = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex[:16]

    @property
    def waited(self) -> float:
        """Seconds from its arrival to the start of its work; to its end if the work never began."""
        until = self.ended if self.started is None else self.started
        return 0.0 if until is None else max(0.0, until - self.received)

    @property
    def worked(self) -> float | None:
        """Seconds from the start of its work to its end; None: the work never began."""
        if self.started is None or self.ended is None:
            return None
        return max(0.0, self.ended - self.started)

    def give_up(self) -> None:
        """Ends the work at its next step."""
        self._given_up.set()

    @property
    def is_late(self) -> bool:
        """Whether the deadline passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def check(self) -> None:
        """Ends the work if nobody waits for it.

        Raises:
            RequestError: DEADLINE_EXCEEDED or CANCELLED.
        """
        if self.is_late:
            raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed")
        if self._given_up.is_set():
            raise RequestError(grpc.StatusCode.CANCELLED, "the client gave up")
