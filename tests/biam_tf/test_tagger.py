"""`Tagger` on a run: what it says about photos and classes, and what it refuses."""

import concurrent.futures
import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import biam_tf
from biam_tf import Tagger
from biam_tf.errors import UserError
from biam_tf.photos import decode_photo
from biam_tf.runs import load_run
from biam_tf.scoring_models import training_photos_of
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def tagger(finished):
    return Tagger.load(finished.path)


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished.path)


@pytest.fixture(scope="module")
def photos(scenes):
    return sorted((scenes / "images").rglob("*.*"))[:20]


@pytest.fixture
def calibrated(tagger, monkeypatch):
    """The tagger with thresholds that anyone can compute: 2 s - 1, present from 0.25 on."""
    nothing = np.zeros(0)
    thresholds = Thresholds((), nothing, nothing, nothing, (), 2.0, -1.0, -0.5, {})
    monkeypatch.setattr(tagger, "thresholds", thresholds)
    return tagger


def test_scores_are_those_of_backbone_and_head(tagger, run, photos):
    pictures = [decode_photo(path.read_bytes(), run.image_size) for path in photos]
    features = run.backbone(np.stack(pictures), training=False)
    inputs = [np.asarray(features[name]) for name in ("region_features", "scene_feature")]
    inputs.append(run.vocabulary.embeddings)
    expected = run.head(inputs, training=False)
    scores = tagger.scores(photos)  # more than fit into one batch
    assert scores.dtype == np.float32 and scores.shape == (20, len(run.vocabulary))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_classes_are_scored_in_their_order_also_twice_and_in_other_spellings(tagger, photos):
    first, second = tagger.vocabulary.names[:2]
    whole = tagger.scores(photos[0])
    scores = tagger.scores(photos[0], [second, first.upper(), second])
    np.testing.assert_allclose(scores[0], whole[0, [1, 0, 1]], atol=1e-5)
    np.testing.assert_allclose(tagger.scores(photos[0], first)[0], whole[0, :1], atol=1e-5)
    of_vocabulary = tagger.scores(photos[0], tagger.vocabulary.subset([second]))
    np.testing.assert_allclose(of_vocabulary[0], whole[0, 1:2], atol=1e-5)


def test_every_form_of_a_photo_is_the_same_photo(tagger, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    expected = tagger.scores(path)
    forms = [str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.open(path), pixels]
    np.testing.assert_array_equal(tagger.scores(forms), np.repeat(expected, 5, axis=0))
    np.testing.assert_array_equal(tagger.scores(pixels[None]), expected)
    tiff = tmp_path / "photo.tif"  # which TensorFlow does not decode
    Image.fromarray(pixels).save(tiff)
    np.testing.assert_array_equal(tagger.scores(tiff), expected)
    turned = Image.fromarray(np.rot90(pixels))  # stored a quarter left of upright
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    upright = [tmp_path / "turned.png", Image.open(tmp_path / "turned.png")]
    np.testing.assert_array_equal(tagger.scores(upright), np.repeat(expected, 2, axis=0))
    gray = pixels[..., 0]
    repeated = np.repeat(gray[..., None], 3, axis=2)
    np.testing.assert_array_equal(
        tagger.scores([gray, gray[..., None]])[0], tagger.scores(repeated)[0]
    )


def test_tags_are_ordered_by_score_and_decided_by_thresholds(calibrated, photos):
    names = calibrated.vocabulary.names[:6]
    (row,) = calibrated.scores(photos[0], names)
    tags = calibrated.tag(photos[0], names)
    order = np.argsort(-row)
    assert [tag.name for tag in tags] == [names[c] for c in order]
    np.testing.assert_allclose([tag.score for tag in tags], row[order], atol=1e-6)
    probabilities = 1 / (1 + np.exp(-(2 * row[order].astype(float) - 1)))
    np.testing.assert_allclose([tag.probability for tag in tags], probabilities, atol=1e-6)
    assert [tag.present for tag in tags] == list(row[order] >= 0.25)

    several = calibrated.tag(photos[:2], names, top=2)
    assert [len(own) for own in several] == [2, 2] and several[0] == tags[:2]
    assert calibrated.tag(photos[0], names, at="threshold") == [t for t in tags if t.present]
    middle = float(np.median(probabilities))
    above = calibrated.tag(photos[0], names, at=middle)
    assert [tag.name for tag in above] == [t.name for t in tags if t.probability >= middle]
    assert all(tag.present for tag in above)


def test_without_thresholds_there_is_no_probability(tagger, photos, monkeypatch):
    monkeypatch.setattr(tagger, "thresholds", None)
    assert {(tag.probability, tag.present) for tag in tagger.tag(photos[0])} == {(None, None)}
    with pytest.raises(UserError, match="has no thresholds"):
        tagger.tag(photos[0], at="threshold")


def test_response_maps_and_features(tagger, run, photos):
    names = tagger.vocabulary.names[:3]
    scores, maps = tagger.explain(photos[:2], names)
    np.testing.assert_allclose(scores, tagger.scores(photos[:2], names), rtol=1e-4, atol=1e-5)
    grid = run.backbone.output["region_features"].shape[1:3]
    assert maps.shape == (2, *grid, 3)
    strongest = np.sort(maps.reshape(2, -1, 3), axis=1)[:, -3:].mean(axis=1)  # top_k of TINY
    np.testing.assert_allclose(strongest, scores, rtol=1e-4, atol=1e-5)
    regions, scene = tagger.features(photos[:2])
    assert regions.shape[:3] == (2, *grid) and len(scene) == 2
    np.testing.assert_array_equal(tagger.embed(names), tagger.vocabulary.embeddings[:3])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_its_training_photos_are_found_in_every_form_of_list(
    tmp_path, monkeypatch, separator, encoding
):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    rows = ["image,split,labels", "a.png, train ,dog", "b.png,val,", "c.png,train,", "d.png,train,"]
    text = "\n".join(rows).replace(",", separator)
    (tmp_path / "annotations.csv").write_text(text, encoding=encoding)
    settings = {"data": {"name": "folder", "directory": str(tmp_path)}}
    assert training_photos_of(settings) == [tmp_path / "a.png", tmp_path / "c.png"]
    monkeypatch.chdir(tmp_path)
    # No folder: not the one that the process happens to stand in.
    assert training_photos_of({"data": {"name": "scenes", "directory": None}}) == []
    (tmp_path / "other.csv").write_text("image,split,labels\nb.png,train,dog\n")
    settings["data"]["annotations"] = str(tmp_path / "other.csv")
    assert training_photos_of(settings) == [tmp_path / "b.png"]


def _classes(names, embeddings):
    return Vocabulary(tuple(names), embeddings, ("unseen",) * len(names))


def _vectors(tagger, photos):
    """The means over regions of what multiplies an embedding, from response maps alone."""
    size = tagger.vocabulary.embedding_size
    both = np.concatenate([np.eye(size), -np.eye(size)])
    _, maps = tagger.explain(photos, _classes([str(i) for i in range(2 * size)], both))
    means = maps.astype(np.float64).mean(axis=(1, 2))
    return (means[:, :size] - means[:, size:]) / 2  # without what all classes have in common


def test_a_class_is_learned_from_photos_and_then_known_by_name(run, scenes, photos, tmp_path):
    tagger = Tagger.load(run.folder.path)
    examples = photos[:3]
    learned = tagger.learn("my thing", examples)
    rows = list(csv.DictReader(open(scenes / "annotations.csv", encoding="utf-8")))
    training = [scenes / row["image"] for row in rows if row["split"] == "train"]
    others = _vectors(tagger, [path for path in training if path not in examples])
    covariance = np.cov(others.T)
    ridge = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    difference = _vectors(tagger, examples).mean(axis=0) - others.mean(axis=0)
    expected = np.linalg.inv(covariance + ridge) @ difference
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(learned.embeddings[0], expected, atol=2e-4)

    own = tagger.vocabulary.names[0]
    scores = tagger.scores(photos[:2], ["my thing", own])
    alone = tagger.scores(photos[:2], _classes(["x"], expected[None]))
    np.testing.assert_allclose(scores[:, :1], alone, atol=2e-3)
    learned.save(tmp_path / "mine.npz")
    again = Tagger.load(run.folder.path)
    with pytest.raises(UserError, match="'my thing'"):
        again.tag(photos[0], ["my thing"])
    again.add_classes(Vocabulary.load(tmp_path / "mine.npz"))
    np.testing.assert_allclose(again.scores(photos[:2], ["my thing", own]), scores, atol=1e-5)

    with pytest.raises(UserError, match=f"{own!r} is a class of the model; use another name"):
        tagger.learn(own, examples)
    with pytest.raises(UserError, match="3 other photos; at least 20"):
        tagger.learn("my thing", examples, others=photos[3:6])
    with pytest.raises(UserError, match="where the model takes"):
        tagger.add_classes(_classes(["y"], np.ones((1, 5))))


def test_threads_share_a_tagger(tagger, photos):
    expected = tagger.scores(photos[:8])
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda photo: tagger.scores(photo)[0], photos[:8]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([], "photos: there are none"),
        ("", "photos: expected a path.*an empty text"),
        (3, "photos: expected a path.*a int"),
        (["a.jpg", None], "photos: number 2: expected a path.*NoneType"),
        ("no/such.jpg", r"no/such\.jpg: no such file"),
        (b"", "photo 1: the file is empty"),
        ([np.zeros((4, 4, 3), np.uint8), b"broken"], "photo 2: not a whole"),
        (np.zeros((4, 4, 3)), "photo 1: an array of float64; pixels must be uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"photo 1: an array of shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"photo 1: an array of shape \(0, 4, 3\)"),
    ],
)
def test_photos_that_are_none_are_named(tagger, photos, message):
    with pytest.raises(UserError, match=message):
        tagger.scores(photos)


def test_classes_that_can_not_be_scored_are_named(tagger, photos):
    for names, message in (
        ([], "classes: there are none"),
        (["dog", " \t"], "number 2 of 2 is ' .t'; a class needs a name"),
        ([3], "number 1 of 1 is 3"),
        (["no such class"], "no embedding for 'no such class'|no row"),
    ):
        with pytest.raises(UserError, match=message):
            tagger.tag(photos[0], names)
    short = Vocabulary(("dog",), np.ones((1, 2)), ("unseen",))
    with pytest.raises(UserError, match="embeddings of 2 numbers"):
        tagger.tag(photos[0], short)
    for options, message in (
        ({"top": 0}, "top: 0"),
        ({"at": "thresholds"}, "use 'threshold', or"),
        ({"at": 1.5}, "at: 1.5"),
        ({"at": True}, "at: True"),
    ):
        with pytest.raises(UserError, match=message):
            tagger.tag(photos[0], **options)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Tagger.load(tmp_path / "nothing")
    with pytest.raises(
        UserError, match=r"Tagger\.from_preset\('efficientnet_lite0_imagenet_minilm"
    ):
        Tagger.load("efficientnet_lite0_imagenet_minilm")
    with pytest.raises(UserError, match="neither the folder of a run"):
        Tagger.load(tmp_path)


def test_the_package_names_it_and_imports_nothing_before():
    assert "Tagger" in dir(biam_tf)
    with pytest.raises(AttributeError, match="no attribute 'Taggger'"):
        _ = biam_tf.Taggger
    code = "import sys, biam_tf; sys.exit(any(m in sys.modules for m in ('numpy', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
