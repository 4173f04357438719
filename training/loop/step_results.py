"""What a training step gives, and who is told of it: numbers that stay on the device until read.

Reading a number waits until the device has made the step. Training that never waits keeps the
device busy; hence `fetch`, which brings the numbers of many steps at once.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf


class StepResult:
    """The outcome of a step, which is on the device until it is asked for.

    Attributes:
        loss: of the whole batch, before the update.
        learning_rate: the rate of the update.
        stop: whether any process of the run was asked to stop.

    Args:
        values: (3,) float64: loss, rate, number of processes that were asked to stop.
    """

    def __init__(self, values: tf.Tensor):
        self._values = values
        self._fetched: np.ndarray | None = None

    @property
    def is_fetched(self) -> bool:
        """Whether the numbers are here, so that reading them waits for nothing."""
        return self._fetched is not None

    @property
    def loss(self) -> float:
        return float(self._here()[0])

    @property
    def learning_rate(self) -> float:
        return float(self._here()[1])

    @property
    def stop(self) -> bool:
        return bool(self._here()[2] > 0)

    def _here(self) -> np.ndarray:
        if self._fetched is None:
            fetch([self])
        assert self._fetched is not None
        return self._fetched


def fetch(results: Sequence[StepResult]) -> None:
    """Brings the numbers of some steps from the device, and waits for it once."""
    missing = [result for result in results if not result.is_fetched]
    if missing:
        numbers = tf.stack([result._values for result in missing]).numpy()
        for result, values in zip(missing, numbers, strict=True):
            result._fetched = values


class StepValues(Mapping[str, float]):
    """The numbers of a step, by name, which are on the device until one of them is read."""

    _NAMES = ("loss", "learning_rate")

    def __init__(self, result: StepResult):
        self._result = result

    @property
    def is_fetched(self) -> bool:
        """Whether the numbers are here, so that reading them waits for nothing."""
        return self._result.is_fetched

    def __getitem__(self, name: str) -> float:
        if name not in self._NAMES:
            raise KeyError(name)
        return getattr(self._result, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._NAMES)

    def __len__(self) -> int:
        return len(self._NAMES)


class Observer(Protocol):
    """Is called during training, and changes nothing in it."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Gets the loss and the learning rate of a step, counted from 1 over the whole run.

        The values are a `StepValues`: reading one waits for the device to complete the step.
        """

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Gets what is written into the run's log after an epoch."""


class TimedIterator(Iterator[Any]):
    """Iterates over the parts of an epoch's batches, and measures how long training waits."""

    def __init__(self, parts: Iterable[Any]):
        self._iterator = iter(parts)
        self.seconds_waited = 0.0

    def __next__(self) -> Any:
        started = time.perf_counter()
        part = next(self._iterator)
        self.seconds_waited += time.perf_counter() - started
        return part
