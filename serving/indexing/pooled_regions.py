"""How many regions of a photo decide a score, read off scores and response maps."""

import numpy as np

_TOLERANCE = 1e-3


def pooled_regions(responses: np.ndarray, scores: np.ndarray) -> int | None:
    """Returns k, where each score is the mean of its class's k strongest responses.

    Args:
        responses: (regions, C) of one photo.
        scores: (C,) of the same photo and classes.

    Returns:
        k; `None` where the scores are no such mean.
    """
    strongest = -np.sort(-responses, axis=0)
    means = np.cumsum(strongest, axis=0) / np.arange(1, len(responses) + 1)[:, None]
    errors = np.abs(means - scores).max(axis=1)
    k = int(np.argmin(errors)) + 1
    fits = errors[k - 1] <= _TOLERANCE * max(1.0, float(np.abs(scores).max()))
    return k if fits else None
