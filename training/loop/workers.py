"""What the processes of one run say to each other: the chief decides, and no loss is a hang."""

import contextlib
import re
from collections.abc import Iterable, Iterator

import tensorflow as tf

from biam_tf.errors import TemporaryFailure
from training.loop.cluster import read_tf_config

# What a step raises when a peer of its collective operations is gone, as seen when one is killed,
# stopped, or cut off.
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

    All of them do the same steps in the same order, each on its part of every batch. The chief
    alone reads and writes the run's folder, validates and decides.

    Args:
        strategy: of `make_strategy`.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
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
        """Returns the chief's `value`, whatever it is here; waits until the chief has it."""
        if not self.are_many:
            return value
        return float(tf.convert_to_tensor(self._received(value, tf.float64)))

    def copy_from_chief(self, variables: Iterable[tf.Variable]) -> None:
        """Gives `variables`, the same ones in every process, the chief's values, bit for bit."""
        if self.are_many:
            for variable in variables:
                value = tf.convert_to_tensor(variable)
                variable.assign(tf.convert_to_tensor(self._received(value, value.dtype)))

    def wait_for_chief(self) -> None:
        """Returns when the chief has come to the same call."""
        self.from_chief(0.0)

    def _received(self, value, dtype) -> tf.Variable:
        # Every process starts a variable of the strategy with the chief's initial value.
        with self._strategy.scope():
            return tf.Variable(value, trainable=False, dtype=dtype)

    @contextlib.contextmanager
    def loss_of_one_ends_all(self) -> Iterator[None]:
        """Turns TensorFlow's errors about a peer into one message.

        Raises:
            WorkerLost: another worker is gone; the checkpoints are what a restart goes on from.
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
        } - {(self._task.job, self._task.index)}
        return ", ".join(f"{job} {index}" for job, index in sorted(named)) or "another worker"
