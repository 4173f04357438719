"""Region features of some classes in a plane, as the paper's figure 6 shows them (t-SNE)."""

import dataclasses

import keras
import numpy as np

from biam_tf.models import build_tagger
from biam_tf.models.head import region_classifier, response_map_layer
from biam_tf.runs import TrainedRun
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split
from training.data.input.sources import PhotoSource
from training.scoring.scorer import make_scorer

CLASSES, PHOTOS_A_CLASS = 10, 30
ITERATIONS = 600
BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class RegionFeatures:
    """What the region classifier gets of photos that show a class; the backbone's without one.

    Attributes:
        classes: (K,) which classes of the vocabulary.
        members: (P,) for each point, a position in `classes`.
        strongest: (P, d) features of the region that responds most to the class.
        averages: (P, d) features of the same photo, averaged over all its regions.
    """

    classes: np.ndarray
    members: np.ndarray
    strongest: np.ndarray
    averages: np.ndarray


def choose_classes(split: Split, groups) -> np.ndarray:
    """Returns up to ten classes with the most photos of their own, unseen ones if there are two.

    A photo that shows several of the classes would be several points at one place; so classes
    are taken one by one, by the photos in which they are the only one chosen so far.
    """
    present = split.labels > 0
    unseen = np.flatnonzero(np.asarray(groups, dtype=object) == "unseen")
    pool = [c for c in unseen if present[:, c].sum() > 1]
    if len(pool) < 2:
        pool = [c for c in range(present.shape[1]) if present[:, c].sum() > 1]
    chosen, free = [], np.ones(len(present), bool)
    while pool and len(chosen) < CLASSES:
        best = max(pool, key=lambda c: (present[free, c].sum(), -c))
        if present[free, best].sum() < 2:
            break
        chosen.append(best)
        free &= ~present[:, best]
        pool.remove(best)
    return np.array(chosen, dtype=int)


def gather(
    run: TrainedRun, split: Split, vocabulary: Vocabulary, make_source
) -> RegionFeatures | None:
    """Collects the features of photos that show exactly one of the chosen classes.

    Args:
        run: the trained run; its head has response maps.
        split: the photos.
        vocabulary: the classes of the split's labels.
        make_source: photo names to examples.

    Returns:
        The features, or None where fewer than two classes have photos enough.
    """
    classes = choose_classes(split, vocabulary.groups)
    present = split.labels[:, classes] > 0
    rows, members = [], []
    for k in range(len(classes)):
        own = np.flatnonzero(present[:, k] & (present.sum(axis=1) == 1))[:PHOTOS_A_CLASS]
        rows.extend(own)
        members.extend([k] * len(own))
    order = np.argsort(rows, kind="stable")  # stored features are read in their order
    rows, members = np.array(rows, int)[order], np.array(members, int)[order]
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
        own = maps[np.arange(count), :, members[done : done + count]]
        strongest.append(features[np.arange(count), own.argmax(axis=1)])
        averages.append(features.mean(axis=1))
        done += count
    return RegionFeatures(classes, members, np.concatenate(strongest), np.concatenate(averages))


def to_plane(features: np.ndarray, seed: int) -> np.ndarray:
    """Returns (P, 2) points whose neighbourhoods are those of the features (P, d): t-SNE.

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
    # Some hundred points are faster with one thread than with several that wait for each other.
    with threadpool_limits(1):
        return tsne.fit_transform(features)


def neighbours_alike(features: np.ndarray, members: np.ndarray) -> float:
    """Returns the share of points whose nearest other point, by angle, is of their own class."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    return float((members[likeness.argmax(axis=1)] == members).mean())


def _feature_model(run: TrainedRun, from_photos: bool) -> keras.Model:
    classifier = region_classifier(run.head)
    if classifier is None:
        outputs = {"response_maps": response_map_layer(run.head).output}
        outputs["features"] = run.head.input[0]
    else:  # pooled features are those of one region
        outputs = {"response_maps": classifier.output, "features": classifier.input[0]}
    head = keras.Model(run.head.inputs, outputs, name="region_features_of_head")
    return build_tagger(run.backbone, head) if from_photos else head
