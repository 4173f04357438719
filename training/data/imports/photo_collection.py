"""Links, copies or downloads the photos of a list into the folder of a data set."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import shutil
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from biam_tf.errors import UserError
from biam_tf.files import is_inside, replacing
from biam_tf.photos import photo_problem, stored_name
from training.data.imports.downloads import CONNECTIONS, Downloader, downloader

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
    folders: Sequence[pathlib.Path] | None = None,
    download: Callable[[str], bytes] | None = None,
) -> CollectedPhotos:
    """Places photos that can be decoded in `images/`; existing files are kept as they are.

    File names get a prefix of sixteen digits, a hash of the location, so that two photos with the
    same name do not collide and a second call continues a stopped one.

    Args:
        locations: paths and http(s) URLs.
        directory: the data set's folder.
        placement: "link" creates hard links if the file system supports them, otherwise copies.
        on_photo: called after each photo.
        folders: only photos in them or below are taken from this machine; None: from anywhere.
        download: contents of the photo at a URL; None: that of `downloads.downloader`.

    Raises:
        UserError: a location is a URL, and urllib3 is not installed.
    """
    folder = directory / "images"
    folder.mkdir(parents=True, exist_ok=True)
    locations = list(dict.fromkeys(locations))
    if download is None and any(map(is_url, locations)):
        download = downloader()
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
                if problem := local_problem(location, folders):
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
    except BaseException:
        # Ctrl-C waits neither for the remaining photos nor for slow servers.
        threads.shutdown(wait=False, cancel_futures=True)
        if isinstance(download, Downloader):
            download.stop()
        raise
    finally:
        threads.shutdown(cancel_futures=True)
    return collected


def is_url(location: str) -> bool:
    """Whether a location is an http(s) URL and not a path."""
    return location.lower().startswith(("http://", "https://"))


def local_problem(location: str, folders: Sequence[pathlib.Path] | None) -> str | None:
    """Returns why a file of this machine is not taken as a photo, or None if it is.

    Args:
        location: its path.
        folders: those that photos may lie in, links followed; None: anywhere.
    """
    path = stored_name("", location)
    if folders is not None and not any(is_inside(path, folder) for folder in folders):
        listed = ", ".join(str(folder) for folder in folders[:3])
        return f"lies outside {listed}; --anywhere takes photos from everywhere"
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        return "is no file"  # a device, or a pipe, that never ends
    return photo_problem(path)


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
