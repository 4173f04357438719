"""Links, copies or downloads the photos of a list into the folder of a data set."""

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
from biam_tf.files import replacing
from biam_tf.photos import photo_problem, stored_name

CONNECTIONS = 16
ATTEMPTS = 4
MAX_REDIRECTS = 5
TIMEOUT_SECONDS = 30.0
MAX_PAUSE_SECONDS = 60  # also if a server requests a longer one
RETRIED_STATUSES = (429, 500, 502, 503, 504)
MAX_BYTES = 200 << 20

Placement = Literal["link", "copy"]


@dataclasses.dataclass(frozen=True)
class CollectedPhotos:
    """Result of `collect_photos`.

    Attributes:
        images: path below the data set's folder, by location.
        failed: what went wrong, by location, for the photos that are missing.
    """

    images: dict[str, str]
    failed: dict[str, str]


def collect_photos(
    locations: Iterable[str],
    directory: pathlib.Path,
    placement: Placement = "link",
    on_photo: Callable[[], None] = lambda: None,
) -> CollectedPhotos:
    """Places photos that can be decoded in `images/`; existing files are kept as they are.

    File names get a prefix of sixteen digits, a hash of the location, so that two photos with the
    same name do not collide and a second call continues a stopped one.

    Args:
        locations: paths and http(s) URLs. A download is attempted up to four times if the server
            does not respond, is busy or closes the connection early, with growing pauses or those
            that the server requests, up to a minute.
        directory: the data set's folder.
        placement: "link" creates hard links if the file system supports them, otherwise copies.
        on_photo: called after each photo.

    Raises:
        UserError: a location is a URL, and urllib3 is not installed.
    """
    folder = directory / "images"
    folder.mkdir(parents=True, exist_ok=True)
    locations = list(dict.fromkeys(locations))
    download = _downloader() if any(map(is_url, locations)) else None
    collected = CollectedPhotos({}, {})

    def collect(location: str) -> tuple[str, str | None]:
        target = folder / _file_name(location)
        if target.exists():
            return target.name, None
        try:
            if download is not None and is_url(location):
                content = download(location)
                with replacing(target) as partial:
                    partial.write_bytes(content)
            else:
                source = pathlib.Path(stored_name("", location)).resolve(strict=True)
                if problem := photo_problem(source):
                    return target.name, problem
                _place(source, target, placement)
        except (OSError, ValueError) as error:
            return target.name, getattr(error, "strerror", None) or str(error)
        return target.name, None

    threads = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual metadata of photos that can be decoded
            results = threads.map(collect, locations)
            for location, (name, problem) in zip(locations, results, strict=True):
                if problem is None:
                    collected.images[location] = f"images/{name}"
                else:
                    collected.failed[location] = problem
                on_photo()
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the remaining photos
    return collected


def is_url(location: str) -> bool:
    """Whether a location is an http(s) URL and not a path."""
    return location.lower().startswith(("http://", "https://"))


def url_problem(url: str) -> str | None:
    """Returns what is wrong with the syntax of a URL, or None."""
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018  reading the property checks it
    except ValueError as error:
        return f"malformed URL {url!r}: {error}"
    return None if parts.hostname else f"malformed URL {url!r}: it has no host name"


def _file_name(location: str) -> str:
    path = urllib.parse.urlsplit(location).path if is_url(location) else location
    name = urllib.parse.unquote(pathlib.PurePosixPath(path).name) or "photo"
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    name = name.encode()[-200:].decode(errors="ignore")  # file systems allow 255 bytes
    return f"{hashlib.sha256(location.encode()).hexdigest()[:16]}-{name}"


def _place(source: pathlib.Path, target: pathlib.Path, placement: Placement) -> None:
    if placement == "link":
        try:
            with replacing(target) as partial:
                os.link(source, partial)
            return
        except UserError:  # another file system, or one without hard links
            pass
    # Opened first, so that an unreadable source is not reported as an unwritable target.
    with source.open("rb"), replacing(target) as partial:
        shutil.copyfile(source, partial)


def _downloader() -> Callable[[str], bytes]:
    try:
        import urllib3
    except ImportError:
        raise UserError(
            "downloading photos needs urllib3; run pip install 'biam-tf[import]'"
        ) from None

    class TolerantRetry(urllib3.Retry):
        """Ignores an invalid Retry-After header, for which urllib3 raises an error."""

        def parse_retry_after(self, retry_after: str) -> float:
            try:
                return super().parse_retry_after(retry_after)
            except (urllib3.exceptions.InvalidHeader, OverflowError):
                return 0.0  # the pauses of `backoff_factor`

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

    def read(url: str) -> tuple[bytes, str]:
        """Returns the content of the response, and its Content-Type."""
        retries: urllib3.Retry = retry_policy
        while True:
            response = pool.request("GET", url, preload_content=False, retries=retries)
            with response:
                if response.status != 200:
                    raise ValueError(f"the server responded with status {response.status}")
                try:
                    content = response.read(MAX_BYTES + 1)
                    return content, response.headers.get("Content-Type", "no Content-Type")
                except urllib3.exceptions.HTTPError as error:
                    # The pool itself retries only until it has the headers.
                    retries = (response.retries or retries).increment("GET", url, error=error)
            retries.sleep()

    def download(url: str) -> bytes:
        try:
            content, kind = read(url)
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error  # of the last attempt, without the URL
            raise ValueError(f"download failed: {reason}") from None
        if len(content) > MAX_BYTES:
            raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
        if not content:
            raise ValueError("the server sent an empty response")
        problem = photo_problem(content)
        if problem:
            raise ValueError(f"invalid download ({kind}): {problem}")
        return content

    return download
