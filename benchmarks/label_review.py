"""Are label mistakes found? Some are planted, and looked for: `python -m benchmarks.label_review`.

Moves 5 per cent of the training labels of a complete run to another class, at random with a seed:
each is a missing label of one class and a wrong one of another. Then the training photos are
reviewed as by `python -m training.review`, and the share of planted mistakes among the labels that
are doubted most is printed: of as many as there are planted mistakes, and of fewer. What is not
planted may be a mistake all the same, which somebody made before.

example:
  python -m benchmarks.label_review runs/quickstart --output /tmp/planted
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from biam_tf.command_line import run_command

SHOWN = (50, 100, 200, 500)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.label_review",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=pathlib.Path, help="folder of a complete run")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for the folds")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels (default: 0.05)")
    parser.add_argument("--folds", type=int, default=3, help="of photos (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the mistakes (default: 0)")
    return run_command(parser, _command, argv)


def plant(labels, share: float, seed: int):
    """Moves a share of the positive labels to other classes of the same photo.

    Args:
        labels: (N, S) of +1, -1 or 0; not changed.
        share: of the positive labels.
        seed: of the draw.

    Returns:
        The labels with mistakes, and (N, S) bool, the cells that are wrong now.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(labels > 0)
    wrong = labels.copy()
    for i in rng.permutation(len(rows))[: round(share * len(rows))]:
        absent = np.flatnonzero((labels[rows[i]] < 0) & (wrong[rows[i]] < 0))
        if len(absent):
            wrong[rows[i], columns[i]] = -1
            wrong[rows[i], rng.choice(absent)] = 1
    return wrong, wrong != labels


def _command(arguments: argparse.Namespace) -> None:
    """Prints a line for each number of labels looked at."""
    import dataclasses

    import numpy as np

    from biam_tf.runs import load_run
    from training.config import load_config
    from training.label_review.doubts import rank_doubts
    from training.label_review.folds import plan_photo_folds, scores_of_folds
    from training.pipeline.examples import open_dataset, open_examples

    run = load_run(arguments.run)
    config = load_config(run.folder.config)
    dataset = open_examples(config, arguments.run, open_dataset(config), run.backbone).dataset
    split = dataset.split("train")
    wrong, planted = plant(split.labels[:, dataset.seen], arguments.share, arguments.seed)
    labels = np.array(split.labels)
    labels[:, dataset.seen] = wrong
    splits = {**dataset.splits, "train": dataclasses.replace(split, labels=labels)}
    dataset = dataclasses.replace(dataset, splits=splits)
    folds = plan_photo_folds(config, dataset, arguments.folds)
    scores = list(scores_of_folds(config, arguments.run, arguments.output, folds, run.vocabulary))
    count = int(planted.sum())
    doubts = rank_doubts(scores, wrong, max(count, *SHOWN))
    kinds = np.array([doubt.label == "present" for doubt in doubts])
    hits = np.array([planted[doubt.row, doubt.column] for doubt in doubts])
    print(
        f"\n{count} planted mistakes among {planted.size} labels: a share of "
        f"{100 * count / planted.size:.2f} %\n"
    )
    for most in sorted({*SHOWN, count}):
        own = hits[:most]
        print(
            f"first {most:5}: {100 * own.mean():5.1f} % are planted, "
            f"{100 * own.sum() / count:5.1f} % of all that are planted; of the labels "
            f"{100 * own[kinds[:most]].mean():5.1f} %, of the missing ones "
            f"{100 * own[~kinds[:most]].mean():5.1f} %"
        )


if __name__ == "__main__":
    sys.exit(main())
