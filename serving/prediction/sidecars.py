"""Keywords beside photos: in `photo.jpg.xmp`, digiKam's name, or Lightroom's `photo.xmp`."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from PIL import Image, IptcImagePlugin

from biam_tf.files import replacing
from serving.prediction.keywords import (
    HIERARCHY,
    SUBJECT,
    TAGS_LIST,
    FieldChange,
    Refused,
    Standing,
    changes_of,
    wanted_keywords,
)
from serving.prediction.photo_list import sidecar_of
from serving.prediction.xmp_packet import XmpPacket

_FIELDS = (SUBJECT, TAGS_LIST, HIERARCHY)
_LARGEST = 64 * 2**20
_IPTC_KEYWORDS = (2, 25)
_LONGEST_IPTC = 64  # bytes; a character that does not fit leaves up to 3 of them unused
_END = b"</x:xmpmeta>"


def update_sidecar(
    photo: str, names: Sequence[str], prefix: str, dry_run: bool
) -> tuple[pathlib.Path, dict[str, FieldChange]]:
    """Brings the keywords of a photo's sidecar in line with its tags.

    A new sidecar begins with the keywords inside the photo, which programs would otherwise no
    longer show.

    Args:
        photo: path of the photo.
        names: of its tags.
        prefix: levels above the tags, separated by `/`.
        dry_run: whether nothing is written.

    Returns:
        The path of the sidecar, and what changed; nothing: it was not written.

    Raises:
        Refused: the sidecar cannot be read or is broken; it is left as it was.
        UserError: the folder or disk cannot be written.
    """
    path = sidecar_of(photo)
    try:
        exists = path.exists()
        if exists and path.stat().st_size > _LARGEST:
            raise Refused(f"{path}: too large for a sidecar ({path.stat().st_size} bytes)")
        packet = XmpPacket(path.read_bytes() if exists else None)
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror})") from None
    except Refused as error:
        raise Refused(f"{path}: {error}") from None
    standing = packet.standing()
    inside = Standing({}, {}) if exists else keywords_inside(photo)
    seeds = {field: list(inside.keywords.get(field, ())) for field in _FIELDS}
    own = {field: list(inside.own.get(field, ())) for field in _FIELDS}
    if not exists:
        standing = Standing(seeds, own)
    changes = changes_of(standing, wanted_keywords(names, prefix), _FIELDS)
    if not changes or dry_run:
        return path, changes
    if exists and not os.access(path, os.W_OK):
        raise Refused(f"{path}: may not be written")
    if not exists:
        packet.change(
            {
                field: FieldChange((), tuple(seeds[field]), tuple(own[field]), ())
                for field in _FIELDS
            }
        )
    packet.change(changes)
    target = path.resolve()
    with replacing(target) as partial:
        partial.write_bytes(packet.to_bytes())
        if exists:
            shutil.copymode(target, partial)
    return path, changes


def keywords_inside(photo: str) -> Standing:
    """Returns the keywords in a photo's own XMP and, that it lacks, in its IPTC data."""
    xmp: bytes | str | None = None
    iptc: Any = []
    # Errors of any kind: of metadata that cannot be read, nothing is hidden either.
    with contextlib.suppress(Exception), Image.open(photo) as image:
        if image.format == "PNG":
            image.load()  # XMP may follow the pixels
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        iptc = (IptcImagePlugin.getiptcinfo(image) or {}).get(_IPTC_KEYWORDS, [])
    standing = Standing({}, {})
    with contextlib.suppress(Refused, OSError):
        xmp = xmp or _packet_in(pathlib.Path(photo).read_bytes())
        if xmp:
            standing = XmpPacket(xmp.encode() if isinstance(xmp, str) else xmp).standing()
    subject = list(standing.keywords.get(SUBJECT, ()))
    for value in iptc if isinstance(iptc, list) else [iptc]:
        keyword, is_cut_off = _decoded(value), len(value) >= _LONGEST_IPTC - 3
        if not any(
            item == keyword or (is_cut_off and item.startswith(keyword)) for item in subject
        ):
            subject.append(keyword)
    keywords = {**standing.keywords, SUBJECT: subject} if subject else standing.keywords
    return Standing(keywords, standing.own)


def _packet_in(contents: bytes) -> bytes | None:
    """Returns the XMP of a photo whose metadata Pillow does not read, such as that of a GIF.

    It is found by its marks, which XMP has for this purpose.
    """
    start, end = contents.find(b"<x:xmpmeta"), contents.find(_END)
    return contents[start : end + len(_END)] if 0 <= start < end else None


def _decoded(value: bytes) -> str:
    try:
        return value.decode().rstrip("\x00")
    except UnicodeDecodeError:
        return value.decode("latin-1").rstrip("\x00")
