import numpy as np
import pytest
from PIL import Image
from plots import assert_picture

from biam_tf import contact_sheet
from biam_tf.contact_sheet import draw_contact_sheet, make_contact_sheet

pytestmark = pytest.mark.unit

NAMES = ["red square", "blue disc", "green star", "a name that is much too long for " + 9 * "it "]
GROUPS = ["seen", "unseen", "seen", "unseen"]


@pytest.fixture
def sheet(rng):
    """Arguments for a sheet of three photos, one of them upright."""
    sizes = [(64, 96), (96, 64), (80, 80)]
    return {
        "photos": [np.full((*size, 3), 200, np.uint8) for size in sizes],
        "names": NAMES,
        "groups": GROUPS,
        "scores": rng.normal(size=(3, 4)),
        "labels": np.array([[1, -1, 0, 1], [-1, -1, -1, -1], [1, 1, 1, 1]]),
        "response_maps": rng.normal(size=(3, 5, 7, 4)).astype(np.float32),
    }


def drawn(path, **arguments):
    draw_contact_sheet(path, **arguments)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def has_color(picture, color):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(picture - wanted).sum(axis=-1) < 3).any()


def test_right_wrong_and_unseen_tags_have_their_colors(sheet, tmp_path):
    picture = drawn(tmp_path / "sheet.png", **sheet)
    for color in (contact_sheet.RIGHT, contact_sheet.WRONG, contact_sheet.UNSEEN):
        assert has_color(picture, color)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_labels_and_response_maps_may_be_left_out(sheet, tmp_path):
    with_all = drawn(tmp_path / "sheet.png", **sheet)
    plain = drawn(tmp_path / "sheet.png", **{**sheet, "labels": None, "response_maps": None})
    assert plain.shape[0] < with_all.shape[0]
    assert not has_color(plain, contact_sheet.RIGHT) and not has_color(plain, contact_sheet.WRONG)


@pytest.mark.integration
def test_columns_tags_and_maps_shape_the_sheet(sheet, tmp_path):
    def shape(**changes):  # without a file, which takes most of the time
        width, height = make_contact_sheet(**{**sheet, **changes}).size
        return height, width

    assert drawn(tmp_path / "sheet.png", **sheet).shape[:2] == shape()
    assert shape(columns=3)[1] > shape(columns=2)[1] > shape(columns=1)[1]
    assert shape(columns=1)[0] > shape(columns=2)[0] > shape(columns=3)[0]
    assert shape(tags=50, maps=50) == shape(tags=4, maps=3)
    assert shape(maps=0)[0] < shape(maps=1)[0]


def test_a_caption_stands_under_its_photo(sheet):
    plain = make_contact_sheet(**sheet)
    captions = ["a.png", "", "a name that is much too long for " + 9 * "it " + ".png"]
    captioned = make_contact_sheet(**sheet, captions=captions)
    assert captioned.height == plain.height + 2 * contact_sheet.CAPTION
    assert captioned.width == plain.width


def test_one_photo_one_class_and_flat_scores_and_maps_can_be_drawn(tmp_path):
    photo = np.zeros((5, 300, 3), np.uint8)
    maps = np.full((1, 1, 1, 1), np.inf)
    drawn(tmp_path / "s.png", photos=[photo], names=["a"], groups=["seen"], scores=[[0.0]])
    assert_picture(tmp_path / "s.png", side=50)
    drawn(
        tmp_path / "s.png",
        photos=photo[None],
        names=["a"],
        groups=["seen"],
        scores=[[-np.inf]],
        response_maps=maps,
    )
    assert_picture(tmp_path / "s.png", side=50)


def test_heat_is_where_the_response_is():
    heat = np.zeros((4, 4))
    heat[0, 3] = 7
    photo = Image.new("RGB", (80, 80), (120, 120, 120))
    picture = np.asarray(contact_sheet.overlay_heat(photo, heat)).astype(int)
    assert picture[5, 75].sum() > picture[75, 5].sum() + 100


def test_responses_up_to_the_median_leave_the_photo_as_it_is():
    heat = np.ones((6, 6))
    heat[0, :3], heat[5, 5] = -9, 4
    photo = Image.new("RGB", (90, 90), (120, 120, 120))
    picture = np.asarray(contact_sheet.overlay_heat(photo, heat)).astype(int)
    assert (picture[:45, :45] == 120).all() and picture[85, 85].sum() > 480


def test_a_long_list_of_missed_tags_is_cut():
    draw = contact_sheet.ImageDraw.Draw(Image.new("RGB", (10, 10)))
    names = [f"class {i}" for i in range(40)]
    font = contact_sheet._font(14)
    text = contact_sheet._shortened_list(draw, "missed: ", names, 300, font)
    assert text.startswith("missed: class 0, class 1") and text.endswith("more")
    assert draw.textlength(text, font) <= 300
    assert contact_sheet._shortened_list(draw, "missed: ", [], 300, font) == "missed: none"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"photos": []}, "no photos"),
        ({"photos": [np.zeros((8, 8, 3))] * 3}, "photo 0 must be uint8"),
        ({"photos": [np.zeros((8, 8), np.uint8)] * 3}, "photo 0 must be uint8"),
        ({"scores": np.zeros((3, 5))}, "scores do not match 3 photos and 4 names"),
        ({"groups": ["seen"]}, "groups do not match"),
        ({"labels": np.zeros((2, 4))}, "labels do not match"),
        ({"response_maps": np.zeros((3, 5, 7, 3))}, "response_maps do not match"),
        ({"captions": ["one"]}, "captions do not match"),
        ({"scores": np.full((3, 4), np.nan)}, "12 scores are NaN"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(sheet, tmp_path, change, problem):
    with pytest.raises(ValueError, match=problem):
        draw_contact_sheet(tmp_path / "sheet.png", **{**sheet, **change})
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_sheet(sheet, tmp_path, monkeypatch):
    path = tmp_path / "sheet.png"
    draw_contact_sheet(path, **sheet)
    before = path.read_bytes()

    def fail(self, file, **settings):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        draw_contact_sheet(path, **sheet)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
