"""Folders that are indexed and searched from the page."""

import csv
import html
import re
import threading

import numpy as np
import pytest
from photo_files import encoded

from biam_tf.class_calibration import ClassCalibration
from biam_tf.errors import UserError
from serving.demo_page.folder_choice import folder_places
from serving.demo_page.photo_files import read_picture
from serving.demo_page.photo_search import Query, draw_all, draw_example, region_query, search
from serving.demo_page.search_view import show_search, word_query
from serving.indexing.folder_indexes import FolderIndexes
from serving.indexing.photo_index import PhotoIndex

pytestmark = pytest.mark.usefixtures("loaded_once")


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
    job.wait(300)
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


def test_links_out_of_the_folder_that_may_be_searched_are_refused(tagger_dir, tmp_path):
    root, secret = tmp_path / "open", tmp_path / "secret"
    for folder in (root, secret):
        folder.mkdir()
        (folder / f"{folder.name}.png").write_bytes(encoded("PNG", (60, 50), len(folder.name)))
    (root / "leak.png").symlink_to(secret / "secret.png")
    (root / "inside.png").symlink_to(root / "open.png")
    (root / "folder").symlink_to(secret)
    indexes = FolderIndexes(tagger_dir, tmp_path / "indexes", root)
    job = ended(indexes.start(str(root)))
    index = indexes.open(str(root))
    assert job.error is None and index.photos == ("inside.png", "open.png")
    ((photo, reason),) = index.manifest.broken
    assert photo.path == "leak.png" and reason == f"a link that leads out of {root}"
    assert indexes.nearby(str(root)) == [str(root)]
    with pytest.raises(UserError, match="only folders in"):
        indexes.resolve(str(root / "folder"))
    # A link that takes a photo's place after it was indexed is not followed, either.
    (root / "inside.png").unlink()
    (root / "inside.png").symlink_to(secret / "secret.png")
    query = Query("one", index.vocabulary.embeddings[:1])
    _, pictures, problems = draw_all(search(index, query, 2, root))
    assert len(pictures) == 1 and problems == [f"inside.png: a link that leads out of {root}"]


def test_two_tabs_that_index_a_folder_share_the_work(tagger_dir, photos, tmp_path, monkeypatch):
    go_on, runs = threading.Event(), []

    def wait_for_both(model_dir, folder, index, reached, within):
        runs.append(folder)
        go_on.wait(300)
        reached(1, 2)

    monkeypatch.setattr("serving.indexing.folder_indexes.index_photos", wait_for_both)
    indexes = FolderIndexes(tagger_dir, tmp_path / "indexes")
    first, second = indexes.start(str(photos)), indexes.start(str(photos))
    assert first is second and first.running
    indexes.stop(str(photos))
    go_on.set()
    assert ended(first).stopped and runs == [photos]
    assert indexes.start(str(photos)) is not first


def test_folders_are_entered_step_by_step_within_the_allowed_one(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for name in ("a/<b> & c", "a/.hidden", "d"):
        (root / name).mkdir(parents=True)

    def offered(indexes, text):
        shown = folder_places(indexes, text)
        found = re.findall(r'data-choice="([^"]*)"[^>]*>([^<]*)<', shown)
        return [(html.unescape(path), html.unescape(name)) for path, name in found]

    indexes = FolderIndexes(tmp_path, tmp_path / "indexes", root)
    assert offered(indexes, str(root)) == [(f"{root}/a", "a"), (f"{root}/d", "d")]
    assert offered(indexes, f"{root}/a") == [(str(root), "↑ up"), (f"{root}/a/<b> & c", "<b> & c")]
    for elsewhere in (str(tmp_path), "/", "", None):
        assert offered(indexes, elsewhere) == [(str(root), f"Start in {root}")]
    monkeypatch.setenv("HOME", str(root))
    anywhere = FolderIndexes(tmp_path, tmp_path / "indexes")
    assert offered(anywhere, None) == [(str(root), f"Start in {root}")]
    assert (str(tmp_path), "↑ up") in offered(anywhere, str(root))


def test_a_region_that_is_searched_for_is_shown_with_a_way_back(served, indexes, photos, tmp_path):
    index = indexes.open(str(photos))
    query = word_query(served, "red plain star")
    first = show_search(index, query, 4, None, tmp_path)
    assert first[-1]["visible"] is False and "search-example" not in first[1]
    found = first[0].found
    again = region_query(found, 1, 5)
    shown = show_search(index, again, 4, None, tmp_path, (query,))
    assert shown[-1]["visible"] is True and shown[-1]["value"] == "Back to: red plain star"
    assert shown[0].earlier == (query,) and "search-example" in shown[1]
    # The outline is where the region is, and nowhere else.
    plain = read_picture(found.path(1), 320, found.orientation)
    changed = np.argwhere((np.asarray(draw_example(shown[0].found)) != np.asarray(plain)).any(-1))
    h, w = index.manifest.grid
    center = changed.mean(axis=0) / plain.size[::-1] * (h, w)
    np.testing.assert_allclose(center, np.array(divmod(5, w)) + 0.5, atol=0.35)


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


@pytest.mark.slow
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


def test_the_view_shows_what_the_decision_calls_present(
    served, indexes, photos, tmp_path, monkeypatch
):
    index = indexes.open(str(photos))
    names = ["red plain star", "blue striped ring"]
    scores = served.client.tag([photos / path for path in index.photos], names).astype(float)
    # Cuts between the photos' scores: 4 of 6 show the first class, 3 the second.
    cuts = np.array([np.sort(scores[:, 0])[1:3].mean(), np.sort(scores[:, 1])[2:4].mean()])

    def calibration(index, own, class_embeddings):
        kept = slice(len(own))
        return ClassCalibration(np.ones(2)[kept], -cuts[kept], cuts[kept])

    def search_for(text, count):
        query = word_query(served, text)
        return show_search(index, query, count, None, tmp_path)

    def said(shown):
        return re.sub(r"<[^>]*>", "", shown[1]).split(" (found")[0].strip()

    text = f"{names[0]} AND not {names[1]}"
    monkeypatch.setattr(PhotoIndex, "calibration", lambda *_: None)
    plain = search_for(names[0], 2)
    assert said(plain).startswith(f"{names[0]}: the best 2 of 6 photos; the model has no thresh")
    best = [index.photos[row] for row in np.argsort(-scores[:, 0])[:2]]
    assert [label for _, label in plain[2]] == best

    monkeypatch.setattr(PhotoIndex, "calibration", calibration)
    holds = (scores[:, 0] > cuts[0]) & (scores[:, 1] < cuts[1])
    wanted = {index.photos[row] for row in np.flatnonzero(holds)}
    assert 0 < len(wanted) < 6
    shown = search_for(text, 12)
    assert said(shown).startswith(f"{text}: {len(wanted)} of 6 photos show")
    assert {label.split(" · ")[0] for _, label in shown[2]} == wanted
    assert all(label.endswith(f" · ✓ {names[0]}") for _, label in shown[2])

    # The evidence is that of the classes that the photo shows, and of no others.
    found = search_for(f"{names[0]} or {names[1]}", 12)[0].found
    embeddings, kinds = served.client.embed(names), set()
    for rank, row in enumerate(found.rows):
        maps = index.response_maps(int(row), embeddings)
        kinds.add(reached := tuple((scores[row] >= cuts).tolist()))
        expected = maps[..., reached.index(True)]
        if all(reached):
            expected = ((maps - maps.mean(axis=(0, 1))) / maps.std(axis=(0, 1))).max(axis=-1)
        np.testing.assert_allclose(found.response_map(rank), expected, atol=1e-4)
    assert {(True, True), (True, False)} <= kinds
    nearest = search_for(f"{names[0]} and not {names[0]}", 12)[0].found
    maps = [nearest.response_map(rank) for rank in range(4)]
    assert [each is None for each in maps] == [scores[r, 0] < cuts[0] for r in nearest.rows]

    # More than are shown: said in words, and all in the file.
    some = search_for(names[0], 2)
    assert said(some) == f"{names[0]}: the best 2 of 4 photos that show it, among 6 photos"
    probability = 100 / (1 + np.exp(cuts[0] - scores[:, 0].max()))
    assert some[2][0][1] == f"{best[0]} · {probability:.0f} % ✓"
    with open(some[3]["value"], encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["photo"] for row in listed] == [
        index.photos[row] for row in np.argsort(-scores[:, 0])[:4]
    ]
    none = search_for(f"{names[0]} and not {names[0]}", 12)
    assert "none of 6 photos shows it; the 4 nearest are shown" in said(none)

    for wrong, reason in (("red plain star and", "at the end"), ("xqzt or blue", "does not know")):
        with pytest.raises(UserError, match=reason):
            word_query(served, wrong)
