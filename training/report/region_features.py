"""A plane of some classes' region features, as in the paper's figure 6 (t-SNE)."""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np

from biam_tf.models import build_tagger
from biam_tf.models.head import region_classifier, response_map_layer
from biam_tf.runs import TrainedRun
from biam_tf.sparse_labels import as_sparse
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split
from training.data.input.sources import FeatureSource, PhotoSource
from training.scoring.scorer import make_scorer

CLASSES, PHOTOS_PER_CLASS = 10, 30
ITERATIONS = 600
BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class RegionFeatures:
    """Inputs of the region classifier (without one, of the head) for photos of some classes.

    Attributes:
        classes: (K,) indices of classes in the vocabulary.
        members: (P,) the class of each photo, an index into `classes`.
        strongest: (P, d) features of the region with the highest response to the class.
        averages: (P, d) features of the same photo, averaged over all its regions.
    """

    classes: np.ndarray
    members: np.ndarray
    strongest: np.ndarray
    averages: np.ndarray


def choose_classes(split: Split, groups: Sequence[str]) -> np.ndarray:
    """Returns up to ten classes with the most photos of their own; unseen ones, if at least two.

    A photo that shows several of the classes would be several points in one place; so classes are
    chosen one by one, by the number of photos that show none of those chosen before.
    """
    labels = as_sparse(split.labels)
    counts, images = labels.count(1, axis=0), len(labels)
    unseen = np.flatnonzero(np.asarray(groups, dtype=object) == "unseen")
    pool = [c for c in unseen.tolist() if counts[c] > 1]
    if len(pool) < 2:
        pool = np.flatnonzero(counts > 1).tolist()
    chosen: list[int] = []
    free = np.arange(images)
    while pool and len(chosen) < CLASSES:
        shown = labels.rows(free).count(1, axis=0)
        best = max(pool, key=lambda c: (shown[c], -c))
        if shown[best] < 2:
            break
        chosen.append(best)
        free = free[labels[:, best][free] <= 0]
        pool.remove(best)
    return np.array(chosen, dtype=int)


def gather(
    run: TrainedRun,
    split: Split,
    vocabulary: Vocabulary,
    make_source: Callable[[Sequence[str]], FeatureSource | PhotoSource],
) -> RegionFeatures | None:
    """Collects the features of photos that show exactly one of the chosen classes.

    Args:
        run: the trained run; its head has response maps.
        split: the photos.
        vocabulary: the classes of the split's labels.
        make_source: makes the examples of some photos.

    Returns:
        The features; None if fewer than two classes have enough photos.
    """
    classes = choose_classes(split, vocabulary.groups)
    present = split.labels[:, classes] > 0
    found: list[int] = []
    class_of: list[int] = []
    for k in range(len(classes)):
        own = np.flatnonzero(present[:, k] & (present.sum(axis=1) == 1))[:PHOTOS_PER_CLASS]
        found.extend(own.tolist())
        class_of.extend([k] * len(own))
    order = np.argsort(found, kind="stable")  # stored features are read in their order
    rows, members = np.array(found, np.int64)[order], np.array(class_of, np.int64)[order]
    if len(np.unique(members)) < 2 or len(rows) < 6:
        return None
    source = make_source(tuple(split.images[row] for row in rows))
    embeddings = vocabulary.embeddings[classes]
    scorer = make_scorer(_feature_model(run, isinstance(source, PhotoSource)))
    strongest, averages, done = [], [], 0
    for inputs in source.evaluation_batches(BATCH):
        outputs = scorer(inputs, embeddings)
        maps, features = (
            outputs[name].numpy().astype(np.float32) for name in ("response_maps", "features")
        )
        count = len(features)
        features = features.reshape(count, -1, features.shape[-1])
        maps = maps.reshape(count, -1, len(classes))
        own_maps = maps[np.arange(count), :, members[done : done + count]]
        strongest.append(features[np.arange(count), own_maps.argmax(axis=1)])
        averages.append(features.mean(axis=1))
        done += count
    return RegionFeatures(classes, members, np.concatenate(strongest), np.concatenate(averages))


def to_plane(features: np.ndarray, seed: int) -> np.ndarray:
    """Returns the t-SNE of features (P, d): (P, 2) points with similar neighborhoods.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    tsne = TSNE(
        perplexity=min(30.0, (len(features) - 1) / 3),
        init="pca",
        max_iter=ITERATIONS,
        random_state=seed,
    )
    # For some hundred points, one thread is faster than several that wait for each other.
    with threadpool_limits(1):
        return tsne.fit_transform(features)


def share_of_like_neighbors(features: np.ndarray, members: np.ndarray) -> float:
    """Returns the share of points whose nearest other point, by angle, has the same class."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return float((members[similarity.argmax(axis=1)] == members).mean())


def _feature_model(run: TrainedRun, from_photos: bool) -> keras.Model:
    classifier = region_classifier(run.head)
    if classifier is None:
        layer = response_map_layer(run.head)
        assert layer is not None, "gather requires response maps"
        outputs = {"response_maps": layer.output, "features": run.head.input[0]}
    else:  # pooled features are those of one region
        outputs = {"response_maps": classifier.output, "features": classifier.input[0]}
    head = keras.Model(run.head.inputs, outputs, name="region_features_of_head")
    return build_tagger(run.backbone, head) if from_photos else head
