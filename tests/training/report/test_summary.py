"""What the first screen of a report says."""

import pathlib
import types

import numpy as np
import pytest

from biam_tf.contact_sheet import RIGHT, SEEN, UNSEEN, WRONG
from biam_tf.sparse_labels import as_sparse
from training.data.dataset import About
from training.report.classes import ClassFigures, best_and_worst, class_figures
from training.report.page import PARTS
from training.report.summary import against_validation, bands, in_words, next_steps
from training.tables.templates import render

pytestmark = pytest.mark.unit


def entry(name: str, ap: float, group: str = "seen", training: int | None = 50) -> ClassFigures:
    return ClassFigures(name, group, ap, 9, training, None, None)


def test_tags_are_counted_in_words():
    figures = {"f1": 0.5, "precision": 0.754, "recall": 0.25}
    at = {"seen": {"micro": figures}, "zsl": {"micro": dict.fromkeys(figures)}}
    assert in_words({"at_threshold": at}, "seen") == (
        "Of 100 tags it gives, 75 are right. Of 100 it should give, it gives 25."
    )
    assert in_words({"at_threshold": at}, "zsl").startswith("Nothing can be measured")
    best = {"at_threshold": None, "seen": {"mAP": 1, "F1@5": None, "F1@3": figures}}
    assert in_words(best, "seen").startswith("Of 100 tags among each photo's 3 best, 75 are right.")
    at["seen"]["micro"] = dict.fromkeys(figures, 0.0)
    assert in_words({"at_threshold": at}, "seen") == "None of the tags it gives is right."


def test_classes_are_divided_by_their_average_precision():
    shown = bands([entry("a", 0.9), entry("b", 0.75), entry("c", 0.6), entry("d", 0.2)])
    assert (shown.good, shown.weak, shown.classes) == (2, 1, 4)
    assert [own.name for own in shown.best] == ["a", "b"]
    assert [own.name for own in shown.worst] == ["d"]
    shown = bands([entry("a", 0.4), entry("b", 0.1)])  # none is good
    assert [own.name for own in (*shown.best, *shown.worst)] == ["a", "b", "a"]
    assert bands([]).best == () and best_and_worst([entry("a", 0.4)]) == []


def test_figures_of_a_class_are_those_of_its_tags(rng):
    scores, labels = rng.normal(size=(50, 3)), rng.choice([-1, 0, 1], size=(50, 3))
    labels[:, 2] = -1
    cuts = np.array([0.3, 9.0, 0.0])
    thresholds = types.SimpleNamespace(cuts=cuts)
    training = types.SimpleNamespace(labels=as_sparse(np.array([[1, -1, -1], [1, 1, -1]], np.int8)))
    found = class_figures(scores, labels, list("abc"), ["seen"] * 3, thresholds, training)
    assert [own.ap for own in found] == sorted((own.ap for own in found), reverse=True)
    by_name = {own.name: own for own in found}
    assert by_name.keys() == {"a", "b"}  # no photo shows c
    given = (scores[:, 0] >= 0.3) & (labels[:, 0] != 0)
    right = given & (labels[:, 0] > 0)
    assert by_name["a"].precision == pytest.approx(right.sum() / given.sum())
    assert by_name["a"].recall == pytest.approx(right.sum() / (labels[:, 0] > 0).sum())
    assert by_name["b"].precision is None and by_name["b"].recall == 0
    assert (by_name["a"].training, by_name["b"].training) == (2, 1)


def metrics(split: str = "test") -> dict:
    part = {"mAP": 0.7, "classes": 10, "classes_counted": 10}
    return {"split": split, "at_threshold": None, "zsl": part, "gzsl": part, "seen": part}


def test_validation_that_promised_more_is_explained():
    validation = {"seen": 0.95, "gzsl": 0.69}
    counts = {"seen": [10, 10], "gzsl": [6, 10]}
    first = {"best_epoch": 1, "validation": validation, "validation_classes": counts}
    records = [first, {"best_epoch": 1, "validation": {"seen": 0.1}}]
    rows, reasons = against_validation(records, metrics(), About(unseen_in_training=False), PARTS)
    assert [(own.title, own.is_alike, own.validation_classes) for own in rows] == [
        (PARTS["seen"], False, "10"),
        (PARTS["gzsl"], True, "6 of 10"),
    ]
    assert reasons[0].startswith("No validation photo shows an unseen class")
    assert reasons[1].startswith("Photos of split test show unseen classes as well")
    assert against_validation(records, metrics("val"), About(), PARTS) == ([], [])
    assert against_validation([], metrics(), About(), PARTS) == ([], [])


def steps(records=(), shown=None, of_training=True) -> list:
    folder = types.SimpleNamespace(
        path=pathlib.Path("runs/a b"), config=pathlib.Path("runs/a b/config.yaml")
    )
    run = types.SimpleNamespace(
        folder=folder,
        thresholds=object(),
        system="biam",
        settings={"training": {"select_on": "seen_mAP", "epochs": 2}},
    )
    return next_steps(run, metrics(), records, shown or bands([]), of_training)


def test_the_next_steps_are_those_that_the_figures_suggest():
    plain = steps()
    assert plain[0].text.startswith("Look for wrong and missing labels")
    assert all("'runs/a b'" in own.command for own in plain)  # can be pasted
    rising = [
        {"epoch": epoch, "best_epoch": epoch, "validation": {"seen": 0.5 + 0.1 * epoch}}
        for epoch in (1, 2)
    ]
    shown = bands([entry("a", 0.9), entry("rare", 0.2, training=3), entry("new", 0.1, "unseen", 0)])
    more = [own.text for own in steps(rising, shown)]
    assert more[0] == "Add training photos of weak classes that have few of them: rare (3)."
    assert more[1] == "Train longer: the last epoch was the best, by 10.0 points."
    assert len(steps(of_training=False)) == 2
    rising[1]["best_epoch"] = 1
    assert not any(own.text.startswith("Train longer") for own in steps(rising))


def test_pages_have_the_colors_of_the_contact_sheet():
    style = render("training.report", "palette.css", {})
    for name, color in (("right", RIGHT), ("wrong", WRONG), ("seen", SEEN), ("unseen", UNSEEN)):
        assert f"--{name}: {color};" in style
