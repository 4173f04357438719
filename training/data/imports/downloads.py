"""Downloads photos whose addresses stand in somebody's list: with limits, from public addresses.

A list can name `http://127.0.0.1:8080/…` or the address of a machine in the company's network, or
a public server that redirects there or whose name points there, to reach what only this machine
can. So each connection, also that of a redirect, goes to an address that was looked at: the name is
resolved once, and the connection is made to the resolved address.
"""

import contextlib
import dataclasses
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from biam_tf.errors import UserError
from biam_tf.files import size_in_words
from biam_tf.network import is_public
from biam_tf.photos import photo_problem

if TYPE_CHECKING:
    import urllib3

CONNECTIONS = 16
ATTEMPTS = 4
MAX_REDIRECTS = 5
TIMEOUT_SECONDS = 30.0  # without a sign of the server
MAX_PAUSE_SECONDS = 60  # also if a server requests a longer one
RETRIED_STATUSES = (429, 500, 502, 503, 504)
DEFAULT_MAX_MB, DEFAULT_MAX_SECONDS = 200.0, 300.0
_CHUNK = 1 << 16


class _Refused(ValueError):
    """A download that is not tried again."""


class _Download:
    """A download: the host that the list names, the time of its end, its socket."""

    def __init__(self, url: str = "", max_seconds: float = 0.0) -> None:
        self.host = (urllib.parse.urlsplit(url).hostname or "").rstrip(".").lower()
        self.end = time.monotonic() + max_seconds
        self.socket: socket.socket | None = None

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.end

    def close(self) -> None:
        """Ends what the connection waits for; called by another thread."""
        with contextlib.suppress(OSError):  # closed already
            if self.socket is not None:
                self.socket.shutdown(socket.SHUT_RDWR)


@dataclasses.dataclass(frozen=True)
class Downloader:
    """A function from a URL to the contents of a photo, whose downloads can be ended."""

    _download: Callable[[str], bytes]
    _under_way: set[_Download]

    def __call__(self, url: str) -> bytes:
        """Returns the contents of the photo at `url`; raises a `ValueError` with the reason."""
        return self._download(url)

    def stop(self) -> None:
        """Ends the downloads that are under way, which fail; called by another thread."""
        for download in tuple(self._under_way):
            download.end = 0.0
            download.close()


class _OfThread(threading.local):
    """The download of each thread."""

    download = _Download()


def url_problem(url: str) -> str | None:
    """Returns what is wrong with the syntax of a URL, or None."""
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018  reading the property checks it
    except ValueError as error:
        return f"malformed URL {url!r}: {error}"
    return None if parts.hostname else f"malformed URL {url!r}: it has no host name"


def downloader(
    anywhere: bool = False,
    max_mb: float = DEFAULT_MAX_MB,
    max_seconds: float = DEFAULT_MAX_SECONDS,
) -> "Downloader":
    """Returns a function from a URL to the contents of a photo, for any number of threads.

    A download is attempted up to four times if the server does not respond, is busy or closes the
    connection early, with growing pauses or those that the server requests, up to a minute. The
    function raises a `ValueError` with the reason for a download that fails.

    Args:
        anywhere: whether a URL may name a host of this machine or of a private network. Redirects
            to another such host are refused in any case.
        max_mb: largest photo, in MB of 1,048,576 bytes.
        max_seconds: longest time of a download, with all attempts.

    Raises:
        UserError: urllib3 is not installed.
    """
    try:
        import urllib3
    except ImportError:
        raise UserError(
            "downloading photos needs urllib3; run pip install 'biam-tf[import]'"
        ) from None

    max_bytes, current = int(max_mb * 2**20), _OfThread()
    late = f"took longer than {max_seconds:g} seconds"
    pool, retry_policy = _pool(current, anywhere, late)

    def attempt(url: str) -> tuple[bytes, str]:
        """Returns the content of the response, and its Content-Type."""
        retries: urllib3.Retry = retry_policy
        while True:
            response = pool.request("GET", url, preload_content=False, retries=retries)
            with response:
                if response.status != 200:
                    raise ValueError(f"the server responded with status {response.status}")
                try:
                    content = _content(response, max_bytes)
                    return content, response.headers.get("Content-Type", "no Content-Type")
                except urllib3.exceptions.HTTPError as error:
                    # The pool itself retries only until it has the headers.
                    retries = (response.retries or retries).increment("GET", url, error=error)
            if current.download.is_late:
                raise ValueError(late)
            retries.sleep()

    under_way: set[_Download] = set()

    def read(url: str) -> tuple[bytes, str]:
        current.download = _Download(url, max_seconds)
        under_way.add(current.download)
        # A server that sends a byte now and then is stopped by closing its connection.
        watch = threading.Timer(max_seconds, current.download.close)
        watch.daemon = True
        watch.start()
        try:
            found = attempt(url)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error  # of the last attempt, without the URL
            problem = late if current.download.is_late else f"download failed: {reason}"
            raise ValueError(problem) from None
        finally:
            watch.cancel()
            under_way.discard(current.download)
        if current.download.is_late:  # what was closed may look as if it had ended
            raise ValueError(late)
        return found

    def download(url: str) -> bytes:
        content, kind = read(url)
        if not content:
            raise ValueError("the server sent an empty response")
        problem = photo_problem(content)
        if problem:
            raise ValueError(f"invalid download ({kind}): {problem}")
        return content

    return Downloader(download, under_way)


def _content(response: "urllib3.BaseHTTPResponse", max_bytes: int) -> bytes:
    """Returns the content of a response; raises a ValueError if it is too large."""
    too_large = f"is larger than {size_in_words(max_bytes)}"
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdecimal() and int(length) > max_bytes:
        raise ValueError(too_large)
    content = bytearray()
    while chunk := response.read(_CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise ValueError(too_large)
    return bytes(content)


def _pool(
    current: _OfThread, anywhere: bool, late: str
) -> tuple["urllib3.PoolManager", "urllib3.Retry"]:
    """Returns a pool whose connections keep to the limits of the download of their thread."""
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class TolerantRetry(urllib3.Retry):
        """Ignores an invalid Retry-After header, for which urllib3 raises an error."""

        def parse_retry_after(self, retry_after: str) -> float:
            try:
                return super().parse_retry_after(retry_after)
            except (urllib3.exceptions.InvalidHeader, OverflowError):
                return 0.0  # the pauses of `backoff_factor`

    def check(host: str, address: str) -> None:
        if is_public(address) or (anywhere and host.lower() == current.download.host):
            return
        way_out = "" if anywhere else "; --anywhere allows it where the list itself names it"
        raise _Refused(
            f"{host} leads to {address}, an address of this machine or of a private network, which "
            f"a list of photos is not trusted with{way_out}"
        )

    class Guarded(HTTPConnection):
        """Connects to an address that it has checked, and keeps to the time of the download."""

        _address = ""

        def _new_conn(self) -> socket.socket:
            name = self._dns_host
            try:
                found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
            except socket.gaierror as error:
                raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            for address in addresses:
                check(self.host, address)
            try:
                for number, self._address in enumerate(addresses, start=1):
                    self._dns_host = self._address
                    try:
                        return super()._new_conn()
                    except urllib3.exceptions.NewConnectionError:
                        if number == len(addresses):
                            raise
                raise AssertionError("a name has an address")
            finally:
                self._dns_host = name

        def request(self, *arguments: Any, **options: Any) -> None:
            if current.download.is_late:
                raise _Refused(late)
            if self._address:  # a connection that is used again, perhaps for another list's host
                check(self.host, self._address)
            super().request(*arguments, **options)
            # Kept here: the connection lets go of it once the rest is the response's alone.
            current.download.socket = self.sock

    class GuardedTls(Guarded, HTTPSConnection):
        """The same with TLS, for which the name stays that of the URL."""

    class Http(urllib3.HTTPConnectionPool):
        ConnectionCls = Guarded

    class Https(urllib3.HTTPSConnectionPool):
        ConnectionCls = GuardedTls

    retry_policy = TolerantRetry(
        total=None,  # each kind has its own limit: a redirect is not a failed attempt
        connect=ATTEMPTS - 1,
        read=ATTEMPTS - 1,
        status=ATTEMPTS - 1,
        other=ATTEMPTS - 1,
        redirect=MAX_REDIRECTS,
        backoff_factor=0.5,
        status_forcelist=RETRIED_STATUSES,
        retry_after_max=MAX_PAUSE_SECONDS,
    )
    pool = urllib3.PoolManager(
        maxsize=CONNECTIONS, timeout=urllib3.Timeout(TIMEOUT_SECONDS), retries=retry_policy
    )
    pool.pool_classes_by_scheme = {"http": Http, "https": Https}
    return pool, retry_policy
