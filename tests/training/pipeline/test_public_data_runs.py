"""Public data sets in small, through the command line that their whole takes."""

import json
import pathlib

import pytest
from miniatures import nus_name, write_nus_wide, write_open_images
from tiny_run import TINY

from training import run

pytestmark = pytest.mark.slow

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
# The paper's configurations ask for VGG19 and stored features; these are the smallest there are.
SMALL = [
    *TINY,
    "training.epochs=1",
    "training.schedule.warmup_epochs=0.1",
    "backbone={name: small, image_size: 48, weights: none, trainable: true}",
]


def train(config, directory, output, *settings) -> int:
    own = [f"data.directory={directory}", f"vocabulary.word_vectors={directory}/vectors.txt"]
    command = ["--config", str(CONFIGS / config)]
    for setting in [*SMALL, *own, f"output={output}", *settings]:
        command += ["--set", setting]
    return run.main(command)


def test_nus_wide_trains_as_the_papers_configuration_says(tmp_path, capsys):
    data = write_nus_wide(tmp_path / "nus-wide", left_out=(0, 14))
    assert train("nus_wide_paper.yaml", data, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "12 tags - 4 that are concepts = 8 seen; 6 concepts unseen" in printed
    assert "30 listed, 28 found, 2 missing and left out" in printed
    assert "PARTIAL DATA, not comparable with published figures: 2 of 30 listed photos" in printed
    missing = (tmp_path / "run" / "missing_photos.txt").read_text().splitlines()
    assert missing == [nus_name(0), nus_name(14)]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["images"], metrics["headline"]) == (9, "mAP")
    # As in the published figures, and said below the table.
    assert metrics["convention"]["classes_without_positives"] == "zero"
    assert metrics["partial"] == "2 of 30 listed photos are missing"
    assert (metrics["zsl"]["classes"], metrics["gzsl"]["classes"]) == (6, 14)


def test_nus_wide_trains_on_its_81_concepts_alone(tmp_path):
    data = write_nus_wide(tmp_path / "nus-wide")
    settings = ["data.configuration=standard_81", "data.unlabelled=drop"]
    assert train("nus_wide_released.yaml", data, tmp_path / "run", *settings) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["zsl"] is None and metrics["seen"]["classes"] == 6
    assert metrics["partial"] is None


def test_open_images_reports_its_weighted_map_first(tmp_path, capsys):
    data = write_open_images(tmp_path / "open-images", left_out={("train", 1)})
    settings = ["data.max_labels=3", "training.report=true"]
    assert train("open_images_paper.yaml", data, tmp_path / "run", *settings) == 0
    printed = capsys.readouterr().out
    assert "training photos have more than 3 labels: left out" in printed
    assert "PARTIAL DATA, not comparable with published figures: missing: 1 of 24" in printed
    header = next(line for line in printed.splitlines() if line.startswith("per cent"))
    assert header.split()[2:5] == ["classes", "weighted", "mAP"]
    assert "F1@5" in header
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["headline"] == "weighted_mAP"
    assert metrics["convention"]["classes_without_positives"] == "left_out"
    assert metrics["gzsl"]["F1@10"] is None  # there are 9 classes
    record = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert set(record["validation_weighted"]) == set(record["validation"])
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "weighted by the classes' frequency" in page and "Partial data" in page
