"""The standard multi-label task: all classes seen, and systems that score no others."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded

from biam_tf.runs import load_run
from biam_tf.vocabulary import Vocabulary
from serving import export, index, retag
from training import evaluate
from training.config import DataConfig
from training.data.data_manifest import DataManifest, describe_data
from training.data.folder.reader import read_folder
from training.data.registry import load_dataset
from training.pipeline.run_folder import RunFolder

LOGISTIC = ["head={system: logistic}", "data.all_seen=true"]


@pytest.fixture(scope="module")
def standard(start, tmp_path_factory):
    """The folder of a run of logistic regression; not to be changed."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "standard")
    assert start(folder.path, *LOGISTIC, "training.epochs=1", "training.report=true") == 0
    return folder


@pytest.fixture(scope="module")
def run(standard):
    return load_run(standard.path)


@pytest.fixture(scope="module")
def model_dir(standard, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "standard"
    assert export.main([str(standard.path), str(folder), "--formats", "jpeg,png"]) == 0
    return folder


@pytest.fixture(scope="module")
def signatures(model_dir):
    loaded = tf.saved_model.load(model_dir / "1")
    yield loaded.signatures


def test_all_classes_are_seen_and_the_features_stay_the_same(scenes):
    read = load_dataset(DataConfig(name="folder", directory=str(scenes)))
    dataset = load_dataset(DataConfig(name="folder", directory=str(scenes), all_seen=True))
    assert len(read.unseen) == 24 and len(dataset.unseen) == 0
    assert dataset.groups == ("seen",) * 72
    assert dataset.fingerprint == read.fingerprint  # by which stored features are found
    remark = "24 unseen classes count as seen; 24 of them are in no training photo"
    assert dataset.about.remarks == (*read.about.remarks, remark)
    assert dataset.counting_as_seen(dataset.names) is dataset


def test_a_system_that_scores_only_its_own_classes_needs_all_of_them(start, tmp_path, capsys):
    assert start(tmp_path / "run", LOGISTIC[0]) == 2
    error = capsys.readouterr().err
    assert "head.system: logistic scores only the classes that it is trained on" in error
    assert "24 classes of" in error and "set data.all_seen: true" in error
    assert not (tmp_path / "run").exists()


def test_classes_with_one_embedding_are_named(start, scenes, tmp_path, capsys):
    names = read_folder(scenes).names
    embeddings = np.eye(len(names), dtype="float32")
    embeddings[7] = embeddings[3]
    vectors = tmp_path / "vectors.npz"
    np.savez(vectors, names=np.array(names), embeddings=embeddings)
    settings = [*LOGISTIC, f"vocabulary.word_vectors={vectors}"]
    assert start(tmp_path / "run", *settings) == 2
    error = capsys.readouterr().err
    assert f"those of {names[3]!r} and {names[7]!r} are the same" in error


def test_figures_of_a_task_without_unseen_classes(standard, scenes):
    metrics = json.loads(standard.metrics.read_text())
    assert metrics["zsl"] is None and metrics["seen"] == metrics["gzsl"]
    assert metrics["seen"]["classes"] == 72 and metrics["calibrated_stacking"] is None
    page = standard.report_page.read_text()
    assert "72 seen classes, with labeled training photos, and 0 unseen ones" in page
    own = DataManifest.read(standard.data_manifest)
    other = describe_data("folder", read_folder(scenes), Vocabulary.load(standard.vocabulary))
    assert own.fingerprint == other.fingerprint and own.hash != other.hash
    assert own.differences(other) == ["other seen and unseen groups of the same classes"]


def evaluated(runs, data, tmp_path, *options):
    command = [*map(str, runs), "--data", str(data), "--output", str(tmp_path / "x.json")]
    return evaluate.main([*command, *options])


def test_evaluate_counts_the_classes_of_the_run_as_seen(standard, scenes, tmp_path):
    assert evaluated([standard.path], scenes, tmp_path) == 0
    again, before = json.loads((tmp_path / "x.json").read_text()), standard.metrics.read_text()
    for part in ("zsl", "gzsl", "seen", "data_hash"):
        assert again[part] == json.loads(before)[part]


def test_evaluate_refuses_classes_that_the_run_does_not_score(standard, scenes, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    with (data / "classes.csv").open("a") as classes:
        classes.write("red thing,unseen\n")
    assert evaluated([standard.path], data, tmp_path) == 2
    error = capsys.readouterr().err
    assert "scores the classes it was trained on and no others" in error and "'red thing'" in error
    vectors = ["--word-vectors", str(scenes / "class_attributes.csv")]
    assert evaluated([standard.path], scenes, tmp_path, *vectors) == 2
    assert "(logistic) scores the classes it was trained on, by its own" in capsys.readouterr().err


def test_runs_of_the_two_tasks_have_no_common_figures(standard, scenes, tmp_path, capsys):
    other = RunFolder(tmp_path / "other")
    shutil.copytree(standard.path, other.path)
    other.config.write_text(other.config.read_text().replace("all_seen: true", "all_seen: false"))
    assert evaluated([standard.path, other.path], scenes, tmp_path) == 2
    assert "count other classes as seen (data.all_seen)" in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_scores_the_classes_of_the_run(signatures, run):
    photos = tf.constant([encoded("JPEG", (80, 60)), encoded("PNG")])
    every = signatures["serving_default"](
        images=photos, class_embeddings=tf.constant(run.vocabulary.embeddings)
    )["scores"]
    rows = [70, 2, 5]
    some = tf.constant([run.vocabulary.names[row] for row in rows])
    found = signatures["tag"](images=photos, class_names=some)["scores"]
    np.testing.assert_allclose(found, every.numpy()[:, rows], rtol=1e-5, atol=1e-6)
    known = signatures["tag_known"](images=photos)
    np.testing.assert_allclose(known["scores"], -np.sort(-every, axis=1)[:, :5], atol=1e-6)
    assert "explain" not in signatures


def test_an_export_refuses_other_classes(signatures, run):
    photos = tf.constant([encoded("PNG")])
    other = tf.constant(np.stack([run.vocabulary.embeddings[0], np.eye(14, dtype="float32")[0]]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"class_embeddings: .* in row 1"):
        signatures["serving_default"](images=photos, class_embeddings=other)
    features = signatures["features"](images=photos)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"class_embeddings: .* in row 1"):
        signatures["rescore"](**features, class_embeddings=other)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"class_names\[0\] zebra: no such"):
        signatures["tag"](images=photos, class_names=tf.constant(["zebra"]))


def test_what_lies_beside_the_export(model_dir, signatures, run):
    from tensorflow_serving.apis import prediction_log_pb2

    extra = model_dir / "1" / "assets.extra"
    assert Vocabulary.load(extra / "vocabulary.npz").groups == ("seen",) * 72
    card = (extra / "model_card.md").read_text()
    assert "Tags photos with the 72 classes that it was trained on" in card
    for record in tf.data.TFRecordDataset(str(extra / "tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(own)) for name, own in request.inputs.items()}
        signatures[request.model_spec.signature_name](**inputs)


def test_what_needs_any_class_is_refused(standard, model_dir, scenes, tmp_path, capsys):
    vectors = ["--word-vectors", str(scenes / "class_attributes.csv")]
    assert export.main([str(standard.path), str(model_dir), *vectors]) == 2
    assert "--word-vectors" in capsys.readouterr().err
    folder = str(tmp_path / "index")
    assert index.main([str(model_dir), str(scenes), folder]) == 0
    capsys.readouterr()
    assert retag.main([folder, "--classes", "red plain star, zebra"]) == 2
    assert "zebra" in capsys.readouterr().err
