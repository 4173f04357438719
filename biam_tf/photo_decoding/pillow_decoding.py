"""Decodes photos with Pillow and NumPy, for code that does not need TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import io
import zlib
from typing import Literal

import numpy as np
from PIL import Image, features

from biam_tf.photo_decoding.file_headers import (
    GRAPH_FORMATS,
    IS_EMPTY,
    MAX_PIXELS,
    NAMES,
    NOT_WHOLE,
    UNUSUAL_BMP,
    PhotoError,
    bmp_header,
    exif_orientation,
    first_frame,
    format_of,
    is_animated_webp,
    too_large,
)

Orientation = Literal["follow", "ignore"]
# By EXIF orientation: what turns the stored picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = {**{orientation: orientation for orientation in _TURNS}, 6: 8, 8: 6}


@dataclasses.dataclass(frozen=True)
class OpenPhoto:
    """A photo that Pillow has decoded.

    Attributes:
        image: the pixels, in the requested mode.
        size: (width, height) in pixels, as it is shown; `image` may be smaller.
        form: format of the file, such as "JPEG".
        turn: EXIF orientation of the file, 1 (upright) to 8.
        is_transparent: whether parts were transparent, and are blended over white.
    """

    image: Image.Image
    size: tuple[int, int]
    form: str
    turn: int = 1
    is_transparent: bool = False


def decode(
    contents: bytes,
    mode: Literal["RGB", "L"],
    at_least: tuple[int, int] | None,
    max_pixels: int,
    orientation: Orientation,
) -> OpenPhoto:
    """Decodes a photo completely; the arguments are those of `biam_tf.photos.open_photo`.

    Raises:
        PhotoError: the bytes are no complete photo, or claim too many pixels.
    """
    if not contents:
        raise PhotoError(IS_EMPTY)
    form = format_of(contents)
    if form is None:
        raise PhotoError(NOT_WHOLE)
    if not _can_open(form):
        raise PhotoError(needs_packages(form))
    try:
        turn = exif_orientation(contents)
        if form == "BMP":
            image, is_transparent = _bmp(contents, max_pixels)
            size = image.size
        else:
            image, size, is_transparent = _with_pillow(
                contents, form, mode, at_least, max_pixels, turn
            )
    except Image.DecompressionBombError as error:
        raise PhotoError(too_large(max_pixels)) from error
    except PhotoError:
        raise
    except Exception as error:  # decoders raise many types of errors for broken bytes
        raise PhotoError(_reason(form)) from error
    if turn > 1 and orientation == "follow":
        image = image.transpose(_TURNS[turn])
        size = size[::-1] if turn > 4 else size
    return OpenPhoto(image.convert(mode), size, form, turn, is_transparent)


def as_png(contents: bytes) -> bytes:
    """Returns a photo as it is sent to a server; see `biam_tf.photos.as_sent`."""
    form = format_of(contents)
    if form in (None, "JPEG", "PNG", "GIF", "BMP"):
        return contents
    try:
        image = decode(contents, "RGB", None, MAX_PIXELS, "ignore").image
    except PhotoError:
        if not _can_open(form):
            raise
        return contents
    turn, file, exif = exif_orientation(contents), io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    image.save(file, "PNG", compress_level=1, **({"exif": exif} if turn > 1 else {}))
    return file.getvalue()


def needs_packages(form: str) -> str:
    """Returns the reason for rejecting a photo whose format needs another package."""
    return (
        f"reading {NAMES.get(form, form)} photos needs more packages; install them with "
        "pip install 'biam-tf[formats]'"
    )


@functools.cache
def _can_open(form: str | None) -> bool:
    """Returns whether Pillow opens a format; registers the plugins of the extra [formats]."""
    try:
        if form == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        elif form == "JXL":
            import pillow_jxl  # noqa: F401
    except ImportError:
        return False
    return bool(features.check("avif")) if form == "AVIF" else True


def _reason(form: str) -> str:
    return NOT_WHOLE if form in GRAPH_FORMATS else f"not a whole {NAMES.get(form, form)} photo"


def _with_pillow(
    contents: bytes,
    form: str,
    mode: Literal["RGB", "L"],
    at_least: tuple[int, int] | None,
    max_pixels: int,
    turn: int,
) -> tuple[Image.Image, tuple[int, int], bool]:
    """Returns the stored picture over white, in RGB or L, its size, and whether it needs white."""
    frame = None
    if form == "GIF" or (form == "WEBP" and is_animated_webp(contents)):
        frame = first_frame(contents)
        if frame is None:
            raise PhotoError(NOT_WHOLE)
        _check_size(frame.canvas, max_pixels)
    elif form == "PNG":
        size = int.from_bytes(contents[16:20], "big"), int.from_bytes(contents[20:24], "big")
        _check_size(size, max_pixels)
        contents = _sound_png(contents)
    with Image.open(io.BytesIO(frame.contents if frame else contents), formats=(form,)) as photo:
        size = photo.size
        _check_size(size, max_pixels)
        if at_least is not None and form == "JPEG":
            photo.draft(mode, at_least if turn < 5 else at_least[::-1])
        photo.load()
        photo_itself, alpha = _without_alpha(photo, contents)
        image = _blended(photo_itself, alpha)
        if form == "TIFF" and turn > 1 and _is_turned(photo):
            image = image.transpose(_TURNS[_BACK[turn]])  # as it is stored
        if form == "TIFF":
            size = image.size  # before, it may be that of the turned picture
    if frame is not None:
        canvas = Image.new("RGB", frame.canvas, "white")
        canvas.paste(image, frame.offset)
        return canvas, frame.canvas, alpha is not None or image.size != frame.canvas
    return image, size, alpha is not None


def _sound_png(contents: bytes) -> bytes:
    """Returns a PNG without its damaged chunks that are not needed, up to its end.

    libpng, which TensorFlow uses, checks every chunk and needs the last one; Pillow does not.

    Raises:
        PhotoError: a chunk that is needed is damaged or missing.
    """
    parts, at = [contents[:8]], 8
    while True:
        size, kind = int.from_bytes(contents[at : at + 4], "big"), contents[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(contents):
            raise PhotoError(NOT_WHOLE)
        checksum = int.from_bytes(contents[end - 4 : end], "big")
        if zlib.crc32(contents[at + 4 : end - 4]) == checksum:
            parts.append(contents[at:end])
        elif not kind[0] & 0x20:  # a capital letter: needed
            raise PhotoError(NOT_WHOLE)
        if kind == b"IEND":
            return b"".join(parts)
        at = end


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise PhotoError(too_large(max_pixels))


def _is_turned(tiff: Image.Image) -> bool:
    """Returns whether Pillow has turned a TIFF upright, as recent versions do, by its tag."""
    return tiff.getexif().get(0x0112, 1) == 1


def _blended(photo: Image.Image, alpha: np.ndarray | None) -> Image.Image:
    if alpha is None:
        return photo
    return Image.fromarray(blend_over_white(np.asarray(photo.convert("RGB")), alpha))


def _without_alpha(photo: Image.Image, contents: bytes) -> tuple[Image.Image, np.ndarray | None]:
    """Returns a decoded photo in RGB or L, and its opacity (height, width); None: opaque.

    Args:
        photo: loaded.
        contents: of its file; the depth of a PNG is read from them.
    """
    alpha: np.ndarray | None = None
    key = photo.info.get("transparency")
    if photo.mode == "P":
        photo = photo.convert("RGBA" if key is not None else "RGB")
    elif photo.mode.startswith("I"):  # 16 bits per pixel
        values = np.asarray(photo).astype(np.uint32)
        if isinstance(key, int):
            alpha = np.where(values == key, 0, 255)
        photo = Image.fromarray((values >> 8).astype(np.uint8))
    elif isinstance(key, int | tuple):
        photo = photo.convert("L") if photo.mode == "1" else photo
        values = np.asarray(photo)
        is_key = (values == _eight_bits(key, contents)).reshape(*values.shape[:2], -1).all(axis=-1)
        alpha = np.where(is_key, 0, 255)
    if photo.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        pixels = np.asarray(photo.convert("RGBA"))
        photo, alpha = Image.fromarray(np.ascontiguousarray(pixels[..., :3])), pixels[..., 3]
    if photo.mode not in ("RGB", "L"):
        photo = photo.convert("RGB")
    return photo, None if alpha is None or (alpha == 255).all() else alpha


def _eight_bits(key: int | tuple[int, ...], contents: bytes) -> int | np.ndarray:
    """Returns the transparent color of a PNG as Pillow gives its pixels, in 8 bits."""
    depth = contents[24]
    if isinstance(key, tuple):
        return np.array(key) >> (8 if depth == 16 else 0)
    return key * (255 // (2**depth - 1)) if depth in (2, 4) else key & 255


def blend_over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blends a photo over white.

    Args:
        pixels: (height, width, 3) uint8.
        alpha: (height, width), opacity 0 to 255.

    Returns:
        (height, width, 3) uint8, rounded.
    """
    opacity = alpha[..., None].astype(np.uint16)  # the sums below are at most 65152
    return ((pixels * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def _bmp(contents: bytes, max_pixels: int) -> tuple[Image.Image, bool]:
    """Decodes a BMP, of which Pillow misreads some palettes and reads other kinds than graphs.

    Returns:
        The picture over white, and whether it needs white.
    """
    header = bmp_header(contents)
    if header is None:
        raise PhotoError(UNUSUAL_BMP if len(contents) >= 54 else NOT_WHOLE)
    if header.width <= 0 or header.height == 0:
        raise PhotoError(NOT_WHOLE)
    _check_size((header.width, header.height), max_pixels)
    start, end = header.pixels
    if end > len(contents) or start < 54:
        raise PhotoError(NOT_WHOLE)
    rows = np.frombuffer(contents[start:end], np.uint8).reshape(header.height, header.row)
    rows = rows if header.top_down else rows[::-1]
    width, bits = header.width, header.bits
    alpha = None
    if bits <= 8:
        indices: np.ndarray = rows
        if bits < 8:
            indices = np.unpackbits(rows, axis=1)
            weights = 2 ** np.arange(bits - 1, -1, -1)
            indices = indices.reshape(header.height, -1, bits) @ weights
        first, last = header.palette
        colors = np.frombuffer(contents[first : min(last, start)].ljust(1024, b"\0"), np.uint8)
        pixels = colors.reshape(-1, 4)[:256][indices[:, :width], 2::-1]
    elif bits == 16:
        values = np.ascontiguousarray(rows).view("<u2")[:, :width].astype(np.uint32)
        most_green = 2**header.green_bits - 1
        red, green = values >> (5 + header.green_bits) & 31, values >> 5 & most_green
        parts = (red * 255 // 31, green * 255 // most_green, (values & 31) * 255 // 31)
        pixels = np.stack(parts, axis=-1).astype(np.uint8)
    else:
        places = rows[:, : width * bits // 8].reshape(header.height, width, bits // 8)
        pixels = places[..., 2::-1]
        alpha = places[..., 3] if header.has_alpha else None
    # Some programs leave the opacity of an opaque BMP at zero.
    is_transparent = alpha is not None and bool(alpha.any() and (alpha < 255).any())
    if alpha is not None and alpha.any():
        pixels = blend_over_white(pixels, alpha)
    return Image.fromarray(np.ascontiguousarray(pixels)), is_transparent
