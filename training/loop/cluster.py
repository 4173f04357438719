"""The processes of a `multi_worker` run, as the environment variable `TF_CONFIG` names them."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from biam_tf.errors import UserError

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
        """How many processes the cluster has."""
        return sum(len(addresses) for addresses in self.addresses.values())

    def __str__(self) -> str:
        return f"{self.job} {self.index} ({self.addresses[self.job][self.index]})"


def read_tf_config(environment: Mapping[str, str] = os.environ) -> ClusterTask:
    """Returns this process's place in the cluster that `TF_CONFIG` describes.

    Raises:
        UserError: the variable is not set, is no JSON, or does not describe chief and workers
            and this process among them.
    """
    text = environment.get(VARIABLE, "")
    if not text.strip():
        _fail("is not set; each process needs its own")
    try:
        values = json.loads(text)
    except ValueError as error:
        _fail(f"is not JSON ({error})")
    if not isinstance(values, dict):
        _fail(f"is no JSON object but {values!r}")
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
        _fail(f"task.index is {index!r}, which is no whole number")
    if not 0 <= index < len(addresses[job]):
        _fail(f"task.index is {index}, but the cluster has {job} 0 to {len(addresses[job]) - 1}")
    return ClusterTask(addresses, job, index)


def _addresses(cluster: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(cluster, dict) or not cluster:
        _fail(f"has no cluster: {cluster!r}")
    for job, addresses in cluster.items():
        if job not in ("chief", "worker"):
            _fail(
                f"cluster names {job!r}, which has no part in this strategy; only chief and worker"
            )
        if not isinstance(addresses, list) or not addresses:
            _fail(f"cluster.{job} is {addresses!r}, not a list of addresses")
        for address in addresses:
            if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
                _fail(f"cluster.{job} names {address!r}, which is no host:port")
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
