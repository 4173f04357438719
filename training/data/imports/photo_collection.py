"""Brings the photos of a list into a data set's folder: linked, copied, or fetched."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import shutil
import urllib.parse
import warnings
from collections.abc import Callable, Iterable
from typing import Literal

from biam_tf.errors import UserError
from biam_tf.photos import photo_problem, stored_name

CONNECTIONS = 16
TRIES = 4
MOST_REDIRECTS = 5
TIMEOUT_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 60  # whatever a server asks for
BUSY = (429, 500, 502, 503, 504)
MAX_BYTES = 200 << 20

Placing = Literal["link", "copy"]


@dataclasses.dataclass(frozen=True)
class Collected:
    """What came of it.

    Attributes:
        images: for each location that is there, its path below the data set's folder.
        failed: for each other one, why.
    """

    images: dict[str, str]
    failed: dict[str, str]


def collect_photos(
    locations: Iterable[str],
    directory: pathlib.Path,
    placing: Placing = "link",
    done: Callable[[], None] = lambda: None,
) -> Collected:
    """Puts photos into `images/`; those that are there already are left as they are.

    A photo keeps its file name behind sixteen digits that its location decides, so that two photos
    of one name do not meet and a second call goes on where the first was stopped.

    Args:
        locations: paths and http(s) addresses. Addresses are tried four times, with growing
            pauses or those the server asks for, up to a minute, where it does not answer, is busy
            or breaks off midway. What arrives has to be a photo.
        directory: the data set's folder.
        placing: "link" makes hard links where the file system can, else copies.
        done: called after each photo.
    """
    folder = directory / "images"
    folder.mkdir(parents=True, exist_ok=True)
    locations = list(dict.fromkeys(locations))
    fetch = _fetcher() if any(map(is_address, locations)) else None
    collected = Collected({}, {})

    def bring(location: str) -> tuple[str, str | None]:
        target = folder / _file_name(location)
        if target.exists():
            return target.name, None
        aside = target.with_name(f".{target.name}.partial")
        try:
            if is_address(location):
                aside.write_bytes(fetch(location))
            else:
                _place(pathlib.Path(stored_name("", location)), aside, placing)
            os.replace(aside, target)
        except (OSError, ValueError) as error:
            aside.unlink(missing_ok=True)
            return target.name, getattr(error, "strerror", None) or str(error)
        return target.name, None

    threads = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual metadata is no defect of a picture
            brought = threads.map(bring, locations)
            for location, (name, problem) in zip(locations, brought, strict=True):
                if problem is None:
                    collected.images[location] = f"images/{name}"
                else:
                    collected.failed[location] = problem
                done()
    finally:
        threads.shutdown(cancel_futures=True)  # at Ctrl-C, not after the last photo
    return collected


def is_address(location: str) -> bool:
    """Whether a photo has to be fetched."""
    return location.lower().startswith(("http://", "https://"))


def address_complaint(address: str) -> str | None:
    """Returns what is wrong with the form of an address, or None."""
    try:
        parts = urllib.parse.urlsplit(address)
        parts.port  # noqa: B018  looked at, it is checked
    except ValueError as error:
        return f"malformed address {address!r}: {error}"
    return None if parts.hostname else f"malformed address {address!r}: it names no server"


def _file_name(location: str) -> str:
    path = urllib.parse.urlsplit(location).path if is_address(location) else location
    name = urllib.parse.unquote(pathlib.PurePosixPath(path).name) or "photo"
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    name = name.encode()[-200:].decode(errors="ignore")  # file systems bear 255 bytes
    return f"{hashlib.sha256(location.encode()).hexdigest()[:16]}-{name}"


def _place(source: pathlib.Path, target: pathlib.Path, placing: Placing) -> None:
    target.unlink(missing_ok=True)
    if placing == "link":
        try:
            os.link(source.resolve(strict=True), target)
            return
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, target)


def _fetcher() -> Callable[[str], bytes]:
    try:
        import urllib3
    except ImportError:
        raise UserError(
            "fetching photos needs urllib3; run pip install 'biam-tf[import]'"
        ) from None

    class Patience(urllib3.Retry):
        """Takes a Retry-After that is no time for none, where urllib3 gives up."""

        def parse_retry_after(self, retry_after):
            try:
                return super().parse_retry_after(retry_after)
            except (urllib3.exceptions.InvalidHeader, OverflowError):
                return None

    patience = Patience(
        total=None,  # each kind is counted by itself: a redirect is no failed try
        connect=TRIES - 1,
        read=TRIES - 1,
        status=TRIES - 1,
        other=TRIES - 1,
        redirect=MOST_REDIRECTS,
        backoff_factor=0.5,
        status_forcelist=BUSY,
        retry_after_max=LONGEST_PAUSE_SECONDS,
    )
    pool = urllib3.PoolManager(
        maxsize=CONNECTIONS, timeout=urllib3.Timeout(TIMEOUT_SECONDS), retries=patience
    )

    def read(address: str) -> tuple[bytes, str]:
        """Returns what the server sends, and what it says that it is."""
        retries = patience
        while True:
            response = pool.request("GET", address, preload_content=False, retries=retries)
            with response:
                if response.status != 200:
                    raise ValueError(f"the server answered {response.status}")
                try:
                    content = response.read(MAX_BYTES + 1)
                    return content, response.headers.get("Content-Type", "no Content-Type")
                except urllib3.exceptions.HTTPError as error:
                    # The pool has only seen to the answer's head. This is one try of the same four.
                    retries = response.retries.increment("GET", address, error=error)
            retries.sleep()

    def fetch(address: str) -> bytes:
        try:
            content, kind = read(address)
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error  # of the last try, without the address
            raise ValueError(f"could not be fetched: {reason}") from None
        if len(content) > MAX_BYTES:
            raise ValueError(f"has more than {MAX_BYTES >> 20} MB")
        if not content:
            raise ValueError("the server sent nothing")
        problem = photo_problem(content)
        if problem:
            raise ValueError(f"what the server sent ({kind}): {problem}")
        return content

    return fetch
