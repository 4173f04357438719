"""Writes small photo files of kinds that Pillow does not write, for tests and benchmarks."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image, features

WIDTH, HEIGHT = 61, 40  # odd, so that rows are padded


def drawing() -> np.ndarray:
    """Returns (40, 61, 3) uint8: smooth colors and a dark corner, no two sides alike."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([4 * x, 6 * y, 2 * (x + y)], axis=-1).astype(np.uint8)
    pixels[:12, :20] = (30, 60, 10)
    return pixels


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """Returns a picture as a file of a format of Pillow."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def over_white(pixels: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Blends (h, w, 3) with opacity (h, w), 0 to 255, over white."""
    share = opacity[..., None] / 255
    return np.round(pixels * share + 255 * (1 - share)).astype(np.uint8)


def opacity_ramp() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.where(y < 8, 0, np.where(y > 32, 255, 4 * x)).astype(np.uint8)


def png(pixels: np.ndarray, depth: int, color_type: int, *chunks: bytes) -> bytes:
    """Returns a PNG of samples (h, w) or (h, w, channels) with further chunks before its pixels."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    rows = pixels.reshape(height, -1)
    if depth == 16:
        rows = rows.astype(">u2").view(np.uint8)
    elif depth < 8:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    rows = np.pad(rows.astype(np.uint8), ((0, 0), (1, 0)))
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(rows.tobytes()))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def interlaced(pixels: np.ndarray) -> bytes:
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    rows = b""
    for top, left, down, right in (*passes, (1, 0, 2, 1)):
        part = pixels[top::down, left::right]
        rows += np.pad(part.reshape(len(part), -1), ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    parts = [
        png_chunk(b"IHDR", header),
        png_chunk(b"IDAT", zlib.compress(rows)),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def indexed() -> tuple[np.ndarray, np.ndarray]:
    """Returns indices (h, w) of 16 colors, and the colors (16, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    colors = np.random.default_rng(5).integers(0, 256, (16, 3), dtype=np.uint8)
    return ((x // 4 + y // 5 * 3) % 16).astype(np.uint8), colors


def gif(
    frames: list[np.ndarray],
    colors: np.ndarray,
    screen: tuple[int, int] | None = None,
    offset: tuple[int, int] = (0, 0),
    transparent: int | None = None,
    own_colors: bool = False,
) -> bytes:
    """Returns a GIF, written by hand without compression.

    Args:
        frames: indices (h, w) below 16 of each frame.
        colors: (16, 3) uint8.
        screen: (width, height); None: the size of the first frame.
        offset: (left, top) of the frames.
        transparent: index of the transparent color.
        own_colors: whether each frame has the table of colors, not the file.
    """
    height, width = frames[0].shape
    screen = screen or (width, height)
    table = colors.tobytes()
    file = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x73 if own_colors else 0xF3, 0, 0)
    file = file if not own_colors else file[:10] + b"\x70\0\0"
    file += b"" if own_colors else table
    for frame in frames:
        if transparent is not None:
            file += bytes([0x21, 0xF9, 4, 1, 10, 0, transparent, 0])
        sides = (*offset, frame.shape[1], frame.shape[0])
        file += b"\x2c" + struct.pack("<HHHH", *sides) + (b"\x83" + table if own_colors else b"\0")
        # Codes of 5 bits; the code to clear the table comes before it would grow to 6 bits.
        codes = []
        for at, index in enumerate(frame.ravel().tolist()):
            codes += [16, index] if at % 14 == 0 else [index]
        bits = np.array([[c >> b & 1 for b in range(5)] for c in [*codes, 17]], np.uint8)
        data = np.packbits(bits.ravel(), bitorder="little").tobytes()
        file += b"\x04"
        for start in range(0, len(data), 255):
            part = data[start : start + 255]
            file += bytes([len(part)]) + part
        file += b"\0"
    return file + b"\x3b"


def palette_image(indices: np.ndarray, colors: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colors.tobytes())
    return image


def bmp(
    rows: np.ndarray,
    bits: int,
    width: int,
    *,
    palette: bytes = b"",
    masks: tuple[int, ...] = (),
    compression: int = 0,
    top_down: bool = False,
    colors: int = 0,
) -> bytes:
    """Returns a BMP of packed rows (h, bytes), top first; four masks need a header of 108 bytes."""
    height = len(rows)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    data = (rows if top_down else rows[::-1]).tobytes()
    size = 108 if len(masks) == 4 else 40
    between = b"".join(struct.pack("<I", mask) for mask in masks)
    between = between.ljust(size - 40, b"\0") + palette
    offset = 14 + 40 + len(between)
    shape = (size, width, -height if top_down else height, 1, bits)
    header = struct.pack("<IiiHHIIiiII", *shape, compression, len(data), 2835, 2835, colors, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + between + data


@functools.cache
def can_write(form: str) -> bool:
    """Returns whether Pillow writes a format, registering the packages of the extra [formats]."""
    try:
        import pillow_heif
        import pillow_jxl  # noqa: F401
    except ImportError:
        return form == "AVIF" and bool(features.check("avif"))
    pillow_heif.register_heif_opener()
    return form != "AVIF" or bool(features.check("avif"))


def exif(orientation: int, big_endian: bool) -> bytes:
    """Returns EXIF data with an orientation among other entries, without the prefix of a JPEG."""
    order = ">" if big_endian else "<"
    entries = [(0x010F, 2, 4, b"abc\0"), (0x0112, 3, 1, struct.pack(order + "HH", orientation, 0))]
    block = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "IH", 8, len(entries))
    for tag, kind, count, value in entries:
        block += struct.pack(order + "HHI", tag, kind, count) + value
    return block + bytes(4)
