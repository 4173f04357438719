"""Effect of the rules behind a run's thresholds: `python -m benchmarks.thresholds RUN`.

Fits thresholds to the validation split of a complete run with the default rule and with others, and
prints the F1 of the resulting tags on the test split; then the effect of drawing photos with
replacement on mean average precision.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from biam_tf.command_line import run_command


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.thresholds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=pathlib.Path, help="folder of a run with splits val and test")
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    """Prints a row for each rule."""
    import numpy as np

    from biam_tf.metrics.bootstrap import average_precision_of_draws, draw_counts
    from biam_tf.metrics.decisions import f1_at_threshold
    from biam_tf.runs import load_run
    from biam_tf.thresholds import OWN_POSITIVES, fit_thresholds
    from training.config import load_config
    from training.pipeline.examples import open_dataset, open_examples
    from training.scoring.evaluation import score_split

    run = load_run(arguments.run)
    config = load_config(run.folder.config)
    examples = open_examples(config, arguments.run, open_dataset(config), run.backbone)
    dataset = examples.dataset
    scores, labels = {}, {}
    for name in ("val", "test"):
        split = dataset.split(name)
        labels[name] = split.labels
        scores[name] = score_split(run, examples.source(split.images), run.vocabulary, name)
    names, groups = run.vocabulary.names, run.vocabulary.groups

    def fit(own_positives: int = OWN_POSITIVES):
        return fit_thresholds(
            scores["val"], labels["val"], names, groups, own_positives=own_positives
        )

    def show(rule: str, thresholds) -> None:
        found = f1_at_threshold(thresholds.decide(scores["test"]), labels["test"], groups)
        cells = [
            100 * found[part][kind]["f1"]
            for part in ("seen", "zsl")
            for kind in ("micro", "macro", "sample")
        ]
        print(rule.ljust(44) + "".join(f"{cell:8.1f}" for cell in cells))

    print("F1 on test, per cent".ljust(44) + "    seen: micro, macro, sample; unseen: the same")
    for photos in (1, 2, 4, 8, 16, 32):
        show(f"own thresholds from {photos} photos on", fit(photos))
    show("no own thresholds", fit(len(labels["val"]) + 1))
    # An unknown class gets the seen classes' calibration of unstandardized scores.
    plain = [name if group == "seen" else "" for name, group in zip(names, groups, strict=True)]
    show("unseen scores not standardized", fit().for_names(plain))

    whole = average_precision_of_draws(
        scores["test"], labels["test"], np.ones((len(labels["test"]), 1), np.int32)
    )
    draws = average_precision_of_draws(
        scores["test"], labels["test"], draw_counts(len(labels["test"]), 1000, seed=0)
    )
    print(
        f"mAP of classes with a positive: {100 * np.nanmean(whole):.1f}, mean over 1000 draws "
        f"{100 * np.nanmean(draws, axis=1).mean():.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
