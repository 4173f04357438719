"""k-means clusters of class embeddings; the same points give the same centroids."""

import numpy as np

MAX_STEPS = 300


def k_means(points: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Returns the centroids of Lloyd's algorithm, initialized by k-means++.

    k-means++: Arthur & Vassilvitskii, SODA 2007; Lloyd: IEEE Trans. Information Theory, 1982. An
    empty cluster is moved to the point that is farthest from its centroid.

    Args:
        points: (N, d).
        count: number of clusters, at most the number of different points.
        seed: seed of k-means++. Defaults to `0`.

    Returns:
        (count, d) float64.

    Raises:
        ValueError: there are fewer different points than clusters.
    """
    points = np.asarray(points, np.float64)
    distinct = len(np.unique(points, axis=0))
    if count > distinct:
        raise ValueError(f"{count} clusters of {distinct} different points")
    centroids = _seeds(points, count, np.random.default_rng(seed))
    members = None
    for _ in range(MAX_STEPS):
        distances = squared_distances(points, centroids)
        nearest = distances.argmin(axis=1)
        if members is not None and (nearest == members).all():
            break
        members = nearest
        sizes = np.bincount(members, minlength=count)
        sums = (members[:, None] == np.arange(count)).T.astype(np.float64) @ points
        centroids = sums / np.maximum(sizes, 1)[:, None]
        empty = np.flatnonzero(sizes == 0)
        farthest = np.argsort(-distances.min(axis=1), kind="stable")
        centroids[empty] = points[farthest[: len(empty)]]
    return centroids


def squared_distances(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Returns the squared Euclidean distances (N, K), at least 0."""
    products = points @ centroids.T
    squares = (points**2).sum(axis=1)[:, None] + (centroids**2).sum(axis=1)
    return np.maximum(squares - 2 * products, 0)


def _seeds(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws points in turn, with probabilities by the squared distance to the nearest drawn one."""
    chosen = [points[rng.integers(len(points))]]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, ((points - chosen[-1]) ** 2).sum(axis=1))
        chosen.append(points[rng.choice(len(points), p=nearest / nearest.sum())])
    return np.array(chosen)
