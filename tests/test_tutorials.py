"""The code and the commands of docs/tutorials run as they stand, one test per page."""

import itertools
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from tutorial_pages import follow, notebook, notebook_path

from biam_tf.vocabulary import Vocabulary

pytestmark = pytest.mark.integration


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
    # The notebook is the page with what it printed; the last digits depend on the processor.
    written = json.loads(notebook_path("layers_in_keras.md").read_text(encoding="utf-8"))
    expected = notebook("layers_in_keras.md", printed)
    number = re.compile(r"-?\d+\.\d*")
    for cell, other in zip(written["cells"], expected["cells"], strict=True):
        assert cell["source"] == other["source"]
        shown, said = (
            "".join(line for output in each.get("outputs", ()) for line in output["text"])
            for each in (cell, other)
        )
        assert number.sub("", shown).split() == number.sub("", said).split()
        mine, its = (np.array(number.findall(text), float) for text in (shown, said))
        np.testing.assert_allclose(its, mine, atol=0.5)
