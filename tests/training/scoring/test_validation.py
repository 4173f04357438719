"""What is measured on validation photos, by which epochs are chosen, and what training needs."""

import dataclasses
import pathlib

import numpy as np
import pytest

from biam_tf.errors import UserError
from biam_tf.metrics import evaluate_scores
from training.config import RunConfig
from training.data.dataset import Split, TaggingDataset
from training.pipeline.examples import trainable_photos
from training.scoring.validation import check_selectable, selected_figure

pytestmark = pytest.mark.unit

NAMES, GROUPS = ("a", "b", "c"), ("seen", "seen", "unseen")


def dataset_of(val, train=((1, -1, -1),), groups=GROUPS) -> TaggingDataset:
    splits = {
        name: Split(tuple(map(str, range(len(labels)))), np.array(labels, np.int8))
        for name, labels in (("val", val), ("train", train))
    }
    return TaggingDataset(pathlib.Path("photos"), NAMES[: len(groups)], groups, splits)


def config_of(**training) -> RunConfig:
    config = RunConfig()
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


WITHOUT_LABELS = [[-1, -1, -1]] * 3
ONLY_PRESENT = [[1, 0, 1], [0, 1, 0]]


def test_classes_without_a_figure_are_announced_once(capsys):
    both = [[1, -1, 1], [-1, -1, -1]]
    assert check_selectable(config_of(), dataset_of(both))
    assert capsys.readouterr().out == (
        "validation mAP is over 1 of 2 seen and 1 unseen classes: the others have no photo in "
        "split val that shows them, or none known not to\n"
    )
    assert check_selectable(config_of(), dataset_of([[1, -1, 1], [-1, 1, -1]]))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (WITHOUT_LABELS, "its photos show none of the classes"),
        (ONLY_PRESENT, "no class has photos that show it and photos known not to show it"),
    ],
)
def test_without_any_figure_the_last_epoch_is_kept_unless_patience_needs_one(
    labels, reason, capsys
):
    dataset = dataset_of(labels)
    assert not check_selectable(config_of(), dataset)
    assert capsys.readouterr().out == (
        f"nothing can be measured on split val: {reason}; the last epoch is kept, not the best\n"
    )
    with pytest.raises(UserError, match=f"training.patience: 3: nothing .*: {reason}"):
        check_selectable(config_of(patience=3), dataset)


@pytest.mark.parametrize(
    ("select_on", "labels", "message"),
    [
        ("zsl_mAP", [[1, -1, -1], [-1, 1, -1]], "shows such a class; choose seen_mAP or gzsl_mAP"),
        ("seen_weighted_mAP", [[-1, -1, 1], [-1, -1, -1]], "zsl_weighted_mAP or gzsl_weighted_mAP"),
        (
            "zsl_mAP",
            [[1, -1, 1], [-1, 1, 1]],
            "known not to show it.*; choose seen_mAP or gzsl_mAP",
        ),
    ],
)
def test_a_figure_that_is_undefined_beside_others_is_refused(select_on, labels, message):
    with pytest.raises(UserError, match=f"training.select_on: {select_on}: .*{message}"):
        check_selectable(config_of(select_on=select_on), dataset_of(labels))


def test_the_log_has_what_is_defined_and_how_many_classes_it_is_over(rng):
    labels = np.array([[1, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    metrics = evaluate_scores(
        rng.normal(size=labels.shape), labels, NAMES, GROUPS, classes_without_positives="left_out"
    )
    value, record = selected_figure(metrics, config_of().training)
    assert value == metrics["seen"]["mAP"] == record["validation"]["seen"]
    assert record["validation_classes"] == {"gzsl": [1, 3], "seen": [1, 2]}
    assert set(record["validation"]) == {"gzsl", "seen"}


@pytest.mark.parametrize(
    ("groups", "train", "message"),
    [
        (("seen", "unseen"), [[1, -1], [-1, 1], [1, 1]], "'a', the only seen class: .* two seen"),
        (GROUPS, [[1, 0, -1], [0, 1, 1]], "a column absent, which names no seen class"),
        (GROUPS, [[1, 1, -1], [1, 1, 1]], "shows all of them: there is nothing to tell apart"),
    ],
)
def test_training_needs_a_class_that_some_photo_does_not_show(groups, train, message):
    with pytest.raises(UserError, match=message):
        trainable_photos(dataset_of([[1] * len(groups)], train, groups), None)


def test_one_absent_label_beside_a_present_one_is_enough():
    split = trainable_photos(dataset_of([[1, 1, 1]], [[1, 0, 0], [1, -1, 0]]), None)
    assert len(split) == 2
