import math

import keras
import numpy as np
import pytest

from training.loop.optimizer import WarmupThenDecay

pytestmark = pytest.mark.unit


def rates(schedule, steps):
    return [float(schedule(step)) for step in range(steps)]


def test_warm_up_rises_linearly_and_the_cosine_ends_at_the_final_rate():
    schedule = WarmupThenDecay(1e-3, warmup_steps=4, total_steps=11, final=1e-4)
    cosine = [1e-4 + 9e-4 * 0.5 * (1 + math.cos(math.pi * i / 6)) for i in range(7)]
    np.testing.assert_allclose(
        rates(schedule, 11), [2.5e-4, 5e-4, 7.5e-4, 1e-3, *cosine], rtol=1e-5
    )


def test_constant_stays_at_the_peak():
    schedule = WarmupThenDecay(0.5, warmup_steps=0, total_steps=5, decay="constant")
    assert rates(schedule, 5) == [0.5] * 5


@pytest.mark.parametrize("decay", ["cosine", "constant"])
def test_schedule_is_serialized_with_an_optimizer(decay):
    schedule = WarmupThenDecay(1e-3, 4, 11, 1e-4, decay)
    config = keras.optimizers.serialize(keras.optimizers.Adam(schedule))
    again = keras.optimizers.deserialize(config)
    assert float(again.learning_rate) == pytest.approx(float(schedule(0)))
