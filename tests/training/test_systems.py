import csv

import numpy as np
import pytest

from training import trials
from training.systems import Row, run_systems, table_3, write_table


@pytest.fixture
def trained(monkeypatch):
    """Stands in for training: notes the configurations; figures depend on the seed."""
    configs = []

    def run(config):
        configs.append(config)
        value = (config.training.seed + 1) / 100
        f1 = {"f1": value, "precision": value, "recall": value}
        part = {"mAP": value, "F1@3": f1, "F1@5": None}
        return {"zsl": part, "gzsl": {**part, "F1@5": f1}}

    monkeypatch.setattr(trials, "run", run)
    monkeypatch.setattr(trials, "best_validation", lambda folder: {})
    return configs


def test_every_system_is_trained_with_every_seed_into_a_folder_of_its_own(trained, tmp_path):
    rows = run_systems(table_3(), None, ["training.epochs=2"], tmp_path, seeds=2)
    assert len(rows) == 7 and len(trained) == 14
    assert len({config.output for config in trained}) == 14
    assert {config.training.epochs for config in trained} == {2}
    assert rows[0].values["ZSL mAP"] == [1.0, 2.0]
    assert np.isnan(rows[0].values["ZSL F1@5"]).all()


def test_systems_differ_in_what_their_name_says(trained, tmp_path):
    run_systems(table_3(), None, ["head.top_k=4"], tmp_path, seeds=1)
    heads = {
        system: config.head.keywords() for system, config in zip(table_3(), trained, strict=True)
    }
    assert heads["scene context alone (SCB)"]["region_context"] == "none"
    assert heads["BiAM, released form"]["preset"] == "released"
    assert heads["BiAM, released form"]["top_k"] == 6
    assert heads["BiAM, as configured"]["top_k"] == 4


def test_table_has_mean_and_spread_and_every_seed(tmp_path):
    values = {name: [10.0, 12.0] for name in trials.FIGURES}
    text = write_table([Row("ours", [4, 5], values)], tmp_path)
    assert "| ours | 11.0 ± 1.4 |" in text == (tmp_path / "table.md").read_text()
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["4", "5"] and rows[1]["ZSL mAP"] == "12.000"
