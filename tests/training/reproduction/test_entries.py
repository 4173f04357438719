"""What is trained for a table, with training itself standing in."""

import dataclasses
import json
import pathlib

import pytest

from biam_tf.errors import UserError
from biam_tf.models import BIAM
from biam_tf.models.presets import PRESETS
from biam_tf.models.systems import SYSTEMS
from training.reproduction import entries
from training.reproduction.entries import Entry, Study, train_entries

RATE = "training.optimizer.learning_rate={}"


@pytest.fixture
def trained(monkeypatch):
    """Notes the configurations; the learning rate 0.002 is the best on validation photos."""
    configs = []

    def run(config):
        configs.append(config)
        folder = pathlib.Path(config.output)
        folder.mkdir(parents=True)
        good = 1.0 if config.training.optimizer.learning_rate == 0.002 else 0.5
        log = {"epoch": 1, "best_epoch": 1, "validation": {"zsl": good, "gzsl": 0.1, "seen": 0.9}}
        (folder / "log.jsonl").write_text(json.dumps(log) + "\n")
        metrics = {"zsl": {"mAP": good}, "seed": config.training.seed}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return metrics

    monkeypatch.setattr(entries, "run", run)
    return configs


CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


def study(tmp_path, **changes) -> Study:
    given = {"config": None, "settings": ("training.seed=4",), "seeds": 2, "budget": 3}
    return Study(**{**given, "output": tmp_path, **changes})


RATES = Entry("rates", candidates=tuple((RATE.format(rate),) for rate in (1e-3, 2e-3, 3e-3, 4e-3)))


def test_the_best_candidate_on_validation_within_the_budget_gets_all_seeds(trained, tmp_path):
    row = train_entries({"rates": RATES}, study(tmp_path))["rates"]
    tried = [(c.training.optimizer.learning_rate, c.training.seed) for c in trained]
    assert tried == [(1e-3, 4), (2e-3, 4), (3e-3, 4), (2e-3, 5)]
    assert row.chosen == RATES.candidates[1] and list(row.tried.values()) == [30, 55, 30]
    assert [metrics["seed"] for metrics in row.metrics] == [4, 5]


def test_a_budget_of_one_takes_the_first_candidate_unseen(trained, tmp_path):
    row = train_entries({"rates": RATES}, study(tmp_path, budget=1, seeds=1))["rates"]
    assert len(trained) == 1 and row.chosen == RATES.candidates[0] and not row.tried


def test_what_is_done_is_taken_by_its_settings_from_any_row(trained, tmp_path):
    train_entries({"rates": RATES}, study(tmp_path))
    again = Entry("another name", (RATE.format(2e-3),))
    row = train_entries({"again": again}, study(tmp_path, seeds=3))["again"]
    assert len(trained) == 5 and trained[-1].training.seed == 6
    assert len({config.output for config in trained}) == 5
    assert row.folders[0] == pathlib.Path(trained[1].output)


def test_a_run_is_named_by_what_its_preset_stands_for(tmp_path, monkeypatch):
    def folder(*settings):
        return study(tmp_path).config_of(settings, 4).output

    recommended = folder("head.preset=recommended")
    assert folder("head.preset=recommended", "head.classifier=cosine") == recommended
    assert folder("head.preset=paper") == folder() != recommended
    changed = dataclasses.replace(PRESETS["recommended"], score_scale=3.0)
    changed = dataclasses.replace(BIAM, presets={**PRESETS, "recommended": changed})
    monkeypatch.setitem(SYSTEMS, "biam", changed)
    assert folder("head.preset=recommended") != recommended


IGNORED = "backbone.orientation=ignore"  # early versions did not turn photos


@pytest.mark.parametrize(
    ("config", "settings", "name"),
    [
        (None, ["head.preset=recommended_0_1", IGNORED], "biam-01ac60b8b1-seed4"),
        ("nus_wide_paper.yaml", ["data.directory=photos"], "biam-6f17fe57b3-seed4"),
    ],
)
def test_runs_of_early_versions_are_found_by_their_names(tmp_path, config, settings, name):
    path = None if config is None else CONFIGS / config
    assert study(tmp_path, config=path).config_of(settings, 4).output.endswith(f"/{name}")


def test_a_row_that_cannot_be_made_says_why_and_the_others_go_on(trained, tmp_path):
    wrong = Entry("wrong", ("head.preset=nothing",))
    rows = train_entries({"wrong": wrong, "rates": RATES}, study(tmp_path))
    assert "unknown preset 'nothing'" in rows["wrong"].error and rows["rates"].error is None
    with pytest.raises(UserError, match=r"no row of the table could be made: .*'nothing'"):
        train_entries({"wrong": wrong}, study(tmp_path))
