"""What the demo's page is made of, without a browser."""

import csv
import dataclasses
import io
import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from photo_files import encoded, picture
from PIL import Image

from biam_tf.contact_sheet import overlay_heat
from biam_tf.errors import UserError
from biam_tf.shape_painter import OBJECT_CLASSES
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from serving import client as client_command
from serving.demo_page.class_list import KnownClasses
from serving.demo_page.downloads import as_csv, as_json, command_line, python_code, rows
from serving.demo_page.evidence import as_data_uri, deciding_regions, draw_evidence, outline_regions
from serving.demo_page.html_parts import bar_scale, ranked_bars
from serving.demo_page.photo_files import PhotoFile, open_photo_file, read_picture
from serving.demo_page.sample_pictures import draw_samples
from serving.demo_page.served_model import ExportedModel, connect, read_newest
from serving.demo_page.tag_results import TagResults, show_panel
from serving.demo_page.tagging import ServerGone, TaggedPhoto, cuts_of, tag_photo
from serving.indexing.region_embedder import pooled_regions
from serving.rpc.tagging_client import TaggingError


@pytest.fixture
def tagged(rng):
    """A photo of which nothing but the answer is there."""
    maps = rng.normal(size=(3, 4, 5)).astype(np.float32)
    scores = -np.sort(-maps.reshape(12, 5), axis=0)[:4].mean(axis=0)
    return TaggedPhoto(
        photo=PhotoFile(None, "a.jpg", (8, 6)),
        names=("dog", "red car", "beach", "cat", "<b>${7*7} {{x}}"),
        groups=("seen", "seen", "unseen", "seen", "unseen"),
        scores=scores,
        thresholds=Thresholds(
            names=("dog", "red car", "beach", "cat", "<b>${7*7} {{x}}"),
            cuts=np.sort(scores)[[0, 4, 2, 1, 3]],
            slopes=np.array([1.0, 2.0, 0.5, 1.0, 3.0]),
            offsets=np.array([0.0, -1.0, 1.0, 0.5, 0.0]),
            sources=("own",) * 5,
            global_slope=1.0,
            global_offset=0.0,
            global_logit=0.0,
            fitted_on={},
        ),
        response_maps=maps,
        pooled=4,
    )


# Photos


def test_a_text_file_called_jpg_is_no_photo(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("a text")
    with pytest.raises(UserError, match=r"^notes\.jpg: not a whole JPEG, .* or WebP photo$"):
        open_photo_file(path)


def test_a_photo_is_shown_at_the_size_asked_for(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG", (30, 60)))
    assert open_photo_file(path).size == (30, 60)
    assert read_picture(path, 120).size == (60, 120)
    path.write_bytes(encoded("PNG", (30, 60))[:300])
    with pytest.raises(UserError, match=r"a\.png: cannot be displayed"):
        read_picture(path, 120)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_photo_of_100_megapixels_is_refused_by_the_server_and_never_decoded(
    served, tmp_path, monkeypatch
):
    path = tmp_path / "wall.png"
    Image.new("1", (10_000, 10_000)).save(path)
    monkeypatch.setattr(Image.Image, "convert", None)
    with pytest.raises(UserError, match=r"wall\.png: more than 64"):
        tag_photo(served.client, served.model, open_photo_file(path), ["red plain star"])


# Answers


def test_a_photo_is_tagged_as_by_the_client(served, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG", (60, 50)))
    names = ["red plain star", "Blue striped ring"]
    found = tag_photo(served.client, served.model, open_photo_file(path), names)
    assert served.client.answers()
    scores, maps = served.client.explain(path, names)
    np.testing.assert_array_equal(found.scores, scores[0])
    np.testing.assert_array_equal(found.response_maps, maps[0])
    own = dict(zip(served.model.vocabulary.names, served.model.vocabulary.groups, strict=True))
    assert found.groups == (own["red plain star"], own["blue striped ring"])
    assert found.pooled == 3  # as the run was trained
    thresholds = served.model.thresholds.for_names(names)
    np.testing.assert_array_equal(found.thresholds.cuts, thresholds.cuts)


def test_a_server_that_is_gone_is_told_from_a_photo_that_is_refused(tagger_dir, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    photo, model = open_photo_file(path), read_newest(tagger_dir)
    with connect("127.0.0.1:9") as client:
        assert not client.answers()
        with pytest.raises(ServerGone, match="does not answer"):
            tag_photo(client, model, photo, ["red plain star"])


def test_the_regions_that_are_pooled_are_counted_off_the_scores(tagged, rng):
    flat = tagged.response_maps.reshape(12, 5)
    assert pooled_regions(flat, tagged.scores) == 4
    assert pooled_regions(flat, flat.max(axis=0)) == 1
    assert pooled_regions(flat, tagged.scores + rng.normal(size=5)) is None


def test_the_regions_that_decide_have_the_score_as_their_mean(tagged):
    for c in range(5):
        regions = deciding_regions(tagged.response_maps[:, :, c], 4)
        assert regions.sum() == 4
        mean = tagged.response_maps[:, :, c][regions].mean()
        np.testing.assert_allclose(mean, tagged.scores[c], rtol=1e-6)


def test_the_outline_goes_around_the_regions_and_not_between_them():
    regions = np.zeros((4, 4), bool)
    regions[1:3, 1:3] = True
    drawn = Image.new("RGB", (400, 400))
    outline_regions(drawn, regions)
    white = np.asarray(drawn).min(axis=-1) == 255
    assert white[100, 110:290].all() and white[110:290, 300].all()
    assert not white[105:296, 105:296].any() and not white[:90].any()


def test_evidence_is_strongest_where_the_map_is(tagged):
    photo = picture((160, 120))
    heat = np.zeros((3, 4))
    heat[2, 3] = 5.0
    drawn = np.asarray(draw_evidence(photo, heat, None)).astype(float)
    changed = np.abs(drawn - np.asarray(draw_evidence(photo, np.zeros((3, 4)), None)))
    assert changed[90:, 130:].mean() > 20 * max(changed[:40, :40].mean(), 0.1)


def test_as_much_of_the_color_is_kept_as_asked_for():
    photo, nothing = picture((40, 30)), np.zeros((3, 4))
    np.testing.assert_array_equal(np.asarray(overlay_heat(photo, nothing, 1.0)), np.asarray(photo))
    gray = np.asarray(overlay_heat(photo, nothing)).astype(float)
    half = np.asarray(overlay_heat(photo, nothing, 0.5)).astype(float)
    np.testing.assert_allclose(half, (gray + np.asarray(photo)) / 2, atol=0.5)


def test_bars_are_ranked_and_say_what_reaches_its_threshold(tagged):
    shown = ranked_bars(tagged, 5, None, chosen=1)
    places = [int(place) for place in re.findall(r'data-choice="(\d+)"', shown)]
    assert places == list(np.argsort(-tagged.scores))
    lengths = [float(length) for length in re.findall(r'fill" style="width:([\d.]+)%', shown)]
    thresholds = tagged.thresholds
    logits = thresholds.slopes * np.stack([tagged.scores, thresholds.cuts]) + thresholds.offsets
    probabilities, cuts = 100 / (1 + np.exp(-logits))
    np.testing.assert_allclose(lengths, probabilities[places], atol=0.006)
    marks = [float(mark) for mark in re.findall(r'cut" style="left:([\d.]+)%', shown)]
    np.testing.assert_allclose(marks, cuts[places], atol=0.006)
    # One number and one word per tag.
    numbers = re.findall(r'bar-score">([^<]*)<', shown)
    assert numbers == [f"{probabilities[c]:.0f} %" for c in places]
    verdicts = re.findall(r'verdict">([^<]*)<', shown)
    reached = (tagged.scores >= thresholds.cuts)[places]
    assert verdicts == ["✓ yes" if yes else "no" for yes in reached]
    assert shown.count(" given") == reached.sum()
    raw = re.findall(r'raw">score ([^<]*)<', ranked_bars(tagged, 5, None, raw=True))
    assert raw == [f"{score:.2f}" for score in tagged.scores[places]]
    assert shown.count('aria-pressed="true"') == 1 and shown.count(">unseen<") == 2
    assert not set("${}") & set(shown) and "<b>" not in shown


def test_a_pretrained_tagger_calls_no_class_unseen(tagged):
    def model(*groups):
        names = tuple("abc"[: len(groups)])
        vocabulary = Vocabulary(names, np.eye(len(names), dtype=np.float32), groups)
        known = KnownClasses(names, any_phrase=True)
        return ExportedModel(pathlib.Path("models/m/1"), vocabulary, known, None, frozenset())

    assert model("seen", "unseen").groups(["b", "a", "other"]) == ["unseen", "seen", "unseen"]
    pretrained = model("unseen", "unseen")
    assert pretrained.groups(["a", "other"]) == ["", ""]
    alike = dataclasses.replace(tagged, groups=("",) * 5)
    shown = ranked_bars(alike, 5, None)
    assert shown.count('class="bar ') == 5 and "unseen" not in shown
    assert {row["group"] for row in rows(alike, alike.scores > 0)} == {"unseen"}


def test_one_probability_for_all_classes_replaces_the_calibrated_thresholds(tagged):
    for level in (0.2, 0.5, 0.9):
        reached = tagged.scores >= cuts_of(tagged, level)
        np.testing.assert_array_equal(reached, tagged.probabilities >= level)
        assert ranked_bars(tagged, 5, level).count(" given") == reached.sum()


def test_without_calibration_one_score_does(tagged):
    plain = dataclasses.replace(tagged, thresholds=None)
    middle = float(np.median(tagged.scores))
    assert ranked_bars(plain, 5, middle).count(" given") == 3
    assert "verdict" not in ranked_bars(plain, 5, None) and plain.probabilities is None
    lengths = re.findall(r'fill" style="width:([\d.]+)%', ranked_bars(plain, 5, None))
    assert len(lengths) == 5 and lengths == sorted(lengths, key=float, reverse=True)


def test_scores_of_one_model_have_one_scale_on_both_sides(tagged):
    left = dataclasses.replace(tagged, thresholds=None)
    others = left.ranked(5)[1:]
    right = dataclasses.replace(
        left,
        names=tuple(left.names[c] for c in others),
        groups=tuple(left.groups[c] for c in others),
        scores=left.scores[others],
    )
    scale = bar_scale([left, right], 5, None)
    lengths = [
        re.findall(r"width:([\d.]+)%", ranked_bars(side, 5, None, fixed=True, scale=scale))
        for side in (left, right)
    ]
    assert lengths[0][1:] == lengths[1] and lengths[0][0] == "100.0"
    assert re.findall(r"width:([\d.]+)%", ranked_bars(right, 5, None))[0] == "100.0"


def test_a_tag_below_its_threshold_was_found_nowhere(tagged, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG", (40, 30)))
    photo = dataclasses.replace(tagged, photo=open_photo_file(path))
    results = TagResults((photo,), photo.names)
    plain = as_data_uri(read_picture(path, 720))
    for c in range(5):
        shown = show_panel(dataclasses.replace(results, class_index=c), None)
        below = tagged.scores[c] < tagged.thresholds.cuts[c]
        assert (plain in shown) == ("The photo a.png" in shown) == below
        assert ("was found in a.png" in shown) == ("the 4 regions" in shown) == (not below)
    assert "<img" not in show_panel(dataclasses.replace(results, stale=True), None)


def test_the_samples_are_of_what_the_model_knows(tmp_path):
    shapes = draw_samples([each.name for each in OBJECT_CLASSES], tmp_path)
    assert [path.name for path in shapes] == ["shapes 1.png", "shapes 2.png", "shapes 3.png"]
    scenery = draw_samples(["dog", "red plain star"], tmp_path)
    assert [path.name for path in scenery] == ["beach.png", "street.png", "mountains.png"]
    sizes = {open_photo_file(path).size for path in scenery}
    assert sizes == {(560, 420)} and len({path.read_bytes() for path in scenery}) == 3


def test_downloads_hold_every_class_best_first(tagged):
    table = [rows(tagged, tagged.scores >= tagged.thresholds.cuts)]
    read = list(csv.DictReader(io.StringIO(as_csv(table))))
    order = np.argsort(-tagged.scores)
    assert [row["tag"] for row in read] == [tagged.names[c] for c in order]
    np.testing.assert_allclose([float(row["score"]) for row in read], tagged.scores[order])
    assert [row["given"] for row in read] == [
        str(bool(given)) for given in (tagged.scores >= tagged.thresholds.cuts)[order]
    ]
    (photo,) = json.loads(as_json(table))
    assert photo["photo"] == "a.jpg"
    assert [tag["tag"] for tag in photo["tags"]] == [row["tag"] for row in read]


def test_the_command_line_that_is_shown_prints_the_same_scores(
    served, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's a.png").write_bytes(encoded("PNG"))
    names = ["red plain star", "blue striped ring"]
    shown = command_line(served.address, ["it's a.png"], names, 2, True)
    arguments = shlex.split(shown.replace("\\\n", ""))
    assert arguments[:3] == ["python", "-m", "serving.client"]
    assert client_command.main([*arguments[3:], "--json"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    variables = {}
    exec(python_code(served.address, ["it's a.png"], names, True), variables)
    expected = dict(zip(names, variables["scores"][0].tolist(), strict=True))
    assert {tag["name"]: tag["score"] for tag in printed["tags"]} == pytest.approx(expected)
    assert (tmp_path / "evidence.png").is_file()


def test_the_server_names_the_classes_nearest_to_unknown_ones(served):
    with pytest.raises(TaggingError, match=r"own names; did you mean 'red plain star'\?\]$"):
        served.client.embed(["red plain circle", "Red plain sta"])
    with pytest.raises(TaggingError, match=r"'red plain star' for 'red plain sta'\?\]$"):
        served.client.embed(["red plain sta", "zebra"])
    with pytest.raises(TaggingError, match=r"only its own names\]$"):
        served.client.embed(["zebra"])


def test_many_classes_are_read_from_a_file(served, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    names = [served.model.vocabulary.names[i % 72].upper() + " " * (i // 72) for i in range(201)]
    (tmp_path / "classes.txt").write_text("\n".join(dict.fromkeys(names[:72])))
    code = python_code(served.address, ["a.png"], names, False)
    variables = {}
    exec(code, variables)
    assert variables["scores"].shape == (1, 72) and "explain" not in code
    shown = command_line(served.address, ["a.png"], names, 1, False)
    assert client_command.main(shlex.split(shown.replace("\\\n", ""))[3:]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
