"""Files written by version 0.1 still load, resume and score the same; see data/written_by_0_1."""

import csv
import json
import pathlib
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from biam_tf.backbones import weights_fingerprint
from biam_tf.runs import load_run
from serving import retag
from serving.rpc.loader import ModelVersion
from training import evaluate, run
from training.data.features.store import FeatureStore
from training.data.input.sources import FeatureSource

OLD = pathlib.Path(__file__).parent / "data" / "written_by_0_1"
RUNS = ("finished", "recommended")


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> pathlib.Path:
    """A folder with everything that the archives hold, as it lay when it was written."""
    folder = tmp_path_factory.mktemp("old")
    for archive in OLD.glob("*.zip"):
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    return folder


@pytest.fixture(autouse=True)
def in_old_folder(old, monkeypatch):
    """Paths in a run's settings are relative to where it was started."""
    monkeypatch.chdir(old)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """What version 0.1 scored."""
    with np.load(OLD / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def pixels(expected) -> np.ndarray:
    """The test photos, which have the size that the backbone takes."""
    names = expected["images"]
    return np.stack([np.asarray(Image.open(f"photos/{name}"), np.float32) for name in names])


@pytest.fixture
def files(expected) -> list[bytes]:
    return [pathlib.Path("photos", name).read_bytes() for name in expected["images"]]


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def scores_of(path: str, pixels: np.ndarray) -> np.ndarray:
    trained = load_run(path)
    features = trained.backbone(pixels, training=False)
    embeddings = tf.constant(trained.vocabulary.embeddings)
    return trained.head({**features, "class_embeddings": embeddings}, training=False)


@pytest.mark.rounding
@pytest.mark.parametrize("name", RUNS)
def test_a_run_scores_as_before(name, expected, pixels):
    assert_same(scores_of(f"runs/{name}", pixels), expected[f"{name}/scores"])


@pytest.mark.rounding
@pytest.mark.parametrize("name", RUNS)
def test_evaluation_gives_the_figures_of_the_run(name, tmp_path):
    output = tmp_path / "figures.json"
    command = [f"runs/{name}", "--data", "photos", "--output", str(output)]
    assert evaluate.main(command) == 0
    before = json.loads(pathlib.Path("runs", name, "metrics.json").read_text())
    found = json.loads(output.read_text())
    for part in ("zsl", "gzsl", "seen"):
        assert found[part]["mAP"] == pytest.approx(before[part]["mAP"], rel=1e-5)
    assert found["gzsl"]["F1@3"] == pytest.approx(before["gzsl"]["F1@3"], rel=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_cuts_its_scores_where_it_did(name, expected):
    thresholds = load_run(f"runs/{name}").thresholds
    before = json.loads(pathlib.Path("runs", name, "thresholds.json").read_text())
    assert thresholds.global_cut == pytest.approx(before["global"]["threshold"])
    assert thresholds.global_probability == pytest.approx(before["global"]["probability"])
    assert thresholds.decide(expected[f"{name}/scores"]).dtype == bool


@pytest.mark.parametrize("name", RUNS)
def test_a_complete_run_is_not_trained_again(name, capsys):
    assert run.main(["--config", f"runs/{name}/config.yaml"]) == 0
    assert "is complete already" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_resumes_to_the_same_model(name, expected, pixels, tmp_path, capsys):
    folder = tmp_path / "resumed"
    shutil.copytree(f"runs/{name}_stopped", folder)
    config = folder / "config.yaml"
    assert run.main(["--config", str(config), "--set", f"output={folder}"]) == 0
    assert "after 1 epochs and 2 steps" in capsys.readouterr().out
    lines = (folder / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    np.testing.assert_allclose(losses, expected[f"{name}/losses"], rtol=1e-5)
    for file in ("model.keras", "backbone.keras"):
        if not pathlib.Path("runs", name, file).exists():
            continue
        paths = pathlib.Path("runs", name, file), folder / file
        models = [keras.models.load_model(path) for path in paths]
        for before, after in zip(*(model.get_weights() for model in models), strict=True):
            assert_same(after, before)
    assert_same(scores_of(folder, pixels), expected[f"{name}/scores"])
    found = json.loads((folder / "metrics.json").read_text())
    before = json.loads(pathlib.Path("runs", name, "metrics.json").read_text())
    for part in ("zsl", "gzsl", "seen"):
        assert found[part]["mAP"] == pytest.approx(before[part]["mAP"], rel=1e-5)


def test_another_setting_is_still_another_run(capsys):
    command = ["--config", "runs/recommended_stopped/config.yaml"]
    assert run.main([*command, "--set", "head.scene_scores_dropout=0.1"]) == 2
    assert "head.scene_scores_dropout" in capsys.readouterr().err


def test_a_feature_store_is_read(expected):
    store = FeatureStore.open("features")
    regions, scene = store.read(list(expected["images"]))
    np.testing.assert_array_equal(regions, expected["features/regions"])
    np.testing.assert_array_equal(scene, expected["features/scene"])
    store.verify()


@pytest.mark.rounding
def test_a_feature_store_is_that_of_the_backbone_of_a_run(expected, pixels):
    backbone = load_run("runs/recommended").backbone
    store = FeatureStore.open("features", weights_fingerprint=weights_fingerprint(backbone))
    source = FeatureSource(store, list(expected["images"]))
    (batch,) = source.evaluation_batches(len(pixels))
    features = backbone(pixels, training=False)
    for name in ("region_features", "scene_feature"):
        np.testing.assert_allclose(batch[name], features[name], rtol=1e-3, atol=1e-6)  # 16 bits


@pytest.mark.rounding
def test_an_index_is_searched(expected, tmp_path):
    output = tmp_path / "tags.csv"
    classes = [str(name) for name in expected["classes"]]
    command = ["index", "--classes", ",".join(classes), "--top", "6", "--output", str(output)]
    assert retag.main(command) == 0
    with output.open() as file:
        scores = {(row["photo"], row["tag"]): float(row["score"]) for row in csv.DictReader(file)}
    found = [[scores[photo, name] for name in classes] for photo in expected["index/photos"]]
    np.testing.assert_allclose(found, expected["index/scores"], rtol=1e-5, atol=1e-5)


@pytest.mark.rounding
def test_a_class_is_searched_in_an_index(expected, tmp_path):
    output = tmp_path / "photos.json"
    command = ["index", "--classes", "blue circle", "--search", "--top", "3"]
    assert retag.main([*command, "--output", str(output)]) == 0
    (row,) = json.loads(output.read_text())
    column = list(expected["classes"]).index("blue circle")
    best = np.sort(expected["index/scores"][:, column])[::-1][:3]
    assert_same([photo["score"] for photo in row["photos"]], best)


@pytest.mark.rounding
@pytest.mark.parametrize("signature", ["serving_default", "tag", "explain", "tag_known"])
def test_an_export_answers(signature, expected, files):
    inputs = {"images": tf.constant(files)}
    if signature in ("serving_default", "explain"):
        vocabulary = load_run("runs/finished").vocabulary
        inputs["class_embeddings"] = tf.constant(vocabulary.embeddings)
    elif signature == "tag":
        inputs["class_names"] = tf.constant([str(name) for name in expected["classes"]])
    answer = tf.saved_model.load("models/tagger/1").signatures[signature](**inputs)
    recorded = {key: array for key, array in expected.items() if key.startswith(f"{signature}/")}
    assert {f"{signature}/{output}" for output in answer} == set(recorded)
    for output, value in answer.items():
        before = recorded[f"{signature}/{output}"]
        if output == "names":
            np.testing.assert_array_equal(value.numpy().astype(str), before)
        else:
            assert_same(value, before)


def test_the_server_loads_an_export_and_its_warm_up_requests():
    version = ModelVersion(pathlib.Path("models/tagger/1"))
    assert version.warm_up(max_bytes=2**20) > 0
