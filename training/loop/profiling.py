"""A profile of training steps: `python -m training.run --profile N`."""

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.files import write_text, writing_to
from training.loop.profiler_trace import (
    format_table,
    operation_times,
    read_trace,
    wait_shares,
    write_chrome_trace,
)
from training.pipeline.run_folder import RunFolder

SKIPPED_STEPS = 3  # the first ones trace graphs and fill queues
TABLE, CHROME_TRACE = "profile.txt", "trace.json.gz"


def check_profile(steps: int | None, total_steps: int) -> None:
    """Raises a UserError if a run of `total_steps` has fewer than `steps` to profile."""
    possible = total_steps - SKIPPED_STEPS
    if steps is not None and steps > possible:
        advice = f"use at most {possible}" if possible > 0 else "give it more photos or epochs"
        raise UserError(
            f"--profile {steps}: the run has {total_steps} steps, the first {SKIPPED_STEPS} of "
            f"which are skipped; {advice}"
        )


class StepProfiler:
    """Profiles some training steps; an `Observer` of training, and a context manager around it.

    The trace goes to the run's TensorBoard files (for TensorBoard's profile plugin), beside it
    `trace.json.gz` for Perfetto, and a table of the operations to `profile.txt`.

    Args:
        folder: of the run.
        steps: how many to profile, after the first few of this process.
    """

    def __init__(self, folder: RunFolder, steps: int):
        self._folder, self._steps = folder, steps
        self._seen = 0
        self._running = False
        self._annotation: tf.profiler.experimental.Trace | None = None

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(self, *error: object) -> None:
        """Writes what there is if training ended early."""
        if self._running:
            self._finish()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Starts the profiler after the skipped steps, and stops it after those to profile."""
        self._seen += 1
        if self._annotation is not None:
            self._annotation.__exit__(None, None, None)
            self._annotation = None
        if self._seen in (SKIPPED_STEPS, SKIPPED_STEPS + self._steps):
            values["loss"]  # waits until the device has made the steps so far
        if self._seen == SKIPPED_STEPS:
            with writing_to(self._folder.tensorboard):
                tf.profiler.experimental.start(str(self._folder.tensorboard))
            self._running = True
        if self._running and self._seen < SKIPPED_STEPS + self._steps:
            # Marks the step that begins now, for TensorBoard's overview of steps.
            self._annotation = tf.profiler.experimental.Trace("train", step_num=step + 1, _r=1)
            self._annotation.__enter__()
        elif self._running:
            self._finish()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Does nothing."""

    def _finish(self) -> None:
        self._running = False
        if self._annotation is not None:
            self._annotation.__exit__(None, None, None)
        tf.profiler.experimental.stop()
        steps = self._seen - SKIPPED_STEPS
        if not steps:
            return
        space = read_trace(self._folder.tensorboard)
        table = pathlib.Path(self._folder.path / TABLE)
        text = (
            f"{steps} training steps, after {SKIPPED_STEPS} that are skipped\n\n"
            f"{format_table(operation_times(space), steps)}"
            f"\n{_format_waits(wait_shares(space))}"
        )
        write_text(table, text)
        chrome_trace = self._folder.path / CHROME_TRACE
        with writing_to(chrome_trace):
            write_chrome_trace(space, chrome_trace)
        print(
            f"\n{text}\n{table}: this table\n{chrome_trace}: opens in ui.perfetto.dev\n"
            f"{self._folder.tensorboard}: opens in TensorBoard's profile plugin\n",
            flush=True,
        )


def _format_waits(shares: Mapping[str, float]) -> str:
    """Returns a line for each device, or for the GPUs alone where there are some."""
    gpus = {device: share for device, share in shares.items() if device != "CPU"}
    return "".join(
        f"{device} had no operation to run for {share:.1%} of the time\n"
        for device, share in (gpus or shares).items()
    )
