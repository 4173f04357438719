"""The processes of one run: `TF_CONFIG`, which names them, and what they tell each other."""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import tensorflow as tf

from biam_tf.errors import TemporaryFailure, UserError

VARIABLE = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_ADDRESS = re.compile(r"\S+:\d+")


@dataclasses.dataclass(frozen=True)
class ClusterTask:
    """One process of the cluster.

    Attributes:
        addresses: `host:port` of every process, by its job ("chief", "worker") and index.
        job: of this process.
        index: of this process within its job.
    """

    addresses: Mapping[str, tuple[str, ...]]
    job: str
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's folder: the chief, or else the first worker."""
        return self.index == 0 and (self.job == "chief" or "chief" not in self.addresses)

    @property
    def count(self) -> int:
        """The number of processes of the cluster."""
        return sum(len(addresses) for addresses in self.addresses.values())

    def __str__(self) -> str:
        return f"{self.job} {self.index} ({self.addresses[self.job][self.index]})"


def read_tf_config(environment: Mapping[str, str] = os.environ) -> ClusterTask:
    """Returns the task of this process in the cluster that `TF_CONFIG` describes.

    Raises:
        UserError: the variable is not set, is not JSON, or does not describe chief and workers
            with this process among them.
    """
    text = environment.get(VARIABLE, "")
    if not text.strip():
        _fail("is not set; each process needs its own")
    try:
        values = json.loads(text)
    except ValueError as error:
        _fail(f"is not JSON ({error})")
    if not isinstance(values, dict):
        _fail(f"is not a JSON object but {values!r}")
    addresses = _addresses(values.get("cluster"))
    task = values.get("task")
    if not isinstance(task, dict) or not {"type", "index"} <= task.keys():
        _fail(f"has no task with a type and an index: {task!r}")
    job, index = task["type"], task["index"]
    if job not in addresses:
        _fail(f"task.type is {job!r}, but the cluster has {' and '.join(addresses)}")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool):
        _fail(f"task.index is {index!r}, which is not a whole number")
    if not 0 <= index < len(addresses[job]):
        _fail(f"task.index is {index}, but the cluster has {job} 0 to {len(addresses[job]) - 1}")
    return ClusterTask(addresses, job, index)


def _addresses(cluster: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(cluster, dict) or not cluster:
        _fail(f"has no cluster: {cluster!r}")
    for job, addresses in cluster.items():
        if job not in ("chief", "worker"):
            _fail(f"cluster names {job!r}, which this strategy does not use; only chief and worker")
        if not isinstance(addresses, list) or not addresses:
            _fail(f"cluster.{job} is {addresses!r}, not a list of addresses")
        for address in addresses:
            if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
                _fail(f"cluster.{job} names {address!r}, which is not host:port")
    if len(cluster.get("chief", [None])) > 1:
        _fail(f"cluster.chief names {len(cluster['chief'])} processes; there is one chief")
    everyone = [address for addresses in cluster.values() for address in addresses]
    for address in everyone:
        if everyone.count(address) > 1:
            _fail(f"cluster names {address} twice")
    return {job: tuple(addresses) for job, addresses in cluster.items()}


def _fail(problem: str) -> NoReturn:
    raise UserError(
        f"strategy: multi_worker: {VARIABLE} {problem}. Expected, for example: {EXAMPLE}"
    )


# Raised by a step if a peer of its collective operations was killed, stopped, or cut off.
_PEER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class WorkerLost(TemporaryFailure):
    """Another worker of this run has ended or cannot be reached any more."""

    exit_status = 69  # EX_UNAVAILABLE


class Workers:
    """The processes that train together: this one alone, or those of `TF_CONFIG`.

    All of them make the same steps in the same order, each on its part of every batch. Only the
    chief reads and writes the run's folder, validates and decides.

    Args:
        strategy: of `make_strategy`.

    Attributes:
        strategy: the same.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self._task = None
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            self._task = read_tf_config()

    @property
    def are_many(self) -> bool:
        """Whether there is another process."""
        return self._task is not None

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that reads and writes the run's folder."""
        return self._task is None or self._task.is_chief

    def from_chief(self, value: float) -> float:
        """Returns the chief's `value`, whatever it is here; waits for the chief's call."""
        if not self.are_many:
            return value
        return float(tf.convert_to_tensor(self._received(value, tf.float64)))

    def copy_from_chief(self, variables: Iterable[tf.Variable]) -> None:
        """Assigns the chief's values, bit for bit, to `variables`, the same in every process."""
        if self.are_many:
            for variable in variables:
                value = tf.convert_to_tensor(variable)
                variable.assign(tf.convert_to_tensor(self._received(value, value.dtype)))

    def wait_for_chief(self) -> None:
        """Returns when the chief has made the same call."""
        self.from_chief(0.0)

    def _received(self, value: Any, dtype: tf.DType) -> tf.Variable:
        # Every process starts a variable of the strategy with the chief's initial value.
        with self.strategy.scope():
            return tf.Variable(value, trainable=False, dtype=dtype)

    @contextlib.contextmanager
    def loss_of_one_ends_all(self) -> Iterator[None]:
        """Turns TensorFlow's errors about a peer into one message.

        Raises:
            WorkerLost: another worker is gone; a restart resumes from the last checkpoint.
        """
        try:
            yield
        except tf.errors.OpError as error:
            of_peer = isinstance(error, _PEER_ERRORS) or "Collective ops is aborted" in str(error)
            if not self.are_many or not of_peer:
                raise
            raise WorkerLost(
                f"{self._named_in(str(error))} of this run ended or cannot be reached any more; "
                "its own output says why. The same command in every process resumes from the last "
                "checkpoint"
            ) from error

    def _named_in(self, message: str) -> str:
        named = {
            (job, int(index))
            for job, index in re.findall(r"/job:(\w+)/replica:0/task:(\d+)", message)
        }
        if self._task is not None:
            named -= {(self._task.job, self._task.index)}
        return ", ".join(f"{job} {index}" for job, index in sorted(named)) or "another worker"
