"""Five SGD steps of the released preset against the same steps of the released code."""

import numpy as np
import pytest
import tensorflow as tf

from biam_tf.checkpoints import load_released_checkpoint
from biam_tf.losses import RankingLoss
from biam_tf.models import build_head

pytestmark = pytest.mark.rounding

LEARNING_RATE = 3e-3
NO_DROPOUT = {"attention_dropout": 0.0, "output_dropout": 0.0, "scene_dropout": 0.0}


@pytest.fixture
def trained(golden, test_data):
    """The head after the five steps, their losses, and the inputs."""
    heads, top_k = int(golden["heads"]), int(golden["top_k"])
    released = load_released_checkpoint(
        test_data / "golden" / "biam_release_small.pth", heads, top_k
    )
    sizes = {"channels": int(golden["channels"]), "num_heads": heads, "top_k": top_k}
    head = build_head((14, 14, 512), 4096, 300, preset="released", **sizes, **NO_DROPOUT)
    for weight, loaded in zip(head.weights, _without_generators(released), strict=True):
        weight.assign(loaded)
    inputs = [golden[name] for name in ("region_features", "scene_feature", "class_embeddings")]
    loss = RankingLoss(reduction="mean_of_violations")
    losses = []
    for _ in range(5):
        with tf.GradientTape() as tape:
            value = loss(golden["labels"], head(inputs, training=True))
        losses.append(float(value))
        for variable, gradient in zip(
            head.trainable_variables, tape.gradient(value, head.trainable_variables), strict=True
        ):
            variable.assign_sub(LEARNING_RATE * gradient)
    return head, losses, inputs


def _without_generators(head):
    return [w for w in head.weights if "seed_generator" not in w.path]


def test_the_losses_of_five_training_steps_are_the_released_ones(trained, golden):
    np.testing.assert_allclose(trained[1], golden["train_losses"], rtol=1e-5)


def test_the_scores_after_training_are_the_released_ones(trained, golden):
    head, _, inputs = trained
    # PyTorch keeps the unbiased variance in its running statistics, Keras the biased one.
    np.testing.assert_allclose(head(inputs), golden["scores_after_training"], atol=5e-3)
