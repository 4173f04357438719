"""The learning-rate range test, which suggests a learning rate.

Smith, Cyclical Learning Rates for Training Neural Networks, 2017 (section 3.3): a model is
trained for a few hundred steps while the learning rate rises from far too small to far too
large; rates at which the loss falls are usable.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from biam_tf.command_line import command_to_paste
from biam_tf.csv_files import write_rows
from biam_tf.errors import UserError
from biam_tf.progress import progress
from biam_tf.sparse_labels import Labels
from training.config import RunConfig
from training.data.input.sampling import make_sampler
from training.data.input.shares import distributed_batches
from training.data.input.sources import FeatureSource, PhotoSource
from training.loop.closed_form import require_epochs
from training.loop.devices import computing_in, make_strategy
from training.loop.objective import prepare_head
from training.loop.stopping import terminating_cleanly
from training.loop.train_step import TrainStep
from training.loop.trainer import TrainTarget
from training.pipeline.examples import open_dataset, open_examples, trainable_photos
from training.pipeline.models import build_models, check_training_labels, class_vocabulary
from training.pipeline.run_folder import RunFolder
from training.tables.plots import COLORS, can_plot, new_figure, save_figure

SMOOTHING = 0.9  # weight of the old average at each step
DIVERGED = 4.0  # multiple of the lowest smoothed loss
RISEN = 0.1
RULE = "the rate at which the smoothed loss is lowest"


@keras.saving.register_keras_serializable(package="biam_tf")
class ExponentialRise(keras.optimizers.schedules.LearningRateSchedule):
    """Rises by the same factor at every step.

    Args:
        first: float, learning rate of step 0.
        last: float, learning rate of step `steps` - 1.
        steps: int, at least 2.
    """

    def __init__(self, first: float, last: float, steps: int) -> None:
        self.first = first
        self.last = last
        self.steps = steps

    def __call__(self, step):
        """Returns the learning rate of `step`, an integer counted from 0, as float32."""
        share = ops.cast(step, "float32") / (self.steps - 1)
        return self.first * (self.last / self.first) ** share

    def get_config(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last, "steps": self.steps}


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """The values of a test at each step.

    Attributes:
        rates: learning rates.
        losses: of the batches.
        diverged: whether it ended because the loss was too large.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool

    def smoothed(self) -> np.ndarray:
        """Returns the running averages of the losses, (steps,)."""
        return smooth(self.losses)


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Returns exponential running averages, without bias towards their start at zero.

    a_t = Σ_i s^(t-i) · loss_i / Σ_i s^(t-i), with s = `SMOOTHING`.
    """
    averages, total, weight = [], 0.0, 0.0
    for loss in losses:
        total = SMOOTHING * total + loss
        weight = SMOOTHING * weight + 1.0
        averages.append(total / weight)
    return np.array(averages)


def suggested_rate(test: RangeTest) -> float | None:
    """Returns the suggestion by `RULE`; None if the losses do not show one.

    They don't if the smoothed loss never fell, or has not risen again at the end, by `RISEN` of
    what it fell before: then nothing says that a higher rate would not be better, or that this one
    is not too high.
    """
    losses = test.smoothed()
    lowest = int(np.argmin(losses))
    risen = losses[-1] - losses[lowest] >= RISEN * (losses[0] - losses[lowest])
    return test.rates[lowest] if lowest > 0 and (risen or test.diverged) else None


def suggest_rate(
    config: RunConfig,
    schedule: ExponentialRise,
    output: pathlib.Path,
    options: Sequence[str] = (),
) -> None:
    """Runs a test of a configuration, writes its CSV file and plot, and prints a suggestion.

    Args:
        config: of a run.
        schedule: the rates.
        output: folder.
        options: of the command line that gave the configuration, for the commands that are printed.

    Raises:
        UserError: the data or a setting cannot be used, or nothing can be suggested.
    """
    table, plot = output / "lr_range.csv", output / "lr_range.png"
    plotting = can_plot(plot)
    with terminating_cleanly():
        test = _build_and_test(config, schedule)
    if len(test.rates) < 2:
        raise UserError(
            f"the loss diverged immediately at a rate of {schedule.first:g}; lower --from"
        )
    suggestion = suggested_rate(test)
    write_range_csv(table, test)
    print(f"every step: {table}")
    if plotting:
        draw_range_plot(plot, test, suggestion)
        print(f"Look at {plot}")
    if test.diverged:
        print(f"the loss diverged at a rate of {test.rates[-1]:.1e}")
    else:
        print(f"the loss did not diverge up to {test.rates[-1]:.1e}; consider a higher --to")
    if suggestion is None and np.argmin(test.smoothed()) > 0:
        raise UserError(
            f"no suggestion: the loss had not risen again at the last rate, {test.rates[-1]:.1e}, "
            "so nothing shows which rate is too high; try more --steps, or a higher --to"
        )
    if suggestion is None:
        raise UserError(
            f"no suggestion: the loss never fell below its first value; try a lower --from than "
            f"{schedule.first:g}, or more --steps"
        )
    print(f"suggestion: {suggestion:.1e}, {RULE}\n\n{_next_commands(suggestion, options, output)}")


def _next_commands(suggestion: float, options: Sequence[str], output: pathlib.Path) -> str:
    key = "training.optimizer.learning_rate"
    rates = ",".join(f"{factor * suggestion:.1e}" for factor in (1, 3, 10))
    train = command_to_paste("training.run", *options, "--set", f"{key}={suggestion:.1e}")
    sweep = ("--grid", f"{key}={rates}", "--output", output / "sweep")
    return (
        f"Next:\n  train with it:\n    {train}\n  or try it and higher ones:\n"
        f"    {command_to_paste('training.sweep', *options, *sweep)}"
    )


def _build_and_test(config: RunConfig, schedule: ExponentialRise) -> RangeTest:
    require_epochs(config, "a learning-rate finder")
    strategy = make_strategy(config)
    dataset = open_dataset(config)
    vocabulary = class_vocabulary(config, dataset)
    with computing_in(config.training.precision):
        models = build_models(config, strategy, vocabulary)
        check_training_labels(config, dataset, models)
        folder = RunFolder(pathlib.Path(config.output))
        examples = open_examples(config, folder.path, dataset, models.backbone)
        split = trainable_photos(examples.dataset, config.data.max_labels)
        labels = split.labels.columns(dataset.seen)
        sampler = make_sampler(config.data, labels, config.training.seed, epochs=1)
        source = examples.source(split.images, sampler)
        prepare_head(models.head, config.head, labels)
        return run_range_test(config, strategy, models.target(folder), source, labels, schedule)


def run_range_test(
    config: RunConfig,
    strategy: tf.distribute.Strategy,
    target: TrainTarget,
    source: FeatureSource | PhotoSource,
    labels: Labels,
    schedule: ExponentialRise,
) -> RangeTest:
    """Trains with rising rates, until the last one or until the loss diverges.

    Args:
        config: optimizer, loss, batch size and seed, as for a run.
        strategy: devices; `target` was built in its scope.
        target: what is trained.
        source: the training examples.
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
    rates: list[float] = []
    losses: list[float] = []
    diverged = False
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


def _parts(
    config: RunConfig,
    strategy: tf.distribute.Strategy,
    source: FeatureSource | PhotoSource,
    labels: Labels,
    epoch: int,
) -> Iterable:
    """An epoch's examples in parts, of which a step takes `accumulation_steps`."""
    size = config.training.batch_size // config.training.accumulation_steps
    return distributed_batches(strategy, source, labels, size, config.training.seed, epoch)


def _endless(epoch_of: Callable[[int], Iterable]) -> Iterator:
    for epoch in itertools.count():
        yield from epoch_of(epoch)


def write_range_csv(path: pathlib.Path, test: RangeTest) -> None:
    """Writes step (from 1), learning rate, loss and smoothed loss, one row per step."""
    columns = (test.rates, test.losses, test.smoothed())
    rows = [
        [step, *(f"{value:.6g}" for value in values)]
        for step, values in enumerate(zip(*columns, strict=True), start=1)
    ]
    write_rows(path, ["step", "learning_rate", "loss", "smoothed_loss"], rows)


def draw_range_plot(path: pathlib.Path, test: RangeTest, suggestion: float | None) -> None:
    """Draws the loss over the learning rate, and the suggestion."""
    figure, axes = new_figure()
    axes.plot(test.rates, test.losses, color=COLORS[0], alpha=0.25, lw=1, label="loss of a batch")
    averages = test.smoothed()
    axes.plot(test.rates, averages, color=COLORS[0], lw=2, label="smoothed loss")
    if suggestion is not None:
        axes.axvline(suggestion, color=COLORS[2], ls="--", label=f"lowest at {suggestion:.1e}")
    axes.set_xscale("log")
    # One extreme batch at the end must not flatten the rest.
    axes.set_ylim(
        0.9 * min(*test.losses, *averages), 1.1 * max(np.percentile(test.losses, 95), 1e-9)
    )
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False)
    save_figure(figure, path)
