"""The code and the commands of docs/tutorials run as they stand, one test per page."""

import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
from tiny_run import TINY
from tutorial_pages import assert_written, follow

from biam_tf.models.systems import SYSTEMS
from biam_tf.vocabulary import Vocabulary

pytestmark = pytest.mark.integration

# The runs of a page take minutes, those of its test seconds.
FULL_TABLE = "--set data.pictures=600 --set training.epochs=5"


def quick_table(scenes) -> str:
    settings = ("data.name=folder", *TINY, "training.epochs=1", "backbone.image_size=32")
    return " ".join((f"--data {scenes}", *(f"--set {setting}" for setting in settings)))


@pytest.fixture
def here(tmp_path, scenes, monkeypatch):
    """An empty folder to work in, with some photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for photo in sorted((scenes / "images").iterdir())[:24]:
        shutil.copy(photo, tmp_path / "photos")
    return tmp_path


def test_tag_your_photos(here, finished, monkeypatch):
    # The pretrained tagger needs packages of weights; a trained run takes its place.
    for module in ("biam_tf.tagger", "biam_tf.pretrained"):
        monkeypatch.setattr(f"{module}.pretrained_run", lambda name: finished.path)
    own = Vocabulary.load(finished.vocabulary).names
    names, _ = follow("tag_your_photos.md", {"dog, red car, beach": ", ".join(own[:2])})
    assert len((here / "tags.csv").read_text().splitlines()) >= 24
    assert names["scores"].shape == (1, 2) and (here / "my-thing.npz").is_file()


def test_train_on_your_labels(here, scenes, finished, monkeypatch):
    from training import run
    from training.config import load_config

    rows = (scenes / "annotations.csv").read_text().splitlines()
    with open(here / "labels.csv", "w") as file:
        file.write("image,labels\n")
        for row in rows[1:]:
            image, _, labels = row.split(",")[:3]
            if (here / "photos" / pathlib.PurePath(image).name).exists():
                file.write(f"photos/{pathlib.PurePath(image).name},{labels}\n")
    unseen = rows[1].split(",")[2].split(";")[0]
    asked = []

    def main(arguments):  # its settings are read; the run is one that ended before
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        settings = [value for key, value in itertools.pairwise(arguments) if key == "--set"]
        asked.append(load_config(options["--config"], settings))
        (here / "runs").mkdir()
        (here / "runs" / "mine").symlink_to(finished.path)
        return 0

    monkeypatch.setattr(run, "main", main)
    names, _ = follow(
        "train_on_your_labels.md",
        {"red circle": unseen, "--data my-photos": f"--data {scenes}"},
    )
    assert_written("train_on_your_labels.md")
    assert asked[0].output == "runs/mine" and asked[0].head.settings.classifier == "cosine"
    assert (here / "my-photos" / "classes.csv").read_text().count("unseen") == 1
    assert (here / "description" / "description.html").is_file() and 0 < names["figures"]["zsl"][
        "mAP"
    ]


def test_the_layers_in_your_own_model(here):
    import keras

    names, printed = follow("layers_in_keras.md")
    losses = names["history"].history["loss"]
    assert losses[-1] < 0.5 * losses[0] and names["best"] == 6  # the unseen class
    again = keras.models.load_model("mine.keras")
    np.testing.assert_allclose(
        again([names["pictures"], names["embeddings"]]), names["scores"], 1e-4
    )
    assert_written("layers_in_keras.md", printed)


def test_reproduce_a_table_then_a_new_system(here, scenes, monkeypatch):
    quick = {"--seeds 2": "--seeds 1", FULL_TABLE: quick_table(scenes)}
    names, printed = follow("reproduce_a_table.md", quick)
    assert "| LabelEM | ZSL |" in printed[0]
    assert [row["method"] for row in names["rows"][::2]] == ["LabelEM", "BiAM, as configured"]
    for row in names["rows"]:
        metrics = json.loads((here / row["run"] / "metrics.json").read_text())
        figure = 100 * metrics[row["task"].lower()]["mAP"]
        assert float(row["mAP"]) == pytest.approx(figure, abs=1e-3)
        assert row["task"] == "GZSL" or f"{row['method']}: ZSL mAP {figure:.1f}\n" in printed[1]

    monkeypatch.setitem(SYSTEMS, "two_scores", None)  # is removed after the test
    own, _ = follow("a_new_system.md", {FULL_TABLE: quick_table(scenes)})
    assert_written("a_new_system.md")
    assert [row["method"] for row in own["rows"][::2]] == ["Two scores", "BiAM, as configured"]
    assert own["rows"][-1] == names["rows"][-1]  # the same run
    names = own
    # Scores are what the page says: of the strongest regions, and of the scene.
    x_r, x_g = (np.asarray(feature) for feature in names["features"])
    weights = {w.path: w.numpy() for w in names["head"].weights}
    regions, scene = (
        np.maximum(x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"], 0)
        for x, name in ((x_r, "regions"), (x_g, "scene"))
    )
    maps, of_scene = (
        x @ (names["classes"] @ names["head"].get_layer(name).kernel.numpy()).T
        for x, name in ((regions, "response_maps"), (scene, "scene_scores"))
    )
    strongest = np.sort(maps.reshape(len(maps), -1, maps.shape[-1]), axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_allclose(names["scores"], strongest + of_scene, rtol=1e-4, atol=1e-5)
