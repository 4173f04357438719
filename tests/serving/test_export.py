"""A run as a SavedModel: every signature against the Keras model, and what lies beside it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded
from unchecked_export import unchecked

from biam_tf.models import build_head
from biam_tf.models.head import with_response_maps
from biam_tf.photos import decode_photo
from biam_tf.runs import load_run
from biam_tf.vocabulary import Vocabulary
from serving import export
from serving.graph import saved_model
from serving.graph.signatures import GraphSettings, TaggerGraph

pytestmark = pytest.mark.usefixtures("optimized_graphs")

PHOTOS = [encoded("JPEG", (80, 60)), encoded("PNG", (33, 99)), encoded("GIF"), encoded("BMP")]
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished.path)


@pytest.fixture(scope="module")
def models(finished, tagger_dir, tmp_path_factory):
    """A folder of models: version 1 as by default, version 7 with other options."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    words = folder.parent / "words.txt"
    rng = np.random.default_rng(0)
    rows = [" ".join([word, *map(str, rng.normal(size=14))]) for word in ("zebra", "red", "sky")]
    words.write_text("\n".join(rows) + "\n")
    shutil.copytree(tagger_dir, folder)
    options = ["--no-batching", "--word-vectors", str(words), "--top-k", "3"]
    options += ["--version", "7", "--max-pixels", "5000"]
    with unchecked():
        assert export.main([str(finished.path), str(folder), *options]) == 0
    return folder


@pytest.fixture(scope="module")
def signatures(models):
    """Signatures of version 1; kept with what they belong to."""
    loaded = tf.saved_model.load(models / "1")
    yield loaded.signatures


@pytest.fixture(scope="module")
def other_signatures(models):
    """Signatures of version 7."""
    loaded = tf.saved_model.load(models / "7")
    yield loaded.signatures


def call(signature, **inputs):
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return {name: value.numpy() for name, value in signature(**tensors).items()}


@pytest.fixture(scope="module")
def features(run):
    """Of PHOTOS, from the Keras model."""
    photos = tf.stack([decode_photo(photo, run.image_size) for photo in PHOTOS])
    return run.backbone(photos, training=False)


@pytest.fixture(scope="module")
def keras_answer(run, features):
    """Returns a function of class embeddings to the Keras model's scores and response maps."""
    head = with_response_maps(run.head)
    parts = [features["region_features"], features["scene_feature"]]
    return lambda class_embeddings: head([*parts, tf.constant(class_embeddings)], training=False)


@pytest.fixture(scope="module")
def classes(run):
    """Embeddings of 11 classes that no run knows."""
    size = (11, run.vocabulary.embedding_size)
    return np.random.default_rng(5).normal(size=size).astype(np.float32)


@pytest.mark.slow
def test_serving_default_scores_any_classes(signatures, keras_answer, classes):
    for count in (1, 11):
        scores = call(
            signatures["serving_default"], images=PHOTOS, class_embeddings=classes[:count]
        )["scores"]
        np.testing.assert_allclose(scores, keras_answer(classes[:count])["scores"], **CLOSE)


def test_explain_shows_where(signatures, keras_answer, classes):
    answer = call(signatures["explain"], images=PHOTOS, class_embeddings=classes)
    expected = keras_answer(classes)
    assert answer["response_maps"].shape == (4, 12, 12, 11)
    for name in ("scores", "response_maps"):
        np.testing.assert_allclose(answer[name], expected[name], **CLOSE)


def test_features_are_those_of_the_backbone_and_rescore_needs_no_photo(
    signatures, features, keras_answer, classes
):
    found = call(signatures["features"], images=PHOTOS)
    for name, value in features.items():
        np.testing.assert_allclose(found[name], value, **CLOSE)
    scores = call(signatures["rescore"], **found, class_embeddings=classes)["scores"]
    np.testing.assert_allclose(scores, keras_answer(classes)["scores"], **CLOSE)


def test_tag_finds_the_runs_own_classes_by_name(signatures, run, keras_answer):
    names = [*run.vocabulary.names[40:50], "RED Plain Star"]
    embeddings = run.vocabulary.subset([name.lower() for name in names]).embeddings
    scores = call(signatures["tag"], images=PHOTOS, class_names=names)["scores"]
    np.testing.assert_allclose(scores, keras_answer(embeddings)["scores"], **CLOSE)
    embedded = call(signatures["embed"], class_names=names)["class_embeddings"]
    np.testing.assert_allclose(embedded, embeddings, rtol=0, atol=1e-6)


def test_tag_puts_names_together_from_word_vectors(other_signatures, models, keras_answer):
    names = ["zebra", "Red Sky", "zebra-sky"]
    vocabulary = Vocabulary.from_word_vectors(models.parent / "words.txt", names)
    scores = call(other_signatures["tag"], images=PHOTOS, class_names=names)["scores"]
    np.testing.assert_allclose(scores, keras_answer(vocabulary.embeddings)["scores"], **CLOSE)


@pytest.mark.parametrize(("version", "top_k"), [("1", 5), ("7", 3)])
def test_tag_known_gives_the_best_classes_first(request, run, keras_answer, version, top_k):
    fixture = {"1": "signatures", "7": "other_signatures"}[version]
    answer = call(request.getfixturevalue(fixture)["tag_known"], images=PHOTOS)
    scores = keras_answer(run.vocabulary.embeddings)["scores"].numpy()
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    np.testing.assert_allclose(answer["scores"], np.take_along_axis(scores, best, 1), **CLOSE)
    names = [[name.decode() for name in row] for row in answer["names"]]
    for row, found, expected in zip(scores, names, best, strict=True):
        columns = [run.vocabulary.names.index(name) for name in found]
        np.testing.assert_allclose(row[columns], row[expected], **CLOSE)


def test_answers_are_the_same_without_batching(signatures, other_signatures, classes):
    for name in ("serving_default", "explain"):
        inputs = {"images": PHOTOS, "class_embeddings": classes}
        with_batches, without = (
            call(signatures[name], **inputs),
            call(other_signatures[name], **inputs),
        )
        for output, value in with_batches.items():
            np.testing.assert_allclose(value, without[output], atol=1e-5)


NOT_FINITE = np.full((2, 14), np.inf, np.float32)
REGIONS = np.zeros((2, 12, 12, 128), np.float32)
SCENE = np.zeros((2, 256), np.float32)
ONE_CLASS = np.ones((1, 14), np.float32)
NO_PHOTO, NO_CLASS = np.array([], dtype="S"), np.empty((0, 14), np.float32)


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("serving_default", [NO_PHOTO, ONE_CLASS], "images: no photos"),
        ("serving_default", [PHOTOS, NO_CLASS], "class_embeddings: no classes"),
        ("serving_default", [PHOTOS, NOT_FINITE], "class_embeddings: not all of the numbers are"),
        (
            "serving_default",
            [PHOTOS, ONE_CLASS[:, :5]],
            "class_embeddings: the rows have 5 numbers; this model was trained with embeddings "
            "of 14",
        ),
        ("explain", [PHOTOS, ONE_CLASS * np.nan], "class_embeddings: not all"),
        ("explain", [[PHOTOS[0], b"junk"], ONE_CLASS], "images[1]: not a whole"),
        ("tag", [PHOTOS, ["red plain star", "zebra"]], "class_names[1] zebra: no such class"),
        ("tag", [PHOTOS, NO_PHOTO], "class_names: no classes"),
        ("embed", [NO_PHOTO], "class_names: no classes"),
        ("embed", [["zebra"]], "class_names[0] zebra: no such class"),
        ("tag_known", [NO_PHOTO], "images: no photos"),
        ("features", [[b""]], "images[0]: not a whole"),
        ("rescore", [REGIONS, SCENE[:1], ONE_CLASS], "of 2 photos, scene_feature of 1"),
        (
            "rescore",
            [REGIONS[:, :9], SCENE, ONE_CLASS],
            "region_features: shape (2, 9, 12, 128); expected (any, 12, 12, 128)",
        ),
        ("rescore", [REGIONS * np.nan, SCENE, ONE_CLASS], "region_features: not all"),
        ("rescore", [REGIONS[:0], SCENE[:0], ONE_CLASS], "region_features: no photos"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(signatures, signature, inputs, message):
    names = {
        "tag": ("images", "class_names"),
        "embed": ("class_names",),
        "rescore": ("region_features", "scene_feature", "class_embeddings"),
    }.get(signature, ("images", "class_embeddings"))
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        call(signatures[signature], **dict(zip(names, inputs, strict=False)))
    assert message in str(error.value)


def test_the_limit_on_pixels_is_an_option(signatures, other_signatures):
    photo = [encoded("PNG", (100, 51))]
    assert call(signatures["tag_known"], images=photo)["names"].shape == (1, 5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 5000 pixels"):
        call(other_signatures["tag_known"], images=photo)


def test_what_lies_beside_the_model(models, finished, run):
    extra = models / "1" / "assets.extra"
    assert (extra / "config.yaml").read_text() == finished.config.read_text()
    assert json.loads((extra / "metrics.json").read_text())["images"] == 8
    assert Vocabulary.load(extra / "vocabulary.npz").names == run.vocabulary.names
    assert (extra / "thresholds.json").read_bytes() == finished.thresholds.read_bytes()
    card = (extra / "model_card.md").read_text()
    for part in (
        "48 seen",
        "24 unseen",
        "`embed`",
        "`tag_known`",
        "64000000 pixels",
        "GZSL",
        "float (C, 14)",
        "thresholds.json has",
    ):
        assert part in card


def test_warm_up_requests_try_every_signature(models, signatures):
    from tensorflow_serving.apis import prediction_log_pb2

    path = models / "1" / "assets.extra" / "tf_serving_warmup_requests"
    tried = set()
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        call(signatures[request.model_spec.signature_name], **inputs)
        tried.add(request.model_spec.signature_name)
    assert tried == {
        "serving_default",
        "tag",
        "tag_known",
        "explain",
        "features",
        "rescore",
        "embed",
    }


STRANGER = """
import sys
import tensorflow as tf

assert not any(name.split(".")[0] in ("biam_tf", "serving", "training") for name in sys.modules)
model = tf.saved_model.load(sys.argv[1])
photo = tf.io.encode_png(tf.zeros((40, 50, 3), tf.uint8))
names = tf.constant(["red plain star", "blue plain ring"])
print(model.signatures["tag"](images=photo[None], class_names=names)["scores"].shape)

from tensorflow.python.tools import saved_model_cli

sys.argv = ["saved_model_cli", *sys.argv[2:]]
saved_model_cli.main()
"""


@pytest.mark.slow
def test_a_program_without_this_project_and_saved_model_cli_run_it(models, tmp_path):
    np.savez(tmp_path / "in.npz", images=np.array(PHOTOS[:1]))
    cli = ["run", "--dir", str(models / "1"), "--tag_set", "serve", "--signature_def", "tag_known"]
    cli += ["--inputs", f"images={tmp_path / 'in.npz'}[images]"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(models / "1"), *cli],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    by_program, by_cli = done.stdout.split("\n", 1)
    assert by_program == "(1, 2)"
    assert "Result for output key names" in by_cli and "plain" in by_cli


def test_a_version_is_one_more_than_the_newest_and_never_overwritten(models, finished, capsys):
    assert sorted(path.name for path in models.iterdir()) == ["1", "7"]
    assert saved_model._version_folder(models, None).name == "8"
    assert export.main([str(finished.path), str(models), "--version", "7"]) == 2
    assert "has a version 7 already" in capsys.readouterr().err


def test_a_model_that_differs_from_the_keras_model_gets_no_version(run, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.graph.self_check.TOLERANCE", -1.0)
    every = TaggerGraph.signatures
    monkeypatch.setattr(
        TaggerGraph, "signatures", lambda graph: {"rescore": every(graph)["rescore"]}
    )
    with pytest.raises(RuntimeError, match="differs from the Keras model"):
        export.export(run, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_what_a_run_cannot_answer_is_left_out(run, tmp_path):
    shapes = {tensor.name: tensor.shape[1:] for tensor in run.head.inputs}
    pooled = build_head(
        shapes["region_features"],
        shapes["scene_feature"][0],
        14,
        classify="pooled_features",
        channels=8,
        num_heads=2,
    )
    nameless = Vocabulary((), np.empty((0, 14), np.float32), ())
    bare = dataclasses.replace(run, head=pooled, vocabulary=nameless)
    # It decodes neither of the two formats of the usual sample photos.
    settings = GraphSettings(formats=("GIF", "BMP"))
    exported = export.export(bare, tmp_path / "models", settings)
    assert exported.signatures == ("features", "rescore", "serving_default")
    assert exported.path.name == "1"
    assert "0 seen: none" in (exported.path / "assets.extra" / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "0"], "--top-k 0: use at least 1"),
        (["--version", "0"], "--version 0: use at least 1"),
        (["--max-pixels", "-5"], "--max-pixels -5: use at least 1"),
        (["--max-batch-size", "0"], "max_batch_size: 0"),
        (["--no-batching", "--threads", "2"], "--no-batching excludes"),
        (["--word-vectors", "{tmp}/no.txt"], "no.txt: there is no such file"),
        (["--word-vectors", "{tmp}/short.txt"], "short.txt: its embeddings have 3 numbers"),
    ],
)
def test_export_names_what_is_wrong(finished, tmp_path, capsys, options, message):
    (tmp_path / "short.txt").write_text("red 1 2 3\n")
    options = [option.format(tmp=tmp_path) for option in options]
    assert export.main([str(finished.path), str(tmp_path / "models"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "models").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert export.main([str(tmp_path), str(tmp_path / "models")]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
