"""Searches in two stages, against exact searches and brute force, and vectors for databases."""

import csv
import itertools
import pathlib
import re
import sys
import tracemalloc

import numpy as np
import pytest

from benchmarks.shared.random_index import SimulatedPhotos, write_random_index
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary
from serving import nearest as nearest_command
from serving import retag
from serving.indexing.manifest import VOCABULARY, IndexedPhoto, write_shard
from serving.indexing.match_table import best_rows
from serving.indexing.nearest_photos import NearestPhotos, build_nearest, strongest_directions
from serving.indexing.photo_index import PhotoIndex

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

PHOTOS, GRID, SIZE, POOLED, FOUND = 600, (4, 4), 12, 3, 10
SERVING_DOC = pathlib.Path(__file__).parents[3] / "docs" / "serving.md"


@pytest.fixture
def simulated():
    return SimulatedPhotos(GRID, SIZE)


@pytest.fixture
def folder(tmp_path, simulated):
    """An index of simulated photos whose model knows two classes."""
    folder = tmp_path / "pictures.index"
    folder.mkdir()
    write_random_index(folder, PHOTOS, GRID, SIZE, POOLED, folder, vectors=simulated.vectors)
    Vocabulary(("sky", "dog"), simulated.classes(2), ("seen",) * 2).save(folder / VOCABULARY)
    return folder


@pytest.fixture
def prepared(folder):
    pytest.importorskip("faiss", reason="the extra [search]")
    build_nearest(PhotoIndex(folder))
    return folder


def exact(index: PhotoIndex, classes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    scores = np.nan_to_num(index.scores_of_vectors(classes), nan=-np.inf)
    order = np.argsort(-scores, axis=0, kind="stable")[:FOUND]
    return [(order[:, c], scores[order[:, c], c]) for c in range(len(classes))]


def test_directions_are_means_of_regions_that_reach_the_best_scores(rng):
    vectors = rng.normal(size=(5, 6, 4)).astype(np.float16)
    found = strongest_directions(vectors, 2, 3)
    classes = rng.normal(size=(20, 4))
    for photo, directions in zip(vectors.astype(np.float64), found, strict=True):
        pairs = itertools.combinations(range(6), 2)
        means = np.array([photo[list(pair)].mean(axis=0) for pair in pairs])
        for direction in directions:
            assert np.abs(means - direction).max(axis=1).min() < 1e-5
        scores = (classes @ means.T).max(axis=1)
        assert (classes @ directions.T <= scores[:, None] + 1e-5).all()
        units = photo / np.linalg.norm(photo, axis=1, keepdims=True)
        own = (units @ means.T).max(axis=1)
        reached = units @ directions.T
        assert abs(reached[own.argmax(), 0] - own.max()) < 1e-5
        short = own - reached[:, 0]  # the second makes up for the greatest lack
        assert abs(reached[short.argmax(), 1] - own[short.argmax()]) < 1e-5


def test_the_nearest_photos_are_those_of_an_exact_search(prepared, simulated):
    index = PhotoIndex(prepared)
    classes = simulated.classes(20).astype(np.float32)
    searched = list(NearestPhotos.open(index).search(classes, FOUND, candidates=150))
    recalls = []
    for (rows, scores), (best, _) in zip(searched, exact(index, classes), strict=True):
        recalls.append(np.isin(best, rows).mean())
        assert (np.diff(scores) <= 0).all() and len(set(rows)) == FOUND
    assert np.mean(recalls) > 0.99
    whole = index.scores_of_vectors(classes)
    for c, (rows, scores) in enumerate(searched):
        np.testing.assert_allclose(scores, whole[rows, c], rtol=1e-5)


def test_later_photos_are_found_removed_ones_are_not_and_damage_is_named(prepared, simulated):
    index = PhotoIndex(prepared)
    gone, damaged = index.shards[0], index.shards[1]
    classes = simulated.classes(6).astype(np.float32)
    gone.remove()
    write_shard(
        prepared,
        [IndexedPhoto(f"new{row}.jpg", 1, 2) for row in range(40)],
        simulated.vectors(40).astype(np.float16),
    )
    contents = bytearray(damaged.path.read_bytes())
    contents[200:-200:64] = bytes(len(contents[200:-200:64]))
    damaged.path.write_bytes(contents)
    index = PhotoIndex(prepared)
    opened = NearestPhotos.open(index)
    assert opened.new == 40
    searched = list(opened.search(classes, FOUND))
    assert list(index.damaged) == [damaged.file]
    for (rows, scores), (best, own) in zip(searched, exact(index, classes), strict=True):
        np.testing.assert_array_equal(rows, best)
        np.testing.assert_allclose(scores, own, rtol=1e-5)
    with pytest.raises(UserError, match=f"{damaged.file}.*This indexes them again"):
        build_nearest(index)


def test_the_command_and_what_it_needs(folder, capsys, monkeypatch):
    pytest.importorskip("faiss", reason="the extra [search]")
    question = [str(folder), "--classes", "sky, dog", "--search", "--top", "7"]
    assert retag.main([*question, "--nearest"]) == 2
    assert f"python -m serving.nearest {folder}" in capsys.readouterr().err
    assert nearest_command.main([str(folder)]) == 0
    assert "600 photos prepared" in capsys.readouterr().out
    answers = []
    for options in ([], ["--nearest"]):
        assert retag.main([*question, *options]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] and answers[0].count(".jpg") == 14
    assert retag.main([str(folder), "--nearest"]) == 2
    assert "--nearest goes with --search" in capsys.readouterr().err
    with open(folder / "nearest.faiss", "r+b") as file:
        file.seek(-9, 2)
        file.write(b"\xff")
    assert retag.main([*question, "--nearest"]) == 2
    assert "nearest.faiss: wrong checksum" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert retag.main([*question, "--nearest"]) == 2
    assert "pip install 'biam-tf[search]'" in capsys.readouterr().err


def test_exported_vectors_find_the_photos_in_any_database(folder, capsys):
    index, table = PhotoIndex(folder), folder / "vectors.npy"
    assert nearest_command.main([str(folder), "--export", str(table)]) == 0
    assert "2,400 vectors of 12 numbers, 600 photos" in capsys.readouterr().out
    vectors = np.load(table)
    with open(folder / "vectors.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == list(range(2400))
    classes = index.class_vectors(index.embed(["dog"]))
    best = [index.photos[int(row)] for row in exact(index, classes)[0][0]]
    found = dict.fromkeys(rows[row]["photo"] for row in np.argsort(-(vectors @ classes[0])))
    assert len({*best} & {*list(found)[:30]}) >= FOUND - 1  # of 600 photos
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [import]")
    assert nearest_command.main([str(folder), "--export", str(folder / "v.parquet")]) == 0
    read = parquet.read_table(folder / "v.parquet").to_pydict()
    np.testing.assert_array_equal(np.array(read["vector"], np.float32), vectors)
    assert read["photo"] == [row["photo"] for row in rows] and read["id"] == list(range(2400))
    assert nearest_command.main([str(folder), "--export", str(folder / "v.txt")]) == 2
    assert "end the name with .parquet or .npy" in capsys.readouterr().err


def test_the_example_of_the_docs_finds_photos(folder, monkeypatch):
    pytest.importorskip("qdrant_client", reason="the database of the example")
    monkeypatch.chdir(folder.parent)
    assert nearest_command.main([folder.name, "--export", "pictures.parquet"]) == 0
    text = SERVING_DOC.read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n([^`]*?QdrantClient.*?)```", text, re.DOTALL)
    names = {}
    exec(compile(block, str(SERVING_DOC), "exec"), names)
    index = PhotoIndex(folder)
    ((best, _),) = exact(index, index.class_vectors(index.embed(["dog"])))
    assert len({index.photos[int(row)] for row in best} & {*names["photos"]}) >= FOUND - 1


def test_the_best_photos_are_kept_in_bounded_memory(rng):
    classes, block = 60, 256
    blocks = [(n * block, rng.normal(size=(block, classes)).astype(np.float32)) for n in range(30)]
    blocks[3][1][5] = np.nan
    everything = np.nan_to_num(np.concatenate([each for _, each in blocks]), nan=-np.inf)
    everything[7000:7010] = blocks[27][1][88:98] = 4.0  # ties: the lower row is first
    tracemalloc.start()
    found = best_rows(iter(blocks), classes, 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    order = np.argsort(-everything, axis=0, kind="stable")[:20]
    for c, (rows, scores) in enumerate(found):
        np.testing.assert_array_equal(rows, order[:, c])
        np.testing.assert_array_equal(scores, everything[rows, c])
    assert peak < everything.nbytes / 3


@pytest.mark.integration
def test_retag_holds_no_scores_of_all_photos(tmp_path, capsys):
    photos, classes = 6000, 400
    write_random_index(tmp_path, photos, (1, 1), 8, 1, tmp_path)
    rows = np.random.default_rng(2).normal(size=(classes, 8))
    names = tuple(f"class {number}" for number in range(classes))
    Vocabulary(names, rows, ("seen",) * classes).save(tmp_path / VOCABULARY)
    output = tmp_path / "tags.csv"
    for options in ([], ["--search"]):
        tracemalloc.start()
        assert retag.main([str(tmp_path), "--top", "1", "--output", str(output), *options]) == 0
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * photos * classes, options  # the scores alone are 9.6 MB
        lines = output.read_text().splitlines()
        assert len(lines) == 1 + (classes if options else photos)
