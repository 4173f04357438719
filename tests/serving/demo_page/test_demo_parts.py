"""What the demo's page is made of, without a browser."""

import csv
import dataclasses
import io
import json
import re
import shlex
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded, picture
from PIL import Image
from tiny_server import ready, started

from biam_tf.contact_sheet import overlay_heat
from biam_tf.errors import UserError
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from serving import client as client_command
from serving.demo_page.class_list import (
    MAX_CLASSES,
    KnownClasses,
    UnknownClass,
    replace_class,
    write_classes,
)
from serving.demo_page.downloads import as_csv, as_json, command_line, python_code, rows
from serving.demo_page.evidence import deciding_regions, draw_evidence, outline_regions
from serving.demo_page.html_parts import class_chips, ranked_bars
from serving.demo_page.photo_files import PhotoFile, open_photo_file, read_picture
from serving.demo_page.photo_search import Query, draw_all, region_query, search
from serving.demo_page.served_model import ServedModel, connect, read_newest
from serving.demo_page.tagging import ServerGone, TaggedPhoto, cuts_of, tag_photo
from serving.graph.name_table import Embeddings, NameTable
from serving.indexing.folder_indexes import FolderIndexes
from serving.indexing.region_embedder import pooled_regions

NAMES = ("dog", "red car", "Polar bear", "one, two")


@pytest.fixture(scope="module")
def served(tagger_dir):
    server = ready(started(tagger_dir))
    with connect(server.address) as client:
        yield ServedModel(tagger_dir, server.address, client, server)
    server.stop()


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


# Lists of classes


def test_classes_are_read_from_commas_and_lines_each_once():
    known = KnownClasses(NAMES)
    text = " dog,  red   car\n\nbeach ,dog\none, two\n , \n"
    assert known.read(text) == ["dog", "red car", "beach", "one, two"]
    assert known.read("") == []


def test_what_is_written_is_read_as_the_same():
    known = KnownClasses(NAMES)
    assert known.read(write_classes(NAMES)) == list(NAMES)


def test_more_classes_than_are_scored_at_a_time_are_refused():
    names = [f"class {i}" for i in range(MAX_CLASSES + 1)]
    with pytest.raises(UserError, match=r"10,001 classes; at most 10,000"):
        KnownClasses(NAMES).read("\n".join(names))


def test_a_class_is_replaced_in_its_place_or_left_out():
    assert replace_class(["dog", "ct", "sky"], "ct", "cat") == ["dog", "cat", "sky"]
    assert replace_class(["dog", "ct", "cat"], "ct", "cat") == ["dog", "cat"]
    assert replace_class(["dog", "ct"], "ct", None) == ["dog"]


def test_the_nearest_known_names_are_suggested():
    known = KnownClasses(("green plain cross", "red plain star", "blue ring"))
    (unknown,) = known.unknown(["Blue Ring", "green plane cross"])
    assert unknown == UnknownClass("green plane cross", "green plane cross")
    assert known.suggestions(unknown)[0] == "green plain cross"


def test_of_a_name_made_of_words_the_unknown_word_is_corrected():
    known = KnownClasses((), frozenset("red green car zebra".split()))
    (unknown,) = known.unknown(["Red car", "red zebbra"])
    assert unknown == UnknownClass("red zebbra", "zebbra")
    assert known.suggestions(unknown) == ("red zebra",)


def test_an_emoji_is_unknown_and_nothing_is_near_it():
    known = KnownClasses(NAMES, frozenset({"dog", "cat"}))
    (unknown,) = known.unknown(["🐶"])
    assert unknown.name == "🐶" and known.suggestions(unknown) == ()


def test_names_are_unknown_where_the_model_refuses_them(tmp_path, rng):
    """Against the look-up that is in the exported graph."""
    words = "red Red car t-shirt sky ice cream new_york - polar bear".split()
    file = tmp_path / "vectors.txt"
    lines = [" ".join([word, *map(str, rng.normal(size=5).round(3))]) for word in words]
    file.write_text("\n".join(lines) + "\n")
    vocabulary = Vocabulary(NAMES, rng.normal(size=(4, 5)), ("seen",) * 4)
    table = NameTable(Embeddings.read(vocabulary, file), tmp_path)
    known = KnownClasses(vocabulary.names, frozenset(words))
    pieces = [*words, *"DOG Ice-Cream unknown polar-bear ice_cream New_York -- 🐶".split()]
    made = {" ".join(rng.choice(pieces, size=rng.integers(1, 4))) for _ in range(60)}
    for name in [*made, *NAMES, "polar bear", "POLAR BEAR", "one,"]:
        try:
            table(tf.constant([name]))
            refused = False
        except tf.errors.InvalidArgumentError:
            refused = True
        assert bool(known.unknown([name])) == refused, name


def test_five_thousand_classes_are_checked_and_shown_at_once(rng):
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = frozenset("".join(row) for row in rng.choice(letters, size=(40_000, 7)))
    known = KnownClasses(sorted(words)[:1000], words)
    pasted = [f"zz{i}x {word}" for i, word in enumerate(sorted(words)[:5000])]
    start = time.process_time()
    names = known.read("\n".join(pasted))
    shown = class_chips(known, names, ["unseen"] * len(names))
    assert time.process_time() - start < 20
    assert "5,000 classes, 5,000 unknown" in shown and "and 4,992 more unknown" in shown
    assert len(shown) < 20_000


def test_chips_are_in_the_order_of_the_list_and_escaped():
    known = KnownClasses(NAMES)
    names = ["dog", "<script>${1}{{2}}", "red car"]
    shown = class_chips(known, names, ["seen", "unseen", "seen"])
    assert shown.index(">dog<") < shown.index("&lt;script&gt;") < shown.index(">red car<")
    assert not set("${}`") & set(shown) and "<script" not in shown


# Photos


def test_a_text_file_called_jpg_is_no_photo(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("a text")
    with pytest.raises(UserError, match=r"^notes\.jpg: no JPEG, PNG, GIF or BMP photo$"):
        open_photo_file(path)


def test_a_photo_is_shown_at_the_size_asked_for(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG", (30, 60)))
    assert open_photo_file(path).size == (30, 60)
    assert read_picture(path, 120).size == (60, 120)
    path.write_bytes(encoded("PNG", (30, 60))[:300])
    with pytest.raises(UserError, match=r"a\.png: can't be shown"):
        read_picture(path, 120)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_photo_of_100_megapixels_is_refused_by_the_server_and_never_decoded(
    served, tmp_path, monkeypatch
):
    path = tmp_path / "wall.png"
    Image.new("1", (10_000, 10_000)).save(path)
    monkeypatch.setattr(Image.Image, "convert", None)
    with pytest.raises(UserError, match=r"wall\.png \(10,000 x 10,000 pixels\): more than 64"):
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
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] >= 0
    given = re.findall(r'class="bar (?:seen|unseen)( given)?"\s+data-choice="(\d+)"', shown)
    assert {int(c) for is_given, c in given if is_given} == set(
        np.flatnonzero(tagged.scores >= tagged.thresholds.cuts)
    )
    assert shown.count('aria-pressed="true"') == 1 and shown.count(">unseen<") == 2
    assert not set("${}") & set(shown) and "<b>" not in shown


def test_one_probability_for_all_classes_replaces_the_calibrated_thresholds(tagged):
    for level in (0.2, 0.5, 0.9):
        reached = tagged.scores >= cuts_of(tagged, level)
        np.testing.assert_array_equal(reached, tagged.probabilities >= level)
        assert ranked_bars(tagged, 5, level).count(" given") == reached.sum()


def test_without_calibration_one_score_does(tagged):
    plain = dataclasses.replace(tagged, thresholds=None)
    middle = float(np.median(tagged.scores))
    assert ranked_bars(plain, 5, middle).count(" given") == 3
    assert ranked_bars(plain, 5, None).count(" given") == 5 and plain.probabilities is None


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


# Folders


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six photos and a broken one."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(encoded("PNG", (60, 50), seed))
    (folder / "broken.png").write_bytes(encoded("PNG")[:100])
    return folder


@pytest.fixture(scope="module")
def indexes(tagger_dir, tmp_path_factory, photos):
    """Indexes, of which one is there."""
    found = FolderIndexes(tagger_dir, tmp_path_factory.mktemp("indexes"))
    job = ended(found.start(str(photos)))
    assert job.error is None and (job.done, job.total) == (7, 7)
    return found


def ended(job):
    job.wait(60)
    assert not job.running
    return job


def test_a_folder_without_photos_is_told_of(tagger_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    indexes = FolderIndexes(tagger_dir, tmp_path / "indexes")
    job = ended(indexes.start(str(tmp_path / "empty")))
    assert "empty holds no photo (.jpg" in job.error
    assert indexes.open(str(tmp_path / "empty")) is None
    with pytest.raises(UserError, match="no such folder"):
        indexes.start(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="Name a folder"):
        indexes.start(" ")


def test_only_folders_that_are_allowed_are_searched(tagger_dir, tmp_path, photos):
    (tmp_path / "open").mkdir()
    indexes = FolderIndexes(tagger_dir, tmp_path / "indexes", tmp_path / "open")
    indexes.resolve(str(tmp_path / "open"))
    for outside in (photos, tmp_path, f"{tmp_path}/open/..", "/"):
        with pytest.raises(UserError, match="only folders in"):
            indexes.resolve(str(outside))


def test_two_tabs_that_index_a_folder_share_the_work(tagger_dir, photos, tmp_path, monkeypatch):
    go_on, runs = threading.Event(), []

    def wait_for_both(model_dir, folder, index, reached):
        runs.append(folder)
        go_on.wait(30)
        reached(1, 2)

    monkeypatch.setattr("serving.indexing.folder_indexes.index_photos", wait_for_both)
    indexes = FolderIndexes(tagger_dir, tmp_path / "indexes")
    first, second = indexes.start(str(photos)), indexes.start(str(photos))
    assert first is second and first.running
    indexes.stop(str(photos))
    go_on.set()
    assert ended(first).stopped and runs == [photos]
    assert indexes.start(str(photos)) is not first


def test_work_that_was_stopped_goes_on(tagger_dir, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.indexing.build_index.SHARD_PHOTOS", 2)
    monkeypatch.setattr("serving.indexing.build_index.BATCH_PHOTOS", 2)
    from serving.indexing.build_index import index_photos

    def stop(done, total):
        assert total == 7
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_photos(tagger_dir, photos, tmp_path / "index", stop)
    reached = []
    index_photos(tagger_dir, photos, tmp_path / "index", lambda *far: reached.append(far))
    assert reached == [(4, 7), (6, 7), (7, 7)]


def test_the_best_photos_are_found_as_the_model_would(served, indexes, photos):
    index = indexes.open(str(photos))
    names = ["red plain star", "blue striped ring"]
    found = search(index, Query("two", served.client.embed(names)), 4)
    scores = served.client.tag([photos / path for path in index.photos], names)
    standard = ((scores - scores.mean(axis=0)) / scores.std(axis=0)).mean(axis=1)
    assert list(found.rows) == list(np.argsort(-standard)[:4])
    np.testing.assert_allclose(found.scores, scores.mean(axis=1)[found.rows], atol=1e-2)
    one = search(index, Query("one", served.client.embed(names[:1])), 99)
    assert list(one.rows) == list(np.argsort(-scores[:, 0]))


def test_a_region_is_most_like_itself(served, indexes, photos):
    index = indexes.open(str(photos))
    found = search(index, Query("one", served.client.embed(["red plain star"])), 6)
    h, w = index.manifest.grid
    regions = index.region_embeddings(int(found.rows[2])).reshape(h * w, -1)
    region = int(np.argmax(np.linalg.norm(regions, axis=1)))
    query = region_query(found, 2, region)
    assert query.text == f"like row {region // w + 1}, column {region % w + 1} of " + (
        found.path(2).name
    )
    np.testing.assert_allclose(np.linalg.norm(query.class_embeddings), 1, rtol=1e-5)
    responses = index.response_maps(int(found.rows[2]), query.class_embeddings)[..., 0]
    bias = index.response_maps(int(found.rows[2]), np.zeros_like(query.class_embeddings))[..., 0]
    assert int(np.argmax(responses - bias)) == region


def test_a_photo_that_is_gone_leaves_the_others(served, indexes, photos, tmp_path):
    index = indexes.open(str(photos))
    found = search(index, Query("one", served.client.embed(["red plain star"])), 6)
    moved = found.path(1)
    aside = moved.rename(tmp_path / moved.name)
    try:
        kept, pictures, problems = draw_all(found)
    finally:
        aside.rename(moved)
    assert len(pictures) == len(kept.rows) == 5 and found.rows[1] not in kept.rows
    (problem,) = problems
    assert moved.name in problem and "index the folder again" in problem
