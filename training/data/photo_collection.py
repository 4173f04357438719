"""Brings the photos of a list into a data set's folder: linked, copied, or fetched."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Literal

from biam_tf.errors import UserError

CONNECTIONS = 16
TRIES = 4
TIMEOUT_SECONDS = 30.0
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

    A photo keeps its file name behind eight digits that its location decides, so that two photos
    of one name do not meet and a second call goes on where the first was stopped.

    Args:
        locations: paths and http(s) addresses. Addresses are tried four times, with growing
            pauses, where the server does not answer, is busy or breaks off.
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
                _place(pathlib.Path(location), aside, placing)
            os.replace(aside, target)
        except (OSError, ValueError) as error:
            aside.unlink(missing_ok=True)
            return target.name, getattr(error, "strerror", None) or str(error)
        return target.name, None

    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as threads:
        for location, (name, problem) in zip(locations, threads.map(bring, locations), strict=True):
            if problem is None:
                collected.images[location] = f"images/{name}"
            else:
                collected.failed[location] = problem
            done()
    return collected


def is_address(location: str) -> bool:
    """Whether a photo has to be fetched."""
    return location.startswith(("http://", "https://"))


def _file_name(location: str) -> str:
    path = urllib.parse.urlsplit(location).path if is_address(location) else location
    name = urllib.parse.unquote(pathlib.PurePosixPath(path).name) or "photo"
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)[-100:]
    return f"{hashlib.sha256(location.encode()).hexdigest()[:8]}-{name}"


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
    retries = urllib3.Retry(
        TRIES - 1, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504)
    )
    pool = urllib3.PoolManager(
        maxsize=CONNECTIONS, retries=retries, timeout=urllib3.Timeout(TIMEOUT_SECONDS)
    )

    def fetch(address: str) -> bytes:
        try:
            with pool.request("GET", address, preload_content=False) as response:
                if response.status != 200:
                    raise ValueError(f"the server answered {response.status}")
                content = response.read(MAX_BYTES + 1)
        except urllib3.exceptions.HTTPError as error:
            raise ValueError(f"could not be fetched: {error}") from None
        if len(content) > MAX_BYTES:
            raise ValueError(f"has more than {MAX_BYTES >> 20} MB")
        if not content:
            raise ValueError("the server sent nothing")
        return content

    return fetch
