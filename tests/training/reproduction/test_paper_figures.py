import json

import numpy as np
import pytest
from plots import assert_drawn, assert_picture

from biam_tf.errors import UserError
from training.config import load_config
from training.report import region_features
from training.reproduction.entries import Entry, TrainedEntry
from training.reproduction.paper_figures import FIGURES, figure_entries, make_figure

pytest.importorskip("matplotlib")

FEATURES = np.random.default_rng(0).normal(size=(12, 5))
POINTS = region_features.RegionFeatures(np.array([0, 1]), np.repeat([0, 1], 6), FEATURES, FEATURES)


@pytest.fixture
def rows(finished):
    """Two rows of a figure, both made of one small run."""
    metrics = json.loads(finished.metrics.read_text())
    own = {"folders": (finished.path,), "metrics": (metrics,)}
    return {
        "num_heads-2": TrainedEntry(Entry("two heads"), **own),
        "top_k-3": TrainedEntry(Entry("k of 3"), **own),
        "image_size-64": TrainedEntry(Entry("64 pixels"), **own),
        "gone": TrainedEntry(Entry("gone"), error="it is gone"),
    }


@pytest.mark.parametrize("number", FIGURES)
def test_a_figure_is_drawn_with_its_numbers_beside(
    number, rows, tmp_path, monkeypatch, saved_figures
):
    if number == 6:
        pytest.importorskip("sklearn")
        with pytest.raises(UserError, match="too few"):  # 8 photos
            make_figure(number, rows, tmp_path / "figure")
        monkeypatch.setattr(region_features, "gather", lambda *_: POINTS)
    figure = make_figure(number, rows, tmp_path / "figure")
    assert len(figure.pictures) == (3 if number == 8 else 1)
    for picture in figure.pictures:
        assert_picture(picture)
    mean = 100 * rows["top_k-3"].metrics[0]["zsl"]["mAP"]
    if number in (5, 7):
        assert_drawn(saved_figures[0], mean)
    zsl = f"{mean:.1f}"
    text = figure.table.markdown()
    expected = {5: f"| k of 3 | {zsl} |", 6: "| k of 3 | 12 |", 7: f"| 3 | {zsl} |", 8: "of 24 |"}
    assert expected[number] in text and "gone" not in text


@pytest.mark.parametrize("number", FIGURES)
def test_what_a_figure_trains_are_configurations(number):
    for entry in figure_entries(number).values():
        load_config(None, entry.settings)
