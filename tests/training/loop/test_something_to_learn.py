"""Labels that tell a loss nothing are found before a training."""

import keras
import numpy as np
import pytest
from small_systems import SMALL

from biam_tf.errors import UserError
from biam_tf.models import HeadInputs, bind_vocabulary
from biam_tf.models.systems import SYSTEMS
from training.config import HeadConfig, LossConfig
from training.loop.objective import Objective, make_objective, prepare_head, training_model
from training.loop.something_to_learn import require_something_to_learn

pytestmark = pytest.mark.unit

SETTINGS = SMALL | {
    "attention_per_cluster": {"num_clusters": 1},
    "biam": {"channels": 8, "num_heads": 2, "top_k": 2},
}
TRAINED = [name for name, system in SYSTEMS.items() if system.trained and system.fit is None]
LOSSES = [LossConfig("ranking"), LossConfig("ranking", 0.5, "sum"), LossConfig("softmax")]


def check(name, labels):
    labels = np.array(labels, np.int8)
    seen = np.eye(labels.shape[1], 6, dtype="float32")
    inputs = HeadInputs.of_shapes((3, 3, 8), 5, 6, seen)
    system = SYSTEMS[name]
    config = HeadConfig(name, system.settings("paper", **SETTINGS.get(name, {})))
    head = inputs.model(system.build(inputs, config.settings))
    prepare_head(head, config, labels)
    model = bind_vocabulary(training_model(head, config), seen)
    require_something_to_learn(make_objective(head, config, LossConfig()), model, labels, "photos")


def check_loss(loss, labels):
    labels = np.array(labels, np.int8)
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(labels.shape[1])(inputs))
    require_something_to_learn(Objective.of_loss(loss), model, labels, "photos")


@pytest.mark.parametrize("name", TRAINED)
def test_labels_of_several_classes_teach_every_system(name):
    check(name, [[1, -1, -1], [-1, 1, 0], [1, 1, -1]])


@pytest.mark.parametrize("loss", LOSSES)
def test_one_photo_of_many_is_enough(loss):
    check_loss(loss, [[1, 1, 1]] * 600 + [[1, -1, 1]])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "labels",
    [[[1]] * 4, [[1, 1], [1, 1]], [[1, 0], [0, 1], [0, 1]], [[1, 1, 0], [-1, -1, 0]]],
    ids=["one class", "all present", "none absent", "no pair"],
)
def test_labels_without_anything_to_tell_apart_are_refused(labels, loss):
    if loss.name == "softmax" and -1 in np.array(labels):
        return  # which compares photos, too
    with pytest.raises(UserError, match="photos: there is nothing to learn"):
        check_loss(loss, labels)


@pytest.mark.parametrize("name", ["biam", "warp", "wsabie", "fast0tag", "lesa", "conse"])
def test_one_class_is_nothing_to_rank_for_any_system_that_ranks(name):
    with pytest.raises(UserError, match="nothing to learn"):
        check(name, [[1]] * 4)
