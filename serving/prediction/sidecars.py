"""Keywords beside photos: in `photo.jpg.xmp`, digiKam's name, or Lightroom's `photo.xmp`."""

import os
import pathlib
import shutil
from collections.abc import Sequence

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
    """Returns the keywords in a photo's own XMP, or else in its IPTC data; none if it has none."""
    try:
        with Image.open(photo) as image:
            if image.format == "PNG":
                image.load()  # XMP may follow the pixels
            xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
            iptc = (IptcImagePlugin.getiptcinfo(image) or {}).get(_IPTC_KEYWORDS, [])
    except Exception:  # of any kind: of metadata that cannot be read, nothing is hidden either
        return Standing({}, {})
    standing = Standing({}, {})
    if xmp:
        try:
            standing = XmpPacket(xmp.encode() if isinstance(xmp, str) else xmp).standing()
        except Refused:
            pass
    if any(standing.keywords.values()):
        return standing
    values = iptc if isinstance(iptc, list) else [iptc]
    return Standing({SUBJECT: [_decoded(value) for value in values]}, standing.own)


def _decoded(value: bytes) -> str:
    try:
        return value.decode().rstrip("\x00")
    except UnicodeDecodeError:
        return value.decode("latin-1").rstrip("\x00")
