"""Markers say the truth."""

import multiprocessing
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.unit


def kind(request) -> list[str]:
    names = [mark.name for mark in request.node.iter_markers()]
    return [name for name in names if name in ("unit", "integration")]


def test_a_test_has_the_mark_of_its_module(request):
    assert kind(request) == ["unit"]


@pytest.mark.integration
def test_a_mark_of_its_own_replaces_that_of_the_module(request):
    assert kind(request) == ["integration"]
    subprocess.run([sys.executable, "-c", ""], check=True)


def test_a_unit_test_starts_no_process():
    with pytest.raises(pytest.fail.Exception, match="starts a process"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with pytest.raises(pytest.fail.Exception, match="starts a process"):
        multiprocessing.get_context("spawn").Process(target=print).start()


def test_a_unit_test_opens_no_server():
    with socket.socket() as door, pytest.raises(pytest.fail.Exception, match="opens a server"):
        door.listen()


def test_a_unit_test_trains_nothing():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(pytest.fail.Exception, match="trains"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)))
    optimizer = keras.optimizers.SGD()
    with pytest.raises(pytest.fail.Exception, match="trains"):
        optimizer.apply([w * 0 for w in model.trainable_weights], model.trainable_weights)
