"""How sure the differences between a table's systems are: paired bootstrap over the photos."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from biam_tf.metrics.bootstrap import Difference, bootstrap_differences, number_of_resamples
from training.reproduction.experiments import TrainedEntry, open_run, scores_of_run


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Differences of the other rows to one of them.

    Attributes:
        reference: its key.
        resamples: draws of the bootstrap.
        differences: by row, part ("zsl", "gzsl", "seen") and figure ("mAP", "F1@K"), fractions.
    """

    reference: str
    resamples: int
    differences: Mapping[str, Mapping[str, Mapping[str, Difference]]]


def compare(trained: Mapping[str, TrainedEntry], reference: str, k: int, seed: int) -> Comparison:
    """Compares every row with the reference, on the same draws of the test photos.

    The figures of a row are the means over its seeds, in every draw; the intervals are about the
    choice of the photos, not about that of the seeds, whose spread stands in the table.

    Args:
        trained: the rows; those without runs are left out.
        reference: key of a row with runs.
        k: of F1@K.
        seed: of the draws.
    """
    whole = {key: row for key, row in trained.items() if not row.error}
    others = [key for key in whole if key != reference]
    opened = open_run(whole[reference].folders[0])
    labels, groups = opened.split.labels, opened.dataset.groups
    resamples = number_of_resamples(labels)
    if not others:
        return Comparison(reference, resamples, {})
    scores = [
        np.stack([scores_of_run(folder) for folder in whole[key].folders])
        for key in (reference, *others)
    ]
    differences = bootstrap_differences(scores, labels, groups, k=k, seed=seed, resamples=resamples)
    return Comparison(reference, resamples, dict(zip(others, differences, strict=True)))
