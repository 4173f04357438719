import csv
import dataclasses

import pytest
from plots import assert_drawn, assert_labels_apart, assert_picture

from biam_tf.errors import UserError
from biam_tf.metrics.bootstrap import Difference
from training.experiments.trials import load_config
from training.reproduction import results
from training.reproduction.entries import Entry, TrainedEntry
from training.reproduction.paper_tables import TABLES, make_table
from training.reproduction.results import Comparison

pytestmark = pytest.mark.unit


def metrics(value):
    f1 = {"f1": value / 2, "precision": 0.1, "recall": 0.1}
    part = {"mAP": value, "weighted_mAP": value + 0.1, "F1@3": f1, "F1@5": None}
    return {"headline": "mAP", "zsl": part, "gzsl": {**part, "mAP": value / 10}, "seen": part}


@pytest.fixture
def trained(tmp_path):
    tried = {("training.seed=1",): 20.0, (): 10.0}
    own = {"folders": (tmp_path / "a", tmp_path / "b"), "metrics": (metrics(0.2), metrics(0.3))}
    return {
        "lesa": TrainedEntry(Entry("LESA"), ("training.seed=1",), tried, **own),
        "conse": TrainedEntry(Entry("CONSE"), error="it is gone"),
        "biam": TrainedEntry(Entry("BiAM, as configured"), **own),
    }


def comparison():
    figures = {"zsl": {"mAP": Difference(-0.02, -0.03, -0.01)}}
    return Comparison("biam", 1000, {"lesa": figures})


def test_a_row_has_mean_and_spread_the_papers_figure_and_the_difference(trained):
    text = results.format_rows(make_table(1), trained, comparison(), "folder", (3, 5))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert lines[0][:3] == ["Method", "Task", "mAP"] and "another data set" in lines[0][5]
    assert lines[2] == ["LESA", "ZSL", "25.0 ± 7.1", "12.5 ± 3.5", "-", "19.4", "31.6",
                        "28.7", "-2.0 (-3.0 to -1.0) *"]  # fmt: skip
    assert lines[3][:3] == ["", "GZSL", "2.5 ± 0.7"]
    undefined = Difference(*[float("nan")] * 3)
    none = Comparison("biam", 1000, {"lesa": {"zsl": {"mAP": undefined}}})
    text = results.format_rows(make_table(1), trained, none, "folder", (3, 5))
    assert "nan" not in text and text.splitlines()[2].endswith("| - |")
    assert lines[4][:5] == ["CONSE", "ZSL", "failed", "", ""] and lines[4][5] == "9.4"
    same = results.format_rows(make_table(1), trained, comparison(), "nus_wide", (3, 5))
    assert "another data set" not in same and "NUS-WIDE" in same


def test_notes_say_what_was_tried_and_what_failed(trained):
    text = results.notes(trained, budget=2, seeds=2, resamples=1000)
    assert "- LESA: --set training.seed=1 (validation 20.0, 10.0)" in text
    assert "- CONSE: it is gone" in text and "1000 draws" in text


def test_every_seed_and_task_has_a_row_of_its_own(trained, tmp_path):
    results.write_seeds(tmp_path / "t.csv", trained, (3, 5))
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and rows[1]["task"] == "GZSL" and rows[1]["F1@5"] == ""
    assert rows[2]["mAP"] == "30.000"


def test_the_picture_shows_every_mean(trained, tmp_path, saved_figures):
    results.draw_rows(tmp_path / "t.png", make_table(1), trained)
    assert_picture(tmp_path / "t.png")
    assert_drawn(saved_figures[0], 25.0, 2.5)  # ZSL, GZSL
    assert_labels_apart(saved_figures[0])


@pytest.mark.parametrize("number", TABLES)
def test_every_row_of_every_table_is_a_configuration_and_has_the_papers_figures(number):
    table = make_table(number)
    assert set(table.published) <= set(table.entries) and list(table.entries)[-1] == "biam"
    shared = ("backbone={name: vgg19, weights: imagenet, trainable: false}",)
    for entry in table.entries.values():
        for candidate in entry.candidates or ((),):
            load_config(None, [*shared, *entry.settings, *candidate])


def test_later_systems_stand_beside_the_papers_rivals_with_their_own_papers_figures():
    table = make_table(1, backbone_classes=True)
    later = ["sdl", "ml_decoder", "query_sharing", "mkt", "dual_prompt", "ot_match"]
    assert {*later, "eszsl", "backbone_classes", "recommended"} <= set(table.entries)
    assert table.published["ml_decoder"][0] == (31.1, None, None)
    assert "TResNet-L" in table.later_sources["ml_decoder"]
    some = table.with_rows(["biam", "sdl"])
    assert list(some.entries) == ["sdl", "biam"] and not some.later_sources


def test_a_system_that_a_table_does_not_have_is_a_row_if_it_scores_the_tables_classes():
    table, standard = make_table(3), make_table(6)
    some = table.with_rows(["biam", "lesa"])
    assert list(some.entries) == ["lesa", "biam"]
    assert some.entries["lesa"] == make_table(1).entries["lesa"]
    assert "mkt" in standard.with_rows(["mkt", "biam"]).entries
    for name in ("logistic", "clip", "lessa"):  # for seen classes; for one kind of backbone; none
        with pytest.raises(UserError, match=f"--rows {name}: table 3 has no such row"):
            table.with_rows([name])


def test_parts_of_the_preset_recommended_are_rows_of_any_table_that_name_their_settings():
    changed = {
        "recommended_with_context_blocks": {
            "region_context": "self_attention",
            "scene_context": "channel_gate",
        },
        "recommended_without_backbone_classes": {"use_backbone_classes": "none"},
    }
    heads = {}
    for number in (1, 3):
        rows = make_table(number).with_rows([*changed, "recommended"]).entries
        assert list(rows) == [*changed, "recommended"]
        heads = {
            key: load_config("configs/recommended.yaml", row.settings).head.settings
            for key, row in rows.items()
        }
    plain = heads["recommended"]
    assert plain == load_config("configs/recommended.yaml", []).head.settings
    for key, settings in changed.items():
        assert heads[key] == dataclasses.replace(plain, **settings) != plain


def test_rows_without_training_stand_in_the_tables_of_image_text_models():
    for number in (1, 2, 6, 7):
        assert {"clip", "clip_scene"} <= set(make_table(number, image_text=True).entries)
        assert "clip" not in make_table(number).entries
    rows = make_table(1, image_text=True).with_rows(["clip", "recommended"]).entries
    assert list(rows) == ["clip", "recommended"]
    for entry, system in zip(rows.values(), ("clip", "biam"), strict=True):
        assert load_config("configs/siglip2.yaml", entry.settings).head.system == system


def test_figures_that_are_undefined_are_a_dash_and_the_classes_that_count_are_named(
    tmp_path, saved_figures
):
    undefined = {
        "mAP": None,
        "weighted_mAP": None,
        "F1@3": None,
        "F1@5": None,
        "classes": 2,
        "classes_counted": 0,
        "classes_without_positives": 2,
        "classes_without_negatives": 0,
    }
    all_classes = undefined | {"mAP": 0.5, "classes": 9, "classes_counted": 7}
    own = {
        "headline": "mAP",
        "zsl": undefined,
        "gzsl": all_classes,
        "seen": None,
        "convention": {"classes_without_positives": "left_out"},
    }
    row = TrainedEntry(Entry("BiAM"), folders=(tmp_path / "a",) * 2, metrics=(own, own))
    table, rows = make_table(1), {"biam": row}
    text = results.format_rows(table, rows, Comparison("biam", 100, {}), "folder", (3, 5))
    assert "nan" not in text and "| BiAM | ZSL | - | - | - |" in text
    assert "|  | GZSL | 50.0 ± 0.0 | - | - |" in text
    notes = results.notes(rows, budget=1, seeds=2, resamples=100)
    assert "Classes that count in mAP: ZSL 0 of 2, GZSL 7 of 9." in notes
    assert "GZSL: 7 of 9 classes count in mAP; 2 have no photo that shows them." in notes
    results.write_seeds(tmp_path / "t.csv", rows, (3, 5))
    with (tmp_path / "t.csv").open() as file:
        zsl, gzsl, *_ = csv.DictReader(file)
    assert (zsl["mAP"], zsl["classes in mAP"], zsl["classes"]) == ("", "0", "2")
    assert (gzsl["mAP"], gzsl["classes in mAP"], gzsl["classes"]) == ("50.000", "7", "9")
    results.draw_rows(tmp_path / "t.png", table, rows)
    assert_picture(tmp_path / "t.png")
