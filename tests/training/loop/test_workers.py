"""Several processes that train together, and the environment variable that names them."""

import contextlib
import json
import random
import signal
import socket
import time

import keras
import numpy as np
import pytest
import warm_processes
from tiny_run import TINY
from warm_processes import WarmProcess

from biam_tf.errors import UserError
from training.loop.workers import read_tf_config
from training.pipeline.run_folder import RunFolder

PAIR = {"worker": ["host-a:2222", "host-b:2222"]}


def tf_config(cluster=PAIR, **task) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_the_first_worker_is_the_chief_unless_there_is_one():
    tasks = [read_tf_config(tf_config(type="worker", index=index)) for index in (0, 1)]
    assert [task.is_chief for task in tasks] == [True, False]
    assert tasks[1].count == 2 and str(tasks[1]) == "worker 1 (host-b:2222)"
    with_chief = PAIR | {"chief": ["host-c:2222"]}
    assert read_tf_config(tf_config(with_chief, type="chief", index=0)).is_chief
    assert not read_tf_config(tf_config(with_chief, type="worker", index="0")).is_chief


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "TF_CONFIG is not set"),
        ({"TF_CONFIG": "{'cluster': 1}"}, "is not JSON"),
        ({"TF_CONFIG": "[1]"}, r"is not a JSON object but \[1\]"),
        ({"TF_CONFIG": "{}"}, "has no cluster"),
        (tf_config({"worker": []}), r"cluster.worker is \[\], not a list of addresses"),
        (tf_config({"worker": "host-a:2222"}), "cluster.worker is 'host-a:2222', not a list"),
        (tf_config({"worker": ["host-a"]}), "names 'host-a', which is not host:port"),
        (tf_config({"worker": ["a:1", "a:1"]}), "names a:1 twice"),
        (tf_config({"ps": ["a:1"]}), "cluster names 'ps', which this strategy does not use"),
        (tf_config({"chief": ["a:1", "b:1"]}), "names 2 processes; there is one chief"),
        (tf_config(), "has no task with a type and an index"),
        (tf_config(type="evaluator", index=0), "task.type is 'evaluator', but the cluster has wor"),
        (tf_config(type="worker", index=2), "task.index is 2, but the cluster has worker 0 to 1"),
        (tf_config(type="worker", index=-1), "task.index is -1"),
        (
            tf_config(type="worker", index="first"),
            "task.index is 'first', which is not a whole",
        ),
    ],
)
def test_a_wrong_tf_config_is_answered_with_what_is_expected(environment, message):
    with pytest.raises(UserError, match=message) as caught:
        read_tf_config(environment)
    assert '"task": {"type": "worker", "index": 0}}' in str(caught.value)


def command(scenes, finished, output, *settings) -> list[str]:
    """One step per epoch, for 20 epochs, so that an epoch's loss is that of a step.

    Rounding differs from processor to processor and from one device to two, so nothing here may
    turn it into something larger. The features are fixed and those of a trained backbone. Adam
    does not divide by the size of the gradient. The loss is smooth: a hinge over pairs of classes
    gains or loses whole pairs. Dropout, whose noise has the shape of a device's part of the
    batch, is left out. At this rate, 20 losses move by at most 2e-6 when the first weights are
    changed by 1e-6 (15 random changes); at 1e-2 and 1e-1 by up to 2e-4.
    """
    own = [
        *(f"head.{name}=0.0" for name in ("attention_dropout", "output_dropout", "scene_dropout")),
        "training.optimizer.name=sgd",
        "training.optimizer.learning_rate=1e-3",
        "training.loss.name=softmax",
        "training.schedule.warmup_epochs=0",
        "training.epochs=20",
        "training.batch_size=36",
        "data.cache=stream",  # each worker reads its own records alone
        "backbone.trainable=false",
        f"backbone.weights={finished.backbone}",
        f"data.directory={scenes}",
        "data.name=folder",
        f"data.feature_store={output.parent / 'features'}",
        f"output={output}",
        *settings,
    ]
    arguments = []
    for setting in [*TINY, *own]:
        arguments += ["--set", setting]
    return arguments


def free_ports(count: int) -> list[int]:
    """Free ports below those that the system gives to whoever asks for any, such as other tests."""
    ports: set[int] = set()
    while len(ports) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("localhost", port)):
            ports.add(port)
    return sorted(ports)


def start_workers(count: int, arguments: list[str]) -> list[WarmProcess]:
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(count)]}
    return [
        WarmProcess("training.run", arguments, tf_config(cluster, type="worker", index=index))
        for index in range(count)
    ]


def losses(folder: RunFolder) -> np.ndarray:
    return np.array([json.loads(line)["loss"] for line in folder.log.read_text().splitlines()])


@pytest.fixture(scope="module")
def one_process(start, scenes, finished, tmp_path_factory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("workers") / "one")
    settings = command(scenes, finished, folder.path)[1::2]
    assert start(folder.path, *settings) == 0
    falling = losses(folder)
    assert len(falling) == 20 and falling[-1] < 0.9 * falling[0]
    return folder


@pytest.mark.rounding
@pytest.mark.slow
def test_three_workers_and_then_two_take_the_steps_of_one_and_the_loss_of_one_ends_all(
    scenes, finished, one_process
):
    folder = RunFolder(one_process.path.parent / "several")
    arguments = command(scenes, finished, folder.path, "strategy=multi_worker")

    chief, *others = start_workers(3, arguments)
    for line in chief.stdout:
        if line.startswith("epoch   6"):
            others[-1].kill()
            break
    _, error = chief.communicate()
    for other in others:
        other.communicate()
    assert chief.returncode == 69
    assert "worker 2 of this run ended or cannot be reached any more" in error
    assert "Traceback" not in error and not folder.metrics.exists()
    assert 6 <= len(losses(folder)) < 20

    workers = start_workers(2, arguments)
    outputs = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "resuming" in outputs[0][0] and "ZSL" in outputs[0][0]
    assert "epoch" not in outputs[1][0] and "crashed" not in outputs[0][1]
    np.testing.assert_allclose(losses(folder), losses(one_process), rtol=1e-5)


@pytest.mark.rounding
@pytest.mark.slow
def test_two_devices_take_the_steps_of_one(scenes, finished, one_process):
    folder = RunFolder(one_process.path.parent / "devices")
    settings = ("strategy=mirrored", "logical_cpu_devices=2")
    arguments = command(scenes, finished, folder.path, *settings)
    warm_processes.run("training.run", *arguments)
    np.testing.assert_allclose(losses(folder), losses(one_process), rtol=1e-5)


@pytest.mark.slow
def test_a_run_that_is_killed_ends_at_the_same_weights(scenes, finished, one_process):
    # python -m benchmarks.resume kills 20 times, on one device and on two.
    folder = RunFolder(one_process.path.parent / "killed")
    often = "training.checkpoint_minutes=1e-9"
    arguments = command(scenes, finished, folder.path, often)
    process = WarmProcess("training.run", arguments)
    for line in process.stdout:
        if line.startswith("epoch   8"):  # and then up to three epochs later, anywhere
            time.sleep(random.Random(0).uniform(0, 0.5))
            process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not folder.metrics.exists()
    warm_processes.run("training.run", *arguments)
    heads = [keras.models.load_model(run.model) for run in (one_process, folder)]
    for a, b in zip(*(head.get_weights() for head in heads), strict=True):
        assert a.tobytes() == b.tobytes()
    assert losses(folder).tolist() == losses(one_process).tolist()
