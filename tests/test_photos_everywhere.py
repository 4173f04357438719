"""Every reader of photos accepts and refuses the same files."""

import functools
import io
import struct
import sys
import unicodedata
import zlib

import numpy as np
import pytest
import tensorflow as tf
from photo_files import animation, encoded, picture
from PIL import Image, ImageOps

from benchmarks.shared.photo_kinds import photo_kinds
from benchmarks.shared.photo_writers import drawing, exif
from biam_tf.errors import UserError
from biam_tf.photo_decoding import pillow_decoding
from biam_tf.photos import (
    IS_EMPTY,
    MAX_PIXELS,
    NOT_WHOLE,
    UNUSUAL_BMP,
    PhotoError,
    as_sent,
    decode_photo,
    decode_whole_photo,
    decoding_problem,
    exif_orientation,
    open_photo,
    too_large,
)
from serving.demo_page.photo_files import open_photo_file, read_picture
from serving.graph.photo_decoding import photo_decoder
from serving.rpc.photo_tagging import _pixels
from training.data.folder.reader import check_photos, read_folder
from training.data.imports.photo_collection import photo_problem
from training.data.input.photo_reader import find_broken, photo_batches, why_unreadable
from training.description.photo_scan import scan_photos

pytestmark = pytest.mark.integration

SIZE = 32
PYTHON_ENDINGS = ("tif", "dng", "heic", "avif", "jxl")
READABLE = None


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded("PNG")[33:]


def smooth() -> Image.Image:
    y, x = np.mgrid[:40, :60]
    return Image.fromarray(np.stack([4 * x, 6 * y, 2 * (x + y)], axis=-1).astype(np.uint8))


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16))


def huge_second_frame() -> bytes:
    photo = animation(2)
    frame = photo.rindex(b"\x2c\0\0\0\0")
    return photo[: frame + 5] + struct.pack("<HH", 65535, 65535) + photo[frame + 9 :]


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6  # orientation: to be turned by 90 degrees
    return exif


PHOTOS = {
    "jpeg.jpg": (encoded("JPEG"), READABLE),
    "progressive.jpg": (encoded("JPEG", progressive=True), READABLE),
    "gray.jpg": (saved(picture().convert("L"), "JPEG"), READABLE),
    "cmyk.jpg": (saved(smooth().convert("CMYK"), "JPEG"), READABLE),
    "rotated.jpg": (saved(smooth(), "JPEG", exif=rotated()), READABLE),
    "png.png": (encoded("PNG"), READABLE),
    "alpha.png": (saved(smooth().convert("RGBA"), "PNG"), READABLE),
    "palette.png": (saved(smooth().quantize(), "PNG"), READABLE),
    "two_shades.png": (saved(smooth().convert("1"), "PNG"), READABLE),
    "gray_alpha.png": (saved(smooth().convert("LA"), "PNG"), READABLE),
    "16_bits.png": (saved(sixteen_bits(), "PNG"), READABLE),
    "1x1.png": (encoded("PNG", (1, 1)), READABLE),
    "wrong_ending.jpg": (encoded("PNG"), READABLE),
    "gif.gif": (encoded("GIF"), READABLE),
    "animated.gif": (animation(), READABLE),
    "huge_second_frame.gif": (huge_second_frame(), READABLE),
    "without_trailer.gif": (encoded("GIF")[:-1], READABLE),
    "bmp.bmp": (encoded("BMP"), READABLE),
    "gray.bmp": (saved(picture().convert("L"), "BMP"), READABLE),
    "palette.bmp": (saved(picture().quantize(), "BMP"), READABLE),
    "alpha.bmp": (saved(smooth().convert("RGBA"), "BMP"), READABLE),
    "two_shades.bmp": (saved(smooth().convert("1"), "BMP"), READABLE),
    "cut.jpg": (encoded("JPEG")[:-40], NOT_WHOLE),
    "cut.png": (encoded("PNG")[:-40], NOT_WHOLE),
    "cut_at_the_end.png": (encoded("PNG")[:-4], NOT_WHOLE),
    "cut.gif": (encoded("GIF")[:-40], NOT_WHOLE),
    "cut_at_the_end.gif": (encoded("GIF")[:-2], NOT_WHOLE),
    "cut.bmp": (encoded("BMP")[:-40], NOT_WHOLE),
    "header_only.png": (encoded("PNG")[:20], NOT_WHOLE),
    "empty.jpg": (b"", IS_EMPTY),
    "text.jpg": (b"no photo at all", NOT_WHOLE),
    "web.webp": (encoded("WEBP"), READABLE),
    "camera_raw.dng": (b"II*\0" + bytes(500), "not a whole TIFF photo"),
    "large.png": (png_claiming(10_000, 7_000), too_large()),
    "whole_and_large.png": (saved(Image.new("1", (10_000, 6_401)), "PNG"), too_large()),
    "huge.png": (png_claiming(50_000, 50_000), too_large()),
}
KINDS = {kind.file: kind for kind in photo_kinds()}
PHOTOS |= {name: (kind.contents, READABLE) for name, kind in KINDS.items() if kind.problem is None}
PHOTOS |= {
    "rle.bmp": (KINDS["rle.bmp"].contents, UNUSUAL_BMP),
    "no_end.png": (KINDS["no_end.png"].contents, NOT_WHOLE),
    "cut_by_two.gif": (KINDS["cut_by_two.gif"].contents, NOT_WHOLE),
    "cut.webp": (KINDS["cut.webp"].contents, NOT_WHOLE),
    "cut.tif": (KINDS["cut.tif"].contents, "not a whole TIFF photo"),
    "196_megapixels.png": (KINDS["huge.png"].contents, too_large()),
}
NAMES = tuple(PHOTOS)
# What a server is sent as it is; other formats are converted by the client.
SENT = tuple(name for name in NAMES if name.rpartition(".")[2] not in PYTHON_ENDINGS)
EXPECTED = {name: verdict for name, (_, verdict) in PHOTOS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name, (contents, _) in PHOTOS.items():
        (folder / name).write_bytes(contents)
    rows = "".join(f"{name},train,a\n" for name in NAMES)
    (folder / "annotations.csv").write_text("image,split,labels\n" + rows)
    (folder / "classes.csv").write_text("name,group\na,seen\n")
    return folder


def described(folder, name):
    return scan_photos(folder, [name])[0].problem


def imported(folder, name):
    return photo_problem((folder / name).read_bytes())


def trained_on(folder, name):
    return why_unreadable(folder, name)


@functools.cache
def decoder():
    return photo_decoder(SIZE, MAX_PIXELS)


def served(folder, name):
    try:
        decoder()(tf.constant([(folder / name).read_bytes()]))
    except tf.errors.InvalidArgumentError as error:
        reasons = (too_large(), NOT_WHOLE, UNUSUAL_BMP)
        return next(reason for reason in reasons if f"images[0]: {reason}" in error.message)
    return None


def uploaded(folder, name):
    return refusal(lambda: open_photo_file(folder / name))


def shown_on_the_page(folder, name):
    return refusal(lambda: read_picture(folder / name, SIZE))


def drawn_by_the_client(folder, name):
    return refusal(lambda: _pixels(name, (folder / name).read_bytes()))


def refusal(read):
    try:
        read()
    except UserError as error:
        return str(error).rpartition(": ")[2]
    return None


DOORS = (described, imported, trained_on, uploaded, shown_on_the_page, drawn_by_the_client)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_a_photo_is_accepted_or_refused_for_the_same_reason(folder, name):
    answers = {door.__name__: door(folder, name) for door in DOORS}
    assert answers == {door.__name__: EXPECTED[name] for door in DOORS}


@pytest.mark.parametrize("name", SENT)
def test_the_serving_graph_accepts_the_same_photos(folder, name):
    expected = NOT_WHOLE if EXPECTED[name] == IS_EMPTY else EXPECTED[name]
    assert served(folder, name) == expected


def test_training_leaves_out_exactly_the_refused_photos(folder):
    broken = {photo.image: photo.reason for photo in find_broken(folder, NAMES, SIZE)}
    assert broken == {name: verdict for name, verdict in EXPECTED.items() if verdict}
    positions = [int(p) for batch, _ in photo_batches(folder, NAMES, SIZE, 4) for p in batch]
    assert [NAMES[position] for position in positions] == [n for n in NAMES if not EXPECTED[n]]


def test_the_check_before_extraction_names_exactly_the_refused_photos(folder):
    dataset = read_folder(folder, look_for_photos=False)
    with pytest.raises(UserError) as error:
        check_photos(dataset)
    for name, verdict in EXPECTED.items():
        assert (f"photo {name!r}: {verdict}" in str(error.value)) == (verdict is not None)


def in_graph(contents, **settings):
    return decode_whole_photo(tf.constant(contents), in_python=True, **settings).numpy()


@pytest.mark.parametrize("name", [name for name in NAMES if EXPECTED[name] is READABLE])
def test_people_are_shown_the_pixels_of_the_model(folder, name):
    contents = (folder / name).read_bytes()
    shown = np.asarray(open_photo(contents).image, np.float32)
    model = in_graph(contents)
    assert shown.shape == model.shape
    tolerance = 5 if name.endswith(("jpg", "_named.png")) else 1  # decoders of JPEG round
    np.testing.assert_allclose(shown, model, atol=tolerance)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.problem is None])
def test_every_kind_has_its_right_pixels(name):
    kind = KINDS[name]
    for pixels in (in_graph(kind.contents), np.asarray(open_photo(kind.contents).image)):
        assert pixels.shape == kind.pixels.shape
        np.testing.assert_allclose(pixels.astype(int), kind.pixels, atol=kind.tolerance)


def test_a_server_sees_the_pixels_of_training():
    photos = [kind.contents for kind in KINDS.values() if kind.problem is None]
    served = decoder()(tf.constant([as_sent(photo) for photo in photos])).numpy()
    trained = [decode_photo(tf.constant(photo), SIZE, in_python=True) for photo in photos]
    np.testing.assert_array_equal(served, np.stack(trained))


def test_a_saved_graph_reads_what_training_reads(tmp_path):
    module = tf.Module()
    module.read = tf.function(
        lambda contents: decode_whole_photo(contents),
        input_signature=[tf.TensorSpec((), tf.string)],
    )
    tf.saved_model.save(module, tmp_path)
    read = tf.saved_model.load(tmp_path).read
    for name in ("turned_6_big.jpg", "gif__animated.gif", "webp__animated.webp"):
        contents = KINDS[name].contents
        np.testing.assert_array_equal(read(tf.constant(contents)), in_graph(contents))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_orientation_is_followed_as_pillow_does_or_ignored(form, big_endian):
    prefix = b"Exif\0\0" if form == "JPEG" else b""
    for orientation in range(1, 9):
        data = prefix + exif(orientation, big_endian)
        lossless = {"lossless": True} if form == "WEBP" else {}
        contents = saved(Image.fromarray(drawing()), form, exif=data, **lossless)
        with Image.open(io.BytesIO(contents)) as photo:
            stored, upright = np.asarray(photo), np.asarray(ImageOps.exif_transpose(photo))
        tolerance = 6 if form == "JPEG" else 0
        for right, how in ((upright, "follow"), (stored, "ignore")):
            shown = np.asarray(open_photo(contents, orientation=how).image)
            for found in (in_graph(contents, orientation=how), shown):
                assert found.shape == right.shape
                np.testing.assert_allclose(found.astype(int), right, atol=tolerance)


def entry(tag=0x0112, kind=3, count=1, value=6, first=8, entries=1, order="<"):
    start = b"II*\0" if order == "<" else b"MM\0*"
    block = start + struct.pack(order + "IH", first, entries)
    return block + struct.pack(order + "HHIHH", tag, kind, count, value, 0) + bytes(4)


@pytest.mark.parametrize(
    ("block", "orientation"),
    [
        (entry(), 6),
        (entry(order=">"), 6),
        (entry(value=0), 1),
        (entry(value=9), 1),
        (entry(value=65535), 1),
        (entry(kind=2), 1),
        (entry(count=2**32 - 1), 1),
        (entry(first=2**32 - 1), 1),
        (entry(first=60_000), 1),
        (entry(entries=65535), 6),
        (entry(entries=65535, tag=0x0110), 1),
        (entry(entries=0), 1),
        (entry(tag=0x0111), 1),
        (entry()[:12], 1),
        (entry()[:4], 1),
        (b"", 1),
        (b"II*\0", 1),
        (b"XX*\0" + entry()[4:], 1),
    ],
)
def test_malformed_exif_data_are_ignored(block, orientation):
    jpeg = saved(Image.fromarray(drawing()), "JPEG")
    data = b"Exif\0\0" + block
    segment = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    png = saved(Image.fromarray(drawing()), "PNG")
    chunk = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    for contents in (jpeg[:20] + segment + jpeg[20:], png[:-12] + chunk + png[-12:]):
        assert exif_orientation(contents) == orientation
        right = np.rot90(drawing(), -1) if orientation == 6 else drawing()
        shown = np.asarray(open_photo(contents).image)
        assert in_graph(contents).shape == shown.shape == right.shape
        assert decoding_problem(contents) is None


def test_without_its_package_a_format_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    pillow_decoding._can_open.cache_clear()
    heic = b"\0\0\0\x18ftypheic" + bytes(12)
    reason = "reading HEIC photos needs more packages; install them with pip install"
    with pytest.raises(PhotoError, match=reason):
        open_photo(heic)
    assert decoding_problem(heic).startswith(reason)
    with pytest.raises(PhotoError, match=reason):
        as_sent(heic)
    pillow_decoding._can_open.cache_clear()


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_photo_is_found_in_either_unicode_form_of_its_name(tmp_path, listed, stored):
    name = "caf\u00e9/\u00fcber.png"
    path = tmp_path / unicodedata.normalize(stored, name)
    path.parent.mkdir()
    path.write_bytes(encoded("PNG"))
    row = unicodedata.normalize(listed, name)
    (tmp_path / "annotations.csv").write_text(f"image,split,labels\n{row},train,a\n")
    (tmp_path / "classes.csv").write_text("name,group\na,seen\n")
    dataset = read_folder(tmp_path)
    check_photos(dataset)
    assert find_broken(tmp_path, dataset.images, SIZE) == ()


def test_a_smaller_limit_is_kept():
    contents = encoded("PNG", (20, 20))
    with pytest.raises(PhotoError, match="more than 399 pixels"):
        open_photo(contents, max_pixels=399)
    assert decoding_problem(contents, 399) == "more than 399 pixels"
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_photo(tf.constant(contents), SIZE, max_pixels=399)
    assert decode_photo(tf.constant(contents), SIZE, max_pixels=400).shape == (SIZE, SIZE, 3)
