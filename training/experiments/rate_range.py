"""The learning-rate range test: rates that rise, a loss that is watched, and a suggestion.

Smith, Cyclical Learning Rates for Training Neural Networks, 2017 (section 3.3): a model is
trained for a few hundred steps while the learning rate rises from far too small to far too
large; where the loss falls, the rate is usable.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
from keras import ops

from biam_tf.progress import progress
from training.config import RunConfig
from training.experiments.trials import write_csv
from training.loop.train_step import TrainStep
from training.loop.trainer import TrainTarget
from training.tables.plots import COLORS, new_figure, save_figure

SMOOTHING = 0.9  # share of the old average at a step
DIVERGED = 4.0  # times the lowest smoothed loss
RULE = "the rate at which the smoothed loss is lowest"


@keras.saving.register_keras_serializable(package="biam_tf")
class ExponentialRise(keras.optimizers.schedules.LearningRateSchedule):
    """Rises by the same factor at every step.

    Args:
        first: float, learning rate of step 0.
        last: float, learning rate of step `steps` - 1.
        steps: int, at least 2.
    """

    def __init__(self, first, last, steps):
        self.first = first
        self.last = last
        self.steps = steps

    def __call__(self, step):
        """Returns the learning rate of `step`, an integer counted from 0, as float32."""
        share = ops.cast(step, "float32") / (self.steps - 1)
        return self.first * (self.last / self.first) ** share

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"first": self.first, "last": self.last, "steps": self.steps}


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What a test saw, step by step.

    Attributes:
        rates: learning rates.
        losses: of the batches.
        diverged: whether it ended because the loss had grown too large.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool

    def smoothed(self) -> np.ndarray:
        """Returns the running averages of the losses, (steps,)."""
        return smooth(self.losses)


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Returns exponential running averages, free of the pull of their start at zero.

    a_t = Σ_i s^(t-i) · loss_i / Σ_i s^(t-i), with s = `SMOOTHING`.
    """
    averages, total, weight = [], 0.0, 0.0
    for loss in losses:
        total = SMOOTHING * total + loss
        weight = SMOOTHING * weight + 1.0
        averages.append(total / weight)
    return np.array(averages)


def suggested_rate(test: RangeTest) -> float | None:
    """Returns the suggestion of `RULE`; None where the lowest loss is at the first step."""
    lowest = int(np.argmin(test.smoothed()))
    return test.rates[lowest] if lowest > 0 else None


def run_range_test(
    config: RunConfig,
    strategy,
    target: TrainTarget,
    source,
    labels: np.ndarray,
    schedule: ExponentialRise,
) -> RangeTest:
    """Trains with rising rates, until the last one or until the loss diverges.

    Args:
        config: optimizer, loss, batch size and seed, as of a run.
        strategy: devices; `target` was built in its scope.
        target: what is trained.
        source: a `FeatureSource` or `PhotoSource` of the training examples.
        labels: (N, S) int8 for the seen classes.
        schedule: the rates.

    Raises:
        UserError: there are fewer examples than one batch.
    """
    slowed = target.backbone.trainable_variables if target.backbone else ()
    scale = config.backbone.learning_rate_scale
    train_step = TrainStep(
        config.training,
        strategy,
        target.model,
        target.objective,
        schedule.steps,
        slowed,
        scale,
    )
    train_step.optimizer.schedule = schedule
    parts = _endless(lambda epoch: _parts(config, strategy, source, labels, epoch))
    rates, losses, diverged = [], [], False
    with progress(schedule.steps, "learning rates", "step") as bar:
        while len(rates) < schedule.steps and not diverged:
            result = train_step(parts, stop=False)
            if not np.isfinite(result.loss):
                diverged = True
                break
            rates.append(result.learning_rate)
            losses.append(result.loss)
            averages = smooth(losses)
            diverged = averages[-1] > DIVERGED * averages.min()
            bar.set_postfix_str(
                f"rate {result.learning_rate:.2e}, loss {result.loss:.4g}", refresh=False
            )
            bar.update(1)
    return RangeTest(tuple(rates), tuple(losses), bool(diverged))


def _parts(config, strategy, source, labels, epoch: int):
    """An epoch's examples in the parts that a step takes `accumulation_steps` of."""
    size = config.training.batch_size // config.training.accumulation_steps
    return strategy.experimental_distribute_dataset(
        source.training_batches(labels, size, config.training.seed, epoch)
    )


def _endless(epoch_of: Callable[[int], Iterable]) -> Iterator:
    for epoch in itertools.count():
        yield from epoch_of(epoch)


def write_range_csv(path: pathlib.Path, test: RangeTest) -> None:
    """Writes step (from 1), learning rate, loss and smoothed loss, a row a step."""
    columns = (test.rates, test.losses, test.smoothed())
    rows = [
        [step, *(f"{value:.6g}" for value in values)]
        for step, values in enumerate(zip(*columns, strict=True), start=1)
    ]
    write_csv(path, ["step", "learning_rate", "loss", "smoothed_loss"], rows)


def draw_range_plot(path: pathlib.Path, test: RangeTest, suggestion: float | None) -> None:
    """Draws loss against learning rate, and where the suggestion lies."""
    figure, axes = new_figure()
    axes.plot(test.rates, test.losses, color=COLORS[0], alpha=0.25, lw=1, label="loss of a batch")
    averages = test.smoothed()
    axes.plot(test.rates, averages, color=COLORS[0], lw=2, label="smoothed loss")
    if suggestion is not None:
        axes.axvline(suggestion, color=COLORS[2], ls="--", label=f"lowest at {suggestion:.1e}")
    axes.set_xscale("log")
    # One wild batch at the end must not flatten the rest.
    axes.set_ylim(
        0.9 * min(*test.losses, *averages), 1.1 * max(np.percentile(test.losses, 95), 1e-9)
    )
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False)
    save_figure(figure, path)
