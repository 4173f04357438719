import keras
import numpy as np
import pytest
from region_attention_reference import (
    EMBEDDING,
    GRID,
    attention_of,
    dense,
    embedded_regions,
    random_head,
    random_inputs,
)
from sklearn.cluster import KMeans

from biam_tf.models.head import with_response_maps
from biam_tf.models.k_means import k_means, squared_distances
from biam_tf.models.systems import SYSTEMS, build_system_head

pytestmark = pytest.mark.unit

SEEN = 12


@pytest.fixture
def seen_embeddings(rng):
    return rng.normal(size=(SEEN, EMBEDDING)).astype("float32")


def cluster_head(rng, seen_embeddings):
    settings = {"channels": 4, "num_clusters": 3}
    return random_head("attention_per_cluster", rng, seen_embeddings, **settings)


def test_a_score_is_the_attended_feature_of_the_nearest_cluster(rng, seen_embeddings):
    head, inputs = cluster_head(rng, seen_embeddings), random_inputs(rng)
    outputs = with_response_maps(head)(inputs)
    centroids = head.get_layer("attention").centroids.numpy()
    np.testing.assert_allclose(centroids, k_means(seen_embeddings, 3), rtol=1e-6)
    W = head.get_layer("region_responses").kernel.numpy()
    chosen = set()
    for i, photo in enumerate(inputs[0]):
        f = embedded_regions(head, photo)
        hidden = np.tanh(dense(head, "attention_hidden", f))
        attention = attention_of(dense(head, "attention_logits", hidden))
        for c, a_c in enumerate(inputs[2].astype(np.float64)):
            cluster = int(np.linalg.norm(centroids - a_c, axis=1).argmin())
            chosen.add(cluster)
            expected = attention[cluster] @ f @ (a_c @ W)
            np.testing.assert_allclose(outputs["scores"][i, c], expected, rtol=1e-4, atol=1e-5)
            terms = (attention[cluster] * (f @ (a_c @ W))).reshape(GRID)
            found = outputs["response_maps"][i, ..., c]
            np.testing.assert_allclose(found, terms, rtol=1e-4, atol=1e-6)
    assert len(chosen) > 1


def test_the_clusters_are_saved_and_never_trained(rng, seen_embeddings, tmp_path):
    head = cluster_head(rng, seen_embeddings)
    head.save(tmp_path / "head.keras")
    again = keras.models.load_model(tmp_path / "head.keras").get_layer("attention")
    np.testing.assert_array_equal(again.centroids, head.get_layer("attention").centroids)
    assert again.centroids not in again.trainable_weights


def test_half_precision_leaves_a_class_in_its_cluster(rng, seen_embeddings):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        head = cluster_head(rng, seen_embeddings)
        nearest = head.get_layer("attention")
        scores = head(random_inputs(rng))
    finally:
        keras.config.set_dtype_policy("float32")
    assert nearest.centroids.dtype == "float32" and scores.dtype == "float32"
    middle = (nearest.centroids[0] + nearest.centroids[1]).numpy() / 2
    step = 1e-4 * (nearest.centroids[1] - nearest.centroids[0]).numpy()
    close = np.stack([middle - step, middle + step])  # one in half precision
    assert nearest.cluster_of(close).numpy().tolist() == [0, 1]


def test_without_seen_classes_or_with_too_few_there_are_no_clusters(seen_embeddings):
    shapes = ((*GRID, 3), 4, EMBEDDING)
    with pytest.raises(ValueError, match="attention_per_cluster needs seen_embeddings"):
        build_system_head("attention_per_cluster", *shapes)
    twice = np.repeat(seen_embeddings[:2], 5, axis=0)
    with pytest.raises(ValueError, match="num_clusters: 10 clusters of 2 different points: the 10"):
        build_system_head("attention_per_cluster", *shapes, seen_embeddings=twice)
    with pytest.raises(ValueError, match="num_clusters: 0 is not valid"):
        SYSTEMS["attention_per_cluster"].settings(num_clusters=0)


def test_k_means_ends_where_every_centroid_is_the_mean_of_what_is_nearest_to_it(rng):
    points = rng.normal(size=(200, 5))
    centroids = k_means(points, 7)
    members = squared_distances(points, centroids).argmin(axis=1)
    for k, centroid in enumerate(centroids):
        np.testing.assert_allclose(centroid, points[members == k].mean(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(k_means(points, 7), centroids)


@pytest.mark.integration
def test_k_means_goes_where_lloyd_s_algorithm_goes(rng):
    points = rng.normal(size=(300, 4)) + 3 * rng.integers(0, 3, (300, 1))
    # From its own result, another implementation finds nothing to move; on average, it does
    # as well from seeds of its own.
    settings = {"n_init": 1, "algorithm": "lloyd", "tol": 0}
    found = k_means(points, 5)
    other = KMeans(5, init=found, **settings).fit(points)
    np.testing.assert_allclose(other.cluster_centers_, found, rtol=1e-6)
    own, others = [], []
    for seed in range(8):
        own.append(squared_distances(points, k_means(points, 5, seed)).min(axis=1).sum())
        others.append(KMeans(5, random_state=seed, **settings).fit(points).inertia_)
    assert np.mean(own) < 1.1 * np.mean(others)


def test_k_means_with_as_many_clusters_as_points_has_one_at_each(rng):
    points = np.repeat(rng.normal(size=(6, 3)), 4, axis=0)
    found = k_means(points, 6)
    assert squared_distances(points, found).min(axis=1).max() < 1e-12
    with pytest.raises(ValueError, match="7 clusters of 6 different points"):
        k_means(points, 7)
