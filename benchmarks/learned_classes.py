"""Classes learned from photos, beside their names: `python -m benchmarks.learned_classes RUN`.

Of a complete run on a folder data set, each unseen class with at least 10 training photos is
learned from 1, 5 and 10 of them, drawn with 3 seeds, as `Tagger.learn` does, with 200 training
photos for comparison; alone, and with the class's name as `like`. Printed are the mean average
precision of these classes on a split, per cent, and, where they compete with all other classes for
the five best tags of a photo: the share of their labels that is found, and of their tags that is
right.

examples:
  python -m benchmarks.learned_classes runs/corel5k
  python -m benchmarks.learned_classes runs/recommended --split val
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from biam_tf.command_line import run_command

EXAMPLES, SEEDS, TAGS = (1, 5, 10), 3, 5
PHOTOS_AT_A_TIME = 100


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learned_classes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=pathlib.Path, help="folder of a complete run")
    parser.add_argument("--split", default="test", help="of the labeled photos (default: test)")
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    """Prints a row for each number of examples."""
    import numpy as np
    import tensorflow as tf

    from biam_tf.learned_classes import (
        OTHERS_AT_MOST,
        OtherPhotos,
        learned_embedding,
        photo_vectors,
        spread_over,
    )
    from biam_tf.metrics import average_precision
    from biam_tf.models.factors import factors_of
    from biam_tf.models.systems import find_system
    from biam_tf.runs import load_run
    from training.config import load_config
    from training.pipeline.examples import open_dataset, open_examples

    run = load_run(arguments.run)
    config = load_config(run.folder.config)
    examples = open_examples(config, arguments.run, open_dataset(config), run.backbone)
    factors = factors_of(run.head, find_system(run.system))
    assert factors is not None, "the scores are no products"
    side, names = factors.class_side, run.vocabulary.embeddings
    vectors, labels = {}, {}
    for name in ("train", arguments.split):
        split = examples.dataset.split(name)
        batches = examples.source(split.images).evaluation_batches(PHOTOS_AT_A_TIME)
        found = [
            np.asarray(
                factors.region_vectors(
                    tf.cast(batch["region_features"], tf.float32), batch["scene_feature"]
                )
            ).astype(np.float16 if name == "train" else np.float32)
            for batch in batches
        ]
        vectors[name], labels[name] = np.concatenate(found), np.asarray(split.labels)
    train, known = photo_vectors(vectors["train"], side), labels["train"] > 0
    regions, truth = vectors[arguments.split], labels[arguments.split] > 0
    regions = regions.reshape(len(regions), -1, regions.shape[-1])

    def scores(embeddings):
        classes, found = side.vectors(embeddings).T, []
        for part in np.array_split(regions, max(1, len(regions) // PHOTOS_AT_A_TIME)):
            best = np.sort(part @ classes, axis=1)[:, -factors.pooled :]
            found.append(best.mean(axis=1))
        return np.concatenate(found)

    unseen = np.array([group == "unseen" for group in run.vocabulary.groups])
    chosen = np.flatnonzero(unseen & (known.sum(axis=0) >= max(EXAMPLES)) & (truth.sum(axis=0) > 0))
    by_name = scores(names)

    def figures(learned):
        precision = average_precision(learned, np.where(truth[:, chosen], 1, -1))
        together = by_name.copy()
        together[:, chosen] = learned
        is_tag = np.zeros(together.shape, bool)
        best = np.argsort(-together, axis=1)[:, :TAGS]
        np.put_along_axis(is_tag, best, values=True, axis=1)
        tags, labels_of = is_tag[:, chosen], truth[:, chosen]
        right = (tags & labels_of).sum()
        return 100 * np.array(
            [np.mean(precision), right / labels_of.sum(), right / max(tags.sum(), 1)]
        )

    def show(what, found):
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
        cells = [f"{m:6.1f} ± {s:3.1f}" for m, s in zip(mean, spread, strict=True)]
        print(what.ljust(28) + "".join(cells), flush=True)

    print(f"{len(chosen)} unseen classes, {len(regions)} photos of split {arguments.split}")
    print("per cent".ljust(28) + "         AP" + "      found" + "      right")
    print("name".ljust(28) + "".join(f"{m:6.1f}      " for m in figures(by_name[:, chosen])))
    others = OtherPhotos.of(train[spread_over(range(len(train)), OTHERS_AT_MOST)])
    for count in EXAMPLES:
        for with_name in (False, True):
            found = []
            for seed in range(SEEDS):
                rng = np.random.default_rng(seed)
                drawn = [
                    rng.choice(np.flatnonzero(known[:, c]), count, replace=False) for c in chosen
                ]
                learned = [
                    learned_embedding(train[rows], others, side, names[c] if with_name else None)
                    for rows, c in zip(drawn, chosen, strict=True)
                ]
                found.append(figures(scores(np.array(learned))))
            photos = "1 photo" if count == 1 else f"{count} photos"
            show(photos + " and the name" * with_name, found)


if __name__ == "__main__":
    sys.exit(main())
