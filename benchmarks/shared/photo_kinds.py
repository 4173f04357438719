"""Small drawn photos of every kind that people have, each with its right pixels.

The pixels come from the drawn arrays or, for lossy formats, from Pillow's own functions; none from
`biam_tf.photos`.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageOps, features

from benchmarks.shared.photo_writers import (
    HEIGHT,
    WIDTH,
    bmp,
    can_write,
    drawing,
    exif,
    gif,
    indexed,
    interlaced,
    opacity_ramp,
    over_white,
    palette_image,
    png,
    png_chunk,
    saved,
)

LOSSY = 6  # decoders of JPEG round differently


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoKind:
    """A photo of some kind.

    Attributes:
        name: what kind it is.
        file: name of a file.
        contents: of the file.
        pixels: (height, width, 3) uint8, as a viewer shows it; None if the photo is refused.
        tolerance: largest difference of a pixel value that is right.
        problem: part of the reason for refusing it; None if it is read.
    """

    name: str
    file: str
    contents: bytes
    pixels: np.ndarray | None
    tolerance: int = 0
    problem: str | None = None

    @property
    def format(self) -> str:
        """The ending of the file, which tells the format."""
        return self.file.rpartition(".")[2]


def photo_kinds() -> list[PhotoKind]:
    """Returns all kinds for which Pillow on this machine has an encoder."""
    makers: list[Callable[[], Iterator[PhotoKind]]] = [
        _jpegs,
        _pngs,
        _gifs,
        _bmps,
        _webps,
        _others,
        _turned,
        _broken,
    ]
    return [kind for maker in makers for kind in maker()]


def _by_pillow(contents: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(contents)) as photo:
        return np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))


def _jpegs() -> Iterator[PhotoKind]:
    color = Image.fromarray(drawing())
    for name, image, options in (
        ("JPEG", color, {}),
        ("JPEG, progressive", color, {"progressive": True}),
        ("JPEG, full color resolution", color, {"subsampling": 0}),
        ("JPEG, gray", color.convert("L"), {}),
        ("JPEG, CMYK", color.convert("CMYK"), {}),
        (
            "JPEG with a color profile and a comment",
            color,
            {"icc_profile": bytes(3000), "comment": "c"},
        ),
    ):
        contents = saved(image, "JPEG", quality=95, **options)
        yield PhotoKind(name, f"{_file(name)}.jpg", contents, _by_pillow(contents), LOSSY)
    contents = saved(color, "JPEG")
    yield PhotoKind("JPEG named PNG", "jpeg_named.png", contents, _by_pillow(contents), LOSSY)


def _file(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _pngs() -> Iterator[PhotoKind]:
    pixels, opacity = drawing(), opacity_ramp()
    blended = over_white(pixels, opacity)
    gray = pixels[..., 0]
    gray_blended = over_white(np.repeat(gray[..., None], 3, axis=2), opacity)
    key = pixels[20, 30]
    keyed = np.where((pixels == key).all(-1, keepdims=True), 255, pixels).astype(np.uint8)

    def kind(name: str, contents: bytes, right: np.ndarray, tolerance: int = 0) -> PhotoKind:
        if right.ndim == 2:
            right = np.repeat(right[..., None], 3, axis=2)
        return PhotoKind(name, f"{_file(name)}.png", contents, right, tolerance)

    image = Image.fromarray(pixels)
    yield kind("PNG", saved(image, "PNG"), pixels)
    yield kind("PNG, interlaced", interlaced(pixels), pixels)
    rgba = np.dstack([pixels, opacity])
    yield kind("PNG, RGB with opacity", saved(Image.fromarray(rgba), "PNG"), blended)
    yield kind("PNG, gray with opacity", png(np.dstack([gray, opacity]), 8, 4), gray_blended)
    black = np.dstack([np.zeros_like(pixels), opacity])
    right = over_white(black[..., :3], opacity)
    yield kind("PNG, black on a transparent ground", saved(Image.fromarray(black), "PNG"), right)
    color = png_chunk(b"tRNS", struct.pack(">HHH", *map(int, key)))
    yield kind("PNG, RGB with a transparent color", png(pixels, 8, 2, color), keyed)
    color = png_chunk(b"tRNS", struct.pack(">H", int(gray[20, 30])))
    right = np.where(gray == gray[20, 30], 255, gray)
    yield kind("PNG, gray with a transparent color", png(gray, 8, 0, color), right)
    for depth in (1, 2, 4):
        samples = np.arange(WIDTH)[None] // 3 % 2**depth + np.zeros((HEIGHT, 1), int)
        shades = (samples * (255 // (2**depth - 1))).astype(np.uint8)
        yield kind(f"PNG, gray, {depth} bits", png(samples, depth, 0), shades)
        color = png_chunk(b"tRNS", struct.pack(">H", 1))
        right = np.where(samples == 1, 255, shades)
        yield kind(
            f"PNG, gray, {depth} bits, a transparent shade", png(samples, depth, 0, color), right
        )
    for depth in (1, 2, 4, 8):
        samples = np.arange(WIDTH)[None] // 3 % min(2**depth, 20) + np.zeros((HEIGHT, 1), int)
        colors = np.random.default_rng(depth).integers(0, 256, (2**depth, 3), dtype=np.uint8)
        palette = png_chunk(b"PLTE", colors.tobytes())
        yield kind(
            f"PNG, palette of {depth} bits", png(samples, depth, 3, palette), colors[samples]
        )
        alphas = np.array([100, 0] + [255] * (2**depth - 2), np.uint8)
        right = over_white(colors[samples], alphas[samples])
        contents = png(samples, depth, 3, palette, png_chunk(b"tRNS", alphas[:2].tobytes()))
        yield kind(f"PNG, palette of {depth} bits with opacity", contents, right)
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    yield kind("PNG, gray, 16 bits", png(deep, 16, 0), (deep >> 8).astype(np.uint8))
    color = png_chunk(b"tRNS", struct.pack(">H", int(deep[20, 30])))
    right = np.where(deep == deep[20, 30], 255, deep >> 8).astype(np.uint8)
    yield kind("PNG, gray, 16 bits, a transparent shade", png(deep, 16, 0, color), right)
    both = np.dstack([deep, opacity.astype(np.uint16) * 257])
    right = over_white(np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2), opacity)
    yield kind("PNG, gray, 16 bits with opacity", png(both, 16, 4), right)
    wide = pixels.astype(np.uint16) * 257
    yield kind("PNG, RGB, 16 bits", png(wide, 16, 2), pixels)
    contents = png(np.dstack([wide, opacity.astype(np.uint16) * 257]), 16, 6)
    yield kind("PNG, RGB, 16 bits with opacity", contents, blended)


def _gifs() -> Iterator[PhotoKind]:
    indices, colors = indexed()
    right = colors[indices]
    clear = np.where((indices == 3)[..., None], 255, right).astype(np.uint8)
    placed = np.full((HEIGHT + 9, WIDTH + 12, 3), 255, np.uint8)
    placed[4 : 4 + HEIGHT, 7 : 7 + WIDTH] = right
    canvas = (WIDTH + 12, HEIGHT + 9)
    beyond = np.full((HEIGHT + 4, WIDTH + 7, 3), 255, np.uint8)
    beyond[4:, 7:] = right
    several = [indices, indices[::-1], (indices + 1) % 16]
    huge = bytearray(gif(several[:2], colors))
    second = huge.rindex(b"\x2c\0\0\0\0")
    huge[second + 5 : second + 9] = struct.pack("<HH", 65535, 65535)
    for name, contents, pixels in (
        ("GIF", gif([indices], colors), right),
        ("GIF with a transparent color", gif([indices], colors, transparent=3), clear),
        ("GIF, colors of the frame", gif([indices], colors, own_colors=True), right),
        ("GIF, frame smaller than the screen", gif([indices], colors, canvas, (7, 4)), placed),
        ("GIF, frame beyond the screen", gif([indices], colors, (20, 20), (7, 4)), beyond),
        ("GIF, animated", gif(several, colors), right),
        ("GIF, animated, with a transparent color", gif(several, colors, transparent=3), clear),
        ("GIF, huge second frame", bytes(huge), right),
        ("GIF without its last byte", gif([indices], colors)[:-1], right),
        ("GIF, interlaced", saved(palette_image(indices, colors), "GIF", interlace=1), right),
    ):
        yield PhotoKind(name, f"{_file(name)}.gif", contents, pixels)


def _bmps() -> Iterator[PhotoKind]:
    pixels, opacity = drawing(), opacity_ramp()
    stored = pixels[..., ::-1]  # blue first
    flat = stored.reshape(HEIGHT, -1)
    rgbx = np.dstack([stored, np.zeros_like(opacity)]).reshape(HEIGHT, -1)
    rgba = np.dstack([stored, opacity]).reshape(HEIGHT, -1)
    usual = (0xFF0000, 0xFF00, 0xFF)

    def kind(name: str, contents: bytes, right: np.ndarray, tolerance: int = 0) -> PhotoKind:
        return PhotoKind(name, f"{_file(name)}.bmp", contents, right, tolerance)

    yield kind("BMP, 24 bits", bmp(flat, 24, WIDTH), pixels)
    yield kind("BMP, 24 bits, top row first", bmp(flat, 24, WIDTH, top_down=True), pixels)
    yield kind("BMP, 32 bits", bmp(rgba, 32, WIDTH), pixels)
    contents = bmp(rgba, 32, WIDTH, masks=(*usual, 0xFF000000), compression=3)
    yield kind("BMP, 32 bits with opacity", contents, over_white(pixels, opacity))
    contents = bmp(rgbx, 32, WIDTH, masks=(*usual, 0xFF000000), compression=3)
    yield kind("BMP, 32 bits, opacity left at zero", contents, pixels)
    contents = bmp(rgbx, 32, WIDTH, masks=usual, compression=3)
    yield kind("BMP, 32 bits with masks", contents, pixels)
    for bits in (1, 4, 8):
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        indices = (x // 3 + y // 5) % min(2**bits, 30)
        colors = np.random.default_rng(bits).integers(0, 256, (2**bits, 4), dtype=np.uint8)
        depth = np.unpackbits(indices.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows, right = np.packbits(depth.reshape(HEIGHT, -1), axis=1), colors[indices][..., 2::-1]
        name = f"BMP, palette of {bits} bit{'s' * (bits > 1)}"
        yield kind(name, bmp(rows, bits, WIDTH, palette=colors.tobytes()), right)
    few = colors[:30].tobytes()
    yield kind("BMP, palette of 30 colors", bmp(rows, 8, WIDTH, palette=few, colors=30), right)
    gray = pixels[..., 0]
    shades = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1).tobytes()
    right = np.repeat(gray[..., None], 3, axis=2)
    yield kind("BMP, gray", bmp(gray, 8, WIDTH, palette=shades), right)
    for green, masks in ((5, ()), (5, (0x7C00, 0x3E0, 0x1F)), (6, (0xF800, 0x7E0, 0x1F))):
        levels = np.array([31, 2**green - 1, 31])
        parts = np.round(pixels / 255 * levels).astype(np.uint16)
        values = parts[..., 0] << (5 + green) | parts[..., 1] << 5 | parts[..., 2]
        rows = values.astype("<u2").view(np.uint8).reshape(HEIGHT, -1)
        contents = bmp(rows, 16, WIDTH, masks=masks, compression=3 if masks else 0)
        name = f"BMP, 16 bits, {green} of green{' with masks' if masks and green == 5 else ''}"
        yield kind(name, contents, np.round(parts * 255 / levels).astype(np.uint8), 1)


def _webps() -> Iterator[PhotoKind]:
    if not features.check("webp"):
        return
    pixels, opacity = drawing(), opacity_ramp()
    image, rgba = Image.fromarray(pixels), Image.fromarray(np.dstack([pixels, opacity]))
    other = Image.fromarray(255 - pixels)
    contents = saved(image, "WEBP", quality=90)
    yield PhotoKind("WebP", "webp.webp", contents, _by_pillow(contents), LOSSY)
    contents = saved(image, "WEBP", lossless=True)
    yield PhotoKind("WebP, lossless", "webp_lossless.webp", contents, pixels)
    contents = saved(rgba, "WEBP", lossless=True, exact=True)
    right = over_white(pixels, opacity)
    yield PhotoKind("WebP, lossless with opacity", "webp_opacity.webp", contents, right, 1)
    contents = saved(rgba, "WEBP", quality=90)
    with Image.open(io.BytesIO(contents)) as photo:
        shown = np.asarray(photo.convert("RGBA"))
    right = over_white(shown[..., :3], shown[..., 3])
    yield PhotoKind("WebP with opacity", "webp_lossy_opacity.webp", contents, right, LOSSY)
    for name, first, options in (
        ("WebP, animated", image, {"lossless": True}),
        ("WebP, animated, lossy", image, {"quality": 90}),
        ("WebP, animated with opacity", rgba, {"quality": 90}),
        ("WebP, animated, lossless with opacity", rgba, {"lossless": True, "exact": True}),
    ):
        contents = saved(first, "WEBP", save_all=True, append_images=[other], **options)
        with Image.open(io.BytesIO(contents)) as photo:
            shown = np.asarray(photo.convert("RGBA"))
        right = over_white(shown[..., :3], shown[..., 3])
        yield PhotoKind(name, f"{_file(name)}.webp", contents, right, LOSSY)


def _others() -> Iterator[PhotoKind]:
    pixels, opacity = drawing(), opacity_ramp()
    image, rgba = Image.fromarray(pixels), Image.fromarray(np.dstack([pixels, opacity]))
    right = over_white(pixels, opacity)
    yield PhotoKind("TIFF", "tiff.tif", saved(image, "TIFF"), pixels)
    yield PhotoKind("TIFF with opacity", "tiff_opacity.tif", saved(rgba, "TIFF"), right, 1)
    contents = saved(image, "TIFF", save_all=True, append_images=[Image.fromarray(255 - pixels)])
    yield PhotoKind("TIFF, several pages", "tiff_pages.tif", contents, pixels)
    contents = saved(image, "TIFF", compression="tiff_lzw")
    yield PhotoKind("TIFF, compressed", "tiff_lzw.tif", contents, pixels)
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    right = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2)
    contents = saved(Image.fromarray(deep), "TIFF")
    yield PhotoKind("TIFF, gray, 16 bits", "tiff_16_bits.tif", contents, right)
    for name, file, form in (
        ("HEIC", "heic.heic", "HEIF"),
        ("AVIF", "avif.avif", "AVIF"),
        ("JPEG XL", "jxl.jxl", "JXL"),
    ):
        if can_write(form):
            contents = saved(image, form, quality=90)
            yield PhotoKind(name, file, contents, _by_pillow(contents), LOSSY)


def _turned() -> Iterator[PhotoKind]:
    image = Image.fromarray(drawing())
    for big_endian in (False, True):
        for orientation in range(1, 9):
            block = exif(orientation, big_endian)
            where = f"orientation {orientation}, {'big' if big_endian else 'little'}-endian"
            for form, options in (
                ("JPEG", {"quality": 95}),
                ("PNG", {}),
                ("WEBP", {"lossless": True}),
            ):
                if form == "WEBP" and not features.check("webp"):
                    continue
                data = b"Exif\0\0" + block if form == "JPEG" else block
                contents = saved(image, form, exif=data, **options)
                name = f"{'WebP' if form == 'WEBP' else form}, {where}"
                tolerance = LOSSY if form == "JPEG" else 0
                ending = "jpg" if form == "JPEG" else form.lower()
                file = f"turned_{orientation}_{'big' if big_endian else 'little'}.{ending}"
                yield PhotoKind(name, file, contents, _by_pillow(contents), tolerance)
    contents = saved(image, "TIFF", tiffinfo={0x0112: 6})
    right = np.rot90(drawing(), -1)
    yield PhotoKind("TIFF, orientation 6", "tiff_turned.tif", contents, right)


def _broken() -> Iterator[PhotoKind]:
    pixels = drawing()
    image = Image.fromarray(pixels)
    indices, colors = indexed()
    whole = "not a whole"
    png, animation = saved(image, "PNG"), gif([indices], colors)
    flat = pixels[..., ::-1].reshape(HEIGHT, -1)
    header = png[:16] + struct.pack(">II", 14_000, 14_000) + png[24:29]
    header += struct.pack(">I", zlib.crc32(header[12:29]))
    for name, file, contents, problem in (
        ("JPEG, cut", "cut.jpg", saved(image, "JPEG")[:-40], whole),
        ("PNG, cut", "cut.png", png[:-40], whole),
        ("PNG without its end (IEND)", "no_end.png", png[:-12], whole),
        ("GIF, cut by two bytes", "cut_by_two.gif", animation[:-2], whole),
        ("BMP, cut", "cut.bmp", bmp(flat, 24, WIDTH)[:-40], whole),
        ("BMP, compressed", "rle.bmp", bmp(flat, 8, WIDTH, compression=1), "kind of BMP"),
        ("WebP, cut", "cut.webp", saved(image, "WEBP")[:-40], whole),
        ("TIFF, cut", "cut.tif", saved(image, "TIFF")[:-400], whole),
        ("text", "text.jpg", b"no photo at all", whole),
        ("PNG of 196 million pixels", "huge.png", header + png[33:], "more than"),
    ):
        yield PhotoKind(name, file, contents, None, problem=problem)
