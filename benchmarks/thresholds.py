"""Effect of the rules behind a run's thresholds: `python -m benchmarks.thresholds RUN`.

Fits thresholds to the validation split of a complete run with the default rule and with others, and
prints the F1 of the resulting tags on the test split, and what the probabilities of the tags shown
with 50 to 100 per cent state and how many are right; then the effect of drawing photos with
replacement on mean average precision.
"""

import argparse
import dataclasses
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
    from biam_tf.metrics.cuts import Target
    from biam_tf.metrics.decisions import f1_at_threshold
    from biam_tf.metrics.reliability import reliability_of_shown
    from biam_tf.runs import load_run
    from biam_tf.thresholds import OWN_POSITIVES, fit_thresholds
    from training.config import load_config
    from training.pipeline.examples import open_dataset, open_examples
    from training.scoring.evaluation import score_split
    from training.scoring.final_evaluation import thresholds_fitting

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

    by_default = thresholds_fitting(config, run.folder, dataset)

    def fit(own_positives: int = OWN_POSITIVES, **changes):
        return fit_thresholds(
            scores["val"],
            labels["val"],
            names,
            groups,
            seed=config.training.seed,
            own_positives=own_positives,
            fitting=dataclasses.replace(by_default, **changes),
        )

    def show(rule: str, thresholds) -> None:
        found = f1_at_threshold(thresholds.decide(scores["test"]), labels["test"], groups)
        cells = [
            100 * found[part][kind]["f1"] if found[part] else np.nan
            for part in ("seen", "zsl")
            for kind in ("micro", "macro", "sample")
        ]
        print(rule.ljust(44) + "".join(f"{cell:8.1f}" for cell in cells))

    def show_reliability(rule: str, thresholds) -> None:
        numbers = (thresholds.slopes, thresholds.offsets, thresholds.cuts)
        found = reliability_of_shown(scores["test"], labels["test"], groups, *numbers)
        cells = []
        for group in ("seen", "unseen"):
            own = (found[group] or {}).get("at_half") or {"tags": 0}
            found_shares = (own.get(key) for key in ("stated", "right"))
            shares = [np.nan if share is None else 100 * share for share in found_shares]
            cells.append(f"{own['tags']:8d}{shares[0]:8.1f}{shares[1]:8.1f}")
        print(rule.ljust(44) + "".join(cells))

    rules = {
        "default": fit(),
        "without held-out folds": fit(held_out=()),
        "seen calibration not corrected": fit(held_out=(), is_corrected=False),
    }
    if len(by_default.held_out) > 1:
        for number, fold in enumerate(by_default.held_out, start=1):
            rules[f"fold {number} alone"] = fit(held_out=[fold])
    if by_default.share_of_unseen is not None:
        rules["as if val showed unseen classes"] = fit(share_of_unseen=None)
    print("F1 on test, per cent".ljust(44) + "    seen: micro, macro, sample; unseen: the same")
    for rule, thresholds in rules.items():
        show(rule, thresholds)
    for photos in (1, 2, 4, 8, 16, 32):
        show(f"own thresholds from {photos} photos on", fit(photos))
    show("no own thresholds", fit(len(labels["val"]) + 1))
    # Without folds, a class that is not listed takes the cut of unstandardized scores.
    plain = [name if group == "seen" else "" for name, group in zip(names, groups, strict=True)]
    show("no folds, unseen scores not standardized", fit(held_out=()).for_names(plain))
    show("precision 0.8 as the target", fit(target=Target(0.8)))
    print(
        "\nshown with 50-100 % on test".ljust(45)
        + "    seen: tags, stated, right; unseen: the same"
    )
    for rule, thresholds in rules.items():
        show_reliability(rule, thresholds)
    print()
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
