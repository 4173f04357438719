"""Finds a learning rate: `python -m training.lr_range`."""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from training.cli import add_config_arguments, require_one_process, run_command

DESCRIPTION = """\
Tests a range of learning rates (Smith 2017) and suggests one.

Trains the model of a configuration for a few hundred steps, with its own data, loss and
optimizer, while the learning rate rises by the same factor at every step. Far too small rates
change nothing, good ones let the loss fall, too large ones let it rise again; the test ends when
the smoothed loss is four times its lowest value.

The suggestion is the rate at which the smoothed loss is lowest. It is a cautious place to start
from: the ranking loss grows with the scale of the scores, also while the ranking still improves,
and with a warm-up several times that rate may do better. So a sweep over it and 3 and 10 times it
is printed, too.

The weights are thrown away; --output gets lr_range.csv and lr_range.png (the plot needs matplotlib,
the extra [report]). Stored features are made or used as by a run. The seed is training.seed.
"""

EXAMPLES = """\
examples:
  python -m training.lr_range --output runs/rates
  python -m training.lr_range --config configs/corel5k.yaml --steps 300 --to 0.1 \\
      --set data.directory=my-photos --set vocabulary.word_vectors=glove.6B.300d.txt \\
      --output runs/rates
"""


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lr_range",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, metavar="DIR", help="where CSV and plot go"
    )
    parser.add_argument(
        "--from", type=float, default=1e-6, dest="first", metavar="RATE", help="default: 1e-6"
    )
    parser.add_argument(
        "--to", type=float, default=1.0, dest="last", metavar="RATE", help="default: 1"
    )
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="default: 200")
    add_config_arguments(parser)
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    # Imported here, so that --help and a wrong setting answer at once, without TensorFlow.
    from biam_tf.errors import UserError
    from training.config import load_config

    if not 0 < arguments.first < arguments.last:
        raise UserError(
            f"--from {arguments.first:g} --to {arguments.last:g}: expected rates above 0, the "
            "first below the last"
        )
    if arguments.steps < 20:
        raise UserError(f"--steps {arguments.steps}: expected at least 20, or nothing is smooth")
    config = load_config(arguments.config, arguments.set)
    require_one_process(config, "a range test")

    from training.experiments.rate_range import (
        RULE,
        ExponentialRise,
        draw_range_plot,
        suggested_rate,
        write_range_csv,
    )
    from training.loop.stopping import terminating_cleanly
    from training.tables.plots import can_plot

    table, plot = arguments.output / "lr_range.csv", arguments.output / "lr_range.png"
    plotting = can_plot(plot)
    schedule = ExponentialRise(arguments.first, arguments.last, arguments.steps)
    with terminating_cleanly():
        test = _test(config, schedule)
    if len(test.rates) < 2:
        raise UserError(f"the loss diverged at once at a rate of {arguments.first:g}; lower --from")
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
    if suggestion is None:
        raise UserError(
            f"no suggestion: the loss never fell below its first value; try a lower --from than "
            f"{arguments.first:g}, or more --steps"
        )
    print(
        f"suggestion: {suggestion:.1e}, {RULE}\n"
        f"    --set training.optimizer.learning_rate={suggestion:.1e}\n"
        "or try some with python -m training.sweep\n"
        "    --grid training.optimizer.learning_rate="
        + ",".join(f"{factor * suggestion:.1e}" for factor in (1, 3, 10))
    )


def _test(config, schedule):
    from training.data.input.sampling import make_sampler
    from training.experiments.rate_range import run_range_test
    from training.loop.closed_form import require_epochs
    from training.loop.devices import computing_in, make_strategy
    from training.loop.objective import prepare_head
    from training.pipeline.examples import open_dataset, open_examples, trainable_photos
    from training.pipeline.models import build_models, class_vocabulary
    from training.pipeline.run_folder import RunFolder

    require_epochs(config, "a learning-rate finder")
    strategy = make_strategy(config)
    dataset = open_dataset(config)
    vocabulary = class_vocabulary(config, dataset)
    with computing_in(config.training.precision):
        models = build_models(config, strategy, vocabulary)
        folder = RunFolder(pathlib.Path(config.output))
        examples = open_examples(config, folder.path, dataset, models.backbone)
        split = trainable_photos(examples.dataset, config.data.max_labels)
        labels = split.labels[:, dataset.seen]
        sampler = make_sampler(config.data, labels, config.training.seed, epochs=1)
        source = examples.source(split.images, sampler)
        prepare_head(models.head, config.head, labels)
        return run_range_test(config, strategy, models.target(folder), source, labels, schedule)


if __name__ == "__main__":
    sys.exit(main())
