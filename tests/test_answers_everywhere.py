"""The same probabilities and tags for the same scores through every door, against NumPy.

The names are classes of the run, also in other spellings, and new ones. The thresholds have a class
without a probability, and a rule for new classes by their similarity to the seen ones.
"""

import csv
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded
from PIL import Image
from unchecked_export import unchecked

from biam_tf import Tagger
from biam_tf.runs import load_run
from biam_tf.vocabulary import Vocabulary
from serving import client as client_command
from serving import predict, retag
from serving.demo_page.photo_files import open_photo_file
from serving.demo_page.photo_search import Query, search
from serving.demo_page.served_model import connect, read_newest
from serving.demo_page.tagging import tag_photo
from serving.graph.saved_model import export
from serving.graph.signatures import GraphSettings
from serving.indexing.build_index import index_photos
from serving.indexing.photo_index import PhotoIndex
from serving.rpc.tagging_server import ServerSettings, TaggingServer

KNOTS = {"likeness": (0.2, 0.5, 0.9), "slope": (1.0, 2.0, 4.0), "offset": (-2.0, -9.0, -20.0)}
KNOTS["threshold"] = (3.0, 5.0, 5.5)
NEIGHBORS = 2
NEW = ("zebra sky", "Zebra")
# float32 outputs of the graph, and sums in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(encoded("PNG", (60 + seed, 50), seed))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def thresholds(finished):
    """The contents of the run's file, with numbers that differ from class to class."""
    value = json.loads(finished.thresholds.read_text())
    for number, entry in enumerate(value["classes"]):
        entry["slope"] = 1.0 + number % 3
        entry["offset"] = 0.3 * (number % 5 - 2) - entry["slope"] * entry["threshold"]
    value["classes"][1] |= {"slope": None, "offset": None}
    rows = zip(*KNOTS.values(), strict=True)
    knots = [dict(zip(KNOTS, row, strict=True)) for row in rows]
    value["new_classes"] = {"neighbors": NEIGHBORS, "knots": knots}
    return value


@pytest.fixture(scope="module")
def run_folder(finished, thresholds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "changed"
    shutil.copytree(finished.path, folder)
    (folder / "thresholds.json").write_text(json.dumps(thresholds))
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    file, rng = tmp_path_factory.mktemp("words") / "words.txt", np.random.default_rng(0)
    rows = [" ".join([word, *map(str, rng.normal(size=14))]) for word in ("zebra", "sky")]
    file.write_text("\n".join(rows) + "\n")
    return file


@pytest.fixture(scope="module")
def model_dir(run_folder, words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "changed"
    settings = GraphSettings(formats=("JPEG", "PNG"))
    with unchecked():
        export(load_run(run_folder), folder, settings, word_vectors=words)
    return folder


@pytest.fixture(scope="module")
def signatures(model_dir):
    loaded = tf.saved_model.load(model_dir / "1")
    yield loaded.signatures


@pytest.fixture(scope="module")
def address(model_dir):
    with TaggingServer(model_dir, ServerSettings(port=0)) as server:
        yield server.address


@pytest.fixture(scope="module")
def own(run_folder):
    return Vocabulary.load(run_folder / "vocabulary.npz")


@pytest.fixture(scope="module")
def names(own):
    """All of the run's classes, two of them spelled otherwise, and new ones."""
    first, second, *others = own.names
    return [first.upper(), second.replace(" ", "_"), *others, *NEW]


@pytest.fixture(scope="module")
def expected(thresholds, own, names, signatures):
    """Returns what NumPy makes of scores (..., C): probabilities and tags."""
    rows = {entry["name"]: entry for entry in thresholds["classes"]}
    embedded = signatures["embed"](class_names=tf.constant(list(NEW)))["class_embeddings"].numpy()
    seen = own.embeddings[[group == "seen" for group in own.groups]]
    similarity = np.sort(embedded @ seen.T, axis=1)[:, -NEIGHBORS:].mean(axis=1)
    values = {}
    for key in ("slope", "offset", "threshold"):
        listed = [rows[name][key] for name in own.names]
        between = np.interp(similarity, KNOTS["likeness"], KNOTS[key])
        values[key] = np.array([*listed, *between], np.float64)
    assert 0.2 < similarity.min() < similarity.max() < 0.9
    assert abs(np.diff(similarity)) > 0.01

    def answer(scores):
        logits = values["slope"] * np.float64(scores) + values["offset"]
        return 0.5 * (1 + np.tanh(logits / 2)), np.float64(scores) >= values["threshold"]

    answer.values = values
    return answer


def contents(photos):
    return tf.constant([photo.read_bytes() for photo in photos])


def check(scores, probabilities, present, expected):
    probability, is_there = expected(np.asarray(scores))
    found = np.array([[np.nan if p is None else p for p in row] for row in probabilities], float)
    np.testing.assert_allclose(found, probability, **CLOSE)
    assert np.isnan(probability[:, 1]).all() and np.isnan(probability).sum() == len(probability)
    np.testing.assert_array_equal(np.asarray(present, bool), is_there)


@pytest.mark.slow
def test_the_graph(signatures, photos, names, own, expected):
    images = contents(photos)
    answer = signatures["tag"](images=images, class_names=tf.constant(names))
    check(answer["scores"], answer["probabilities"].numpy(), answer["present"], expected)
    embedded = signatures["embed"](class_names=tf.constant(names))
    for output, key in (("slopes", "slope"), ("offsets", "offset"), ("cuts", "threshold")):
        np.testing.assert_allclose(embedded[output], expected.values[key], **CLOSE)
    # Without names they are new to the model, the last ones as before.
    unnamed = signatures["calibrate"](class_embeddings=embedded["class_embeddings"])
    np.testing.assert_allclose(unnamed["cuts"][-2:], expected.values["threshold"][-2:], **CLOSE)
    assert not np.isnan(unnamed["slopes"]).any()
    known = signatures["tag_known"](images=images)
    listed = [own.names.index(name.decode()) for name in known["names"].numpy().ravel()]
    full = np.zeros((known["scores"].numpy().size, len(names)))
    full[np.arange(len(listed)), listed] = known["scores"].numpy().ravel()
    for output, value in zip(("probabilities", "present"), expected(full), strict=True):
        picked = value[np.arange(len(listed)), listed]
        np.testing.assert_allclose(np.ravel(known[output]), picked, **CLOSE)


def columns(tags, names):
    by_name = {tag.name: tag for tag in tags}
    its = [by_name[name] for name in names]
    return [[getattr(tag, key) for tag in its] for key in ("score", "probability", "present")]


@pytest.mark.slow
def test_taggers(model_dir, run_folder, photos, names, signatures, expected):
    embedded = signatures["embed"](class_names=tf.constant(names))["class_embeddings"].numpy()
    vocabulary = Vocabulary(tuple(names), embedded, ("unseen",) * len(names))
    for tagger, classes in ((Tagger.load(model_dir), names), (Tagger.load(run_folder), vocabulary)):
        tagged = [columns(tags, names) for tags in tagger.tag(photos, classes)]
        check(*zip(*tagged, strict=True), expected)
    likely = tagger.tag(photos[0], vocabulary, at=0.3)
    probabilities = expected(tagger.scores(photos[:1], vocabulary))[0]
    assert len(likely) == (probabilities >= 0.3).sum()


@pytest.mark.slow
def test_the_client(address, photos, names, expected, capsys, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = ["--server", address, "--classes-file", str(tmp_path / "names.txt"), "--top", "100"]
    paths = [str(photo) for photo in photos]
    found = {}
    for more in ([], ["--present"], ["--probability", "0.3"], ["--threshold", "4"]):
        assert client_command.main([*options, "--json", *more, *paths]) == 0
        found[more[0] if more else ""] = json.loads(capsys.readouterr().out)
    scores, probabilities, present = [], [], []
    for entry in found[""]:
        tags = {tag["name"]: tag for tag in entry["tags"]}
        scores.append([tags[name]["score"] for name in names])
        probabilities.append([tags[name]["probability"] for name in names])
        present.append([tags[name]["present"] for name in names])
    check(scores, probabilities, present, expected)
    numbers, is_there = expected(np.array(scores))
    kept = {
        "--present": is_there,
        "--probability": numbers >= 0.3,
        "--threshold": np.array(scores) >= 4,
    }
    for option, given in kept.items():
        for entry, row in zip(found[option], given, strict=True):
            listed = {tag["name"] for tag in entry["tags"]}
            assert listed == {name for name, its in zip(names, row, strict=True) if its}
    assert client_command.main([*options, *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    best = int(np.argmax(scores[0]))
    assert f"{scores[0][best]:8.3f}" in lines[1] and lines[1].endswith(names[best])
    assert is_there.any() and not is_there.all() and (numbers >= 0.3).any()
    assert ("✓" in lines[1]) == is_there[0, best]
    assert f"{100 * numbers[0, best]:.0f} %" in lines[1] or best == 1


def test_predict_with_a_model_and_with_a_server(
    model_dir, address, photos, names, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("BIAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = ["--classes-file", str(tmp_path / "names.txt")]
    drawn = []
    for door in (["--model", str(model_dir)], ["--server", address]):
        out, folder = tmp_path / "tags.jsonl", tmp_path / door[0].strip("-")
        asked = [*map(str, photos), *door, *options, "--top", "100"]
        assert predict.main([*asked, "--jsonl", str(out), "--draw", str(folder)]) == 0
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["photo"] for line in lines] == [*map(str, photos)]
        rows = [{tag["name"]: tag for tag in line["tags"]} for line in lines]
        answers = [
            [[row[name][key] for name in names] for row in rows]
            for key in ("score", "probability", "present")
        ]
        check(*answers, expected)
        assert predict.main([*asked, "--present", "--jsonl", str(out)]) == 0
        listed = [json.loads(line)["tags"] for line in out.read_text().splitlines()]
        assert [len(tags) for tags in listed] == [sum(row) for row in answers[2]]
        pictures = sorted(folder.rglob("*.png"))
        drawn.append([np.asarray(Image.open(path).convert("L"), float) for path in pictures])
    assert len(drawn[0]) == len(photos) and min(picture.std() for picture in drawn[0]) > 5
    for one, other in zip(*drawn, strict=True):
        assert np.abs(one - other).mean() < 0.5
    capsys.readouterr()


@pytest.mark.slow
def test_retag_and_the_index(model_dir, photos, names, words, expected, tmp_path, capsys):
    index_photos(model_dir, photos[0].parent, tmp_path / "index")
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = [str(tmp_path / "index"), "--classes-file", str(tmp_path / "names.txt")]
    options += ["--word-vectors", str(words), "--top", "100", "--output", str(tmp_path / "t.csv")]
    index = PhotoIndex(tmp_path / "index")
    scores = index.scores(index.embed(names, words))
    for more, key, other in (([], "tag", "photo"), (["--search"], "photo", "class")):
        assert retag.main([*options, *more]) == 0
        with open(tmp_path / "t.csv", encoding="utf-8") as file:
            rows = {(row[other], row[key]): row for row in csv.DictReader(file)}
        pairs = [[(p, n) if not more else (n, p) for n in names] for p in index.photos]
        probabilities = [
            [float(rows[pair]["probability"] or "nan") for pair in its] for its in pairs
        ]
        present = [[rows[pair]["present"] == "True" for pair in its] for its in pairs]
        check(scores, probabilities, present, expected)
    assert retag.main([*options, "--present"]) == 0
    with open(tmp_path / "t.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == expected(scores)[1].sum()
    capsys.readouterr()


@pytest.mark.slow
def test_the_page(model_dir, address, photos, names, words, expected, tmp_path):
    model = read_newest(model_dir)
    with connect(address) as client:
        tagged = [tag_photo(client, model, open_photo_file(photo), names) for photo in photos]
        scores = [its.scores for its in tagged]
        probabilities = [its.probabilities for its in tagged]
        check(
            scores, probabilities, [its.scores >= its.thresholds.cuts for its in tagged], expected
        )
    index_photos(model_dir, photos[0].parent, tmp_path / "index")
    index = PhotoIndex(tmp_path / "index")
    c = len(names) - 1
    found = search(index, Query(names[c], index.embed([names[c]], words), (names[c],)), 3)
    for rank in range(3):
        its = np.zeros((1, len(names)))
        its[0, c] = found.scores[rank]
        probability, present = (part[0, c] for part in expected(its))
        number = f"{found.scores[rank]:.2f} · {100 * probability:.0f} %"
        assert found.caption(rank) == number + " ✓" * bool(present)
