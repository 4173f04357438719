"""What the bytes of a photo say before it is decoded: format, orientation, first frame, colors.

`biam_tf.photo_decoding.graph_headers` implements the same rules with TensorFlow operations;
`tests/test_photos_everywhere.py` compares them.
"""

from __future__ import annotations

import dataclasses

# Decoded, a pixel has 3 bytes, and 12 for resizing: 64 million pixels need 1 GB.
MAX_PIXELS = 64_000_000

# Formats that a TensorFlow graph can decode; WebP from TensorFlow 2.20 on.
GRAPH_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
# Formats that Python alone can decode, with Pillow and the packages of the extra [formats].
PYTHON_FORMATS = ("TIFF", "HEIF", "AVIF", "JXL")
NAMES = {"WEBP": "WebP", "HEIF": "HEIC", "JXL": "JPEG XL"}  # where people call it differently

EXIF_LIMIT = 1 << 16  # bytes; a JPEG segment cannot be longer
MOST_SEGMENTS = 1000  # of a JPEG before its picture
MOST_CHUNKS = 100_000  # of a PNG or WebP, or blocks of a GIF, usually 25 MB

IS_EMPTY = "the file is empty"
UNUSUAL_BMP = "a kind of BMP that is not supported (compressed, or unusual colors); save it as PNG"


def listed_formats(formats: tuple[str, ...]) -> str:
    """Returns the formats as text, such as "JPEG, PNG or WebP"."""
    names = [NAMES.get(form, form) for form in formats]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def not_whole(formats: tuple[str, ...]) -> str:
    """Returns the reason for rejecting what is no complete photo of one of the formats."""
    return f"not a whole {listed_formats(formats)} photo"


NOT_WHOLE = not_whole(GRAPH_FORMATS)


def too_large(max_pixels: int = MAX_PIXELS) -> str:
    """Returns the reason for rejecting a photo with more pixels."""
    return f"more than {max_pixels} pixels"


class PhotoError(ValueError):
    """A photo cannot be read; the message is the reason, without the name of the photo."""


def format_of(contents: bytes) -> str | None:
    """Returns the format that the first bytes of a file claim, or None if it is none of ours.

    Returns:
        One of `GRAPH_FORMATS` and `PYTHON_FORMATS`, whatever the name of the file.
    """
    start = contents[:12]
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start.startswith(b"BM"):
        return "BMP"
    if start.startswith(b"RIFF") and start[8:] == b"WEBP":
        return "WEBP"
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JXL"
    if start[4:8] == b"ftyp":
        brands = _brands(contents)
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
            return "HEIF"
    return None


def _brands(contents: bytes) -> set[bytes]:
    end = min(int.from_bytes(contents[:4], "big"), len(contents), 256)
    return {contents[8:12], *(contents[at : at + 4] for at in range(16, end, 4))}


# === EXIF orientation ===


def exif_orientation(contents: bytes) -> int:
    """Returns the EXIF orientation of a JPEG, PNG or WebP, 1 to 8; 1 if there is none.

    Read is the entry 0x0112 of IFD0, in either byte order: in a JPEG in the first APP1 segment
    with EXIF data, before the tables; in a PNG in the chunk eXIf; in a WebP in the chunk EXIF.
    Malformed data count as none, as in browsers. For a TIFF, the entry of the file itself.
    """
    form = format_of(contents)
    if form == "JPEG":
        block = _jpeg_exif(contents)
    elif form == "PNG":
        block = png_chunks(contents).exif
    elif form == "WEBP":
        block = _webp_exif(contents)
    elif form == "TIFF":
        return _orientation_in(contents)
    else:
        return 1
    return _orientation_in(block.removeprefix(b"Exif\0\0")[:EXIF_LIMIT])


def _orientation_in(block: bytes) -> int:
    if len(block) < 8 or block[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    little = block[:1] == b"I"

    def number(at: int, count: int) -> int:
        return int.from_bytes(block[at : at + count], "little" if little else "big")

    first = number(4, 4)
    for at in range(first + 2, first + 2 + 12 * number(first, 2), 12):
        if at + 12 > len(block):
            break
        # Written as one 16-bit number; anything else is malformed.
        if number(at, 2) == 0x0112 and number(at + 2, 2) == 3 and number(at + 4, 4) == 1:
            value = number(at + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _jpeg_exif(contents: bytes) -> bytes:
    at = 2
    for _ in range(MOST_SEGMENTS):
        marker = contents[at : at + 2]
        # Only application segments (0xE0 to 0xEF) and comments (0xFE) stand before EXIF data.
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] not in (*range(0xE0, 0xF0), 0xFE):
            break
        end = at + 2 + int.from_bytes(contents[at + 2 : at + 4], "big")
        if marker[1] == 0xE1 and contents[at + 4 : at + 10] == b"Exif\0\0":
            return contents[at + 4 : end]
        at = end
    return b""


@dataclasses.dataclass(frozen=True)
class PngChunks:
    """What the chunks of a PNG say: its EXIF data, and whether it has a chunk tRNS."""

    exif: bytes
    transparent: bool


def png_chunks(contents: bytes) -> PngChunks:
    """Walks through the chunks of a PNG."""
    at, transparent, before_pixels, exif = 8, False, True, b""
    for _ in range(MOST_CHUNKS):
        kind, size = contents[at + 4 : at + 8], int.from_bytes(contents[at : at + 4], "big")
        if len(kind) < 4 or kind == b"IEND" or size >= 2**31:
            break
        if kind == b"IDAT":
            before_pixels = False
        elif kind == b"tRNS":
            transparent |= before_pixels
        elif kind == b"eXIf":
            exif = contents[at + 8 : at + 8 + size]
            if not before_pixels or transparent:
                break
        at += 12 + size
    return PngChunks(exif, transparent)


# === First frames ===


@dataclasses.dataclass(frozen=True)
class Frame:
    """The first frame of a GIF or an animated WebP as a file of its own.

    Attributes:
        contents: a GIF or WebP with this frame alone.
        canvas: (width, height) of the photo in pixels.
        offset: (left, top) of the frame in it; the rest is transparent.
    """

    contents: bytes
    canvas: tuple[int, int]
    offset: tuple[int, int]


def first_frame(contents: bytes) -> Frame | None:
    """Returns the first frame of a GIF or an animated WebP, None if it is not whole.

    In a GIF, the transparent color is replaced with white: decoders differ there.
    """
    return _first_gif_frame(contents) if contents[:3] == b"GIF" else _first_webp_frame(contents)


def _first_gif_frame(contents: bytes) -> Frame | None:
    # Past the end of a truncated file there are zeros: end of data, then an invalid block.
    data = contents + bytes(32)
    left_blocks = MOST_CHUNKS

    def after_data(position: int) -> int:
        nonlocal left_blocks
        while position < len(contents) and data[position] and left_blocks:
            position += 1 + data[position]
            left_blocks -= 1
        return position + 1

    def table_length(flags: int) -> int:
        return 3 * 2 ** (flags % 8 + 1) if flags >= 0x80 else 0

    if len(contents) < 13:
        return None
    table = data[13 : 13 + table_length(data[10])]
    at, transparent = 13 + len(table), -1
    while at < len(contents) and data[at] == 0x21 and left_blocks:  # an extension
        if data[at + 1] == 0xF9 and data[at + 2] >= 4:
            transparent = data[at + 6] if data[at + 3] & 1 else -1
        left_blocks -= 1
        at = after_data(at + 2)
    if at >= len(contents) or data[at] != 0x2C:
        return None
    flags = data[min(at + 9, len(contents))]
    table = data[at + 10 : at + 10 + table_length(flags)] or table
    start = at + 10 + table_length(flags)
    end = after_data(start + 1)
    if end > len(contents) or not table or not left_blocks:
        return None
    colors = bytearray(table.ljust(768, b"\0"))
    if transparent >= 0:
        colors[3 * transparent : 3 * transparent + 3] = b"\xff\xff\xff"
    left, top, width, height = (
        int.from_bytes(data[i : i + 2], "little") for i in range(at + 1, at + 9, 2)
    )
    canvas = (
        max(int.from_bytes(data[6:8], "little"), left + width),
        max(int.from_bytes(data[8:10], "little"), top + height),
    )
    if not width * height:
        return None
    alone = b"GIF89a" + data[at + 5 : at + 9] + b"\0\0\0" + b"\x2c\0\0\0\0" + data[at + 5 : at + 9]
    # Bit 7: a color table follows, of 2^(7 + 1) colors; bit 6: the rows are interlaced.
    alone += bytes([0xC7 if flags & 0x40 else 0x87]) + colors + data[start:end] + b"\x3b"
    return Frame(alone, canvas, (left, top))


def is_animated_webp(contents: bytes) -> bool:
    """Returns whether a WebP says that it is animated."""
    return contents[12:16] == b"VP8X" and bool(contents[20:21]) and bool(contents[20] & 2)


def webp_chunk(contents: bytes, kind: bytes) -> tuple[int, int] | None:
    """Returns start and end of the data of the first chunk of a kind, None if there is none."""
    at = 12
    for _ in range(MOST_CHUNKS):
        found, size = contents[at : at + 4], int.from_bytes(contents[at + 4 : at + 8], "little")
        if len(found) < 4 or size >= 2**31:
            break
        if found == kind:
            return at + 8, at + 8 + size
        at += 8 + size + size % 2
    return None


def _webp_exif(contents: bytes) -> bytes:
    # Decoders look for the chunk only if the header says that there is one.
    if contents[12:16] != b"VP8X" or not contents[20:21] or not contents[20] & 8:
        return b""
    chunk = webp_chunk(contents, b"EXIF")
    return contents[chunk[0] : chunk[1]] if chunk else b""


def _first_webp_frame(contents: bytes) -> Frame | None:
    chunk = webp_chunk(contents, b"ANMF")
    if chunk is None or chunk[1] > len(contents) or chunk[1] - chunk[0] < 24:
        return None
    start, end = chunk

    def three(at: int) -> int:
        return int.from_bytes(contents[at : at + 3], "little")

    left, top = 2 * three(start), 2 * three(start + 3)
    width, height = three(start + 6) + 1, three(start + 9) + 1
    canvas = three(24) + 1, three(27) + 1
    if left + width > canvas[0] or top + height > canvas[1]:
        return None
    frame = contents[start + 16 : end]
    if frame.startswith(b"ALPH"):  # alpha of a lossy picture needs the extended header
        frame = b"VP8X\x0a\0\0\0\x10\0\0\0" + contents[start + 6 : start + 12] + frame
    size = (len(frame) + 4).to_bytes(4, "little")
    return Frame(b"RIFF" + size + b"WEBP" + frame, canvas, (left, top))


# === Version 0.1 ===

HEADER_BYTES = 1 << 18  # enough of a JPEG for `read_otherwise_before`


def read_otherwise_before(contents: bytes, orientation: str) -> bool:
    """Returns whether version 0.1 may have read other pixels of a photo.

    It ignored orientation and transparency, and took indices of palettes in BMPs for colors.

    Args:
        contents: of the file; of a JPEG the first `HEADER_BYTES` are enough.
        orientation: "follow" or "ignore", as photos are read now.
    """
    form = format_of(contents)
    if orientation == "follow" and exif_orientation(contents) != 1:
        return True
    if form == "PNG":
        return contents[25:26] >= b"\x04" or png_chunks(contents).transparent
    return form not in ("JPEG", None)


# === BMP ===


@dataclasses.dataclass(frozen=True)
class BmpHeader:
    """Where the pixels of a BMP are and how they are stored.

    Attributes:
        width: in pixels.
        height: in pixels.
        top_down: whether the first row is the top one.
        bits: per pixel: 1, 4 or 8 (indices of a palette), 16, 24 or 32.
        green_bits: 5 or 6, of 16 bits per pixel.
        has_alpha: whether the fourth byte of 32 bits is opacity.
        palette: (start, end) of the palette in the file, four bytes for each color.
        pixels: (start, end) of the rows in the file.
        row: bytes of a row, a multiple of 4.
    """

    width: int
    height: int
    top_down: bool
    bits: int
    green_bits: int
    has_alpha: bool
    palette: tuple[int, int]
    pixels: tuple[int, int]
    row: int


def bmp_header(contents: bytes) -> BmpHeader | None:
    """Reads the header of a BMP; returns None if it is of a kind that is not supported.

    Supported are uncompressed BMPs with a header of at least 40 bytes: palettes, 16 bits per pixel
    with 5 or 6 bits of green, and 24 and 32 bits in the usual order of colors.
    """
    header = contents[:70].ljust(70, b"\0")

    def number(at: int, count: int = 4) -> int:
        return int.from_bytes(header[at : at + count], "little")

    size, bits, compression = number(14), number(28, 2), number(30)
    masks = (number(54), number(58), number(62)) if compression == 3 else None
    alpha = number(66) if masks and size >= 56 else 0
    usual = {
        None: (1, 4, 8, 16, 24, 32),
        (0x7C00, 0x3E0, 0x1F): (16,),
        (0xF800, 0x7E0, 0x1F): (16,),
        (0xFF0000, 0xFF00, 0xFF): (32,),
    }
    known = size in (40, 52, 56, 108, 124) and compression in (0, 3)
    if not known or bits not in usual.get(masks, ()) or alpha not in (0, 0xFF000000):
        return None
    width, height = _signed(number(18)), _signed(number(22))
    row = (width * bits + 31) // 32 * 4
    colors = min(number(46) or 256, 2**bits) if bits <= 8 else 0
    return BmpHeader(
        width=width,
        height=abs(height),
        top_down=height < 0,
        bits=bits,
        green_bits=6 if masks == (0xF800, 0x7E0, 0x1F) else 5,
        has_alpha=bits == 32 and alpha != 0,
        palette=(14 + size, 14 + size + 4 * colors),
        pixels=(number(10), number(10) + row * abs(height)),
        row=row,
    )


def _signed(number: int) -> int:
    return number - 2**32 if number >= 2**31 else number
