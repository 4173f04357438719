import keras
import numpy as np
import pytest
import tensorflow as tf

from biam_tf.losses import (
    RankingLoss,
    pairwise_ranking_loss,
    ranknet_loss,
    softmax_over_classes,
    softmax_over_images,
    weighted_ranking_loss,
)

pytestmark = [pytest.mark.unit, pytest.mark.rounding]


def brute_force(labels, scores, margin=1.0, mean_of_violations=False):
    """Losses (B,) and gradient of their sum (B, C), pair by pair."""
    losses, gradients = np.zeros(len(scores)), np.zeros(scores.shape)
    for image, (row_labels, row) in enumerate(zip(labels, scores.astype(np.float64), strict=True)):
        hinges = {
            (p, n): row[n] - row[p] + margin
            for p in np.flatnonzero(row_labels > 0)
            for n in np.flatnonzero(row_labels < 0)
        }
        violated = {pair: hinge for pair, hinge in hinges.items() if hinge > 0}
        divisor = len(violated) + 1e-8 if mean_of_violations else 1.0
        losses[image] = sum(violated.values()) / divisor
        for p, n in violated:
            gradients[image, n] += 1 / divisor
            gradients[image, p] -= 1 / divisor
    return losses, gradients


def value_and_gradient(labels, scores, **settings):
    scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        losses = pairwise_ranking_loss(labels, scores, **settings)
    return losses.numpy(), tape.gradient(losses, scores).numpy()


@pytest.fixture
def batch(rng):
    labels = rng.choice([-1, 0, 1], p=[0.6, 0.2, 0.2], size=(7, 40)).astype(np.float32)
    labels[0][labels[0] > 0] = -1  # an image without positives
    labels[1][labels[1] < 0] = 1  # one without negatives
    labels[2] = 0
    return labels, (2 * rng.normal(size=labels.shape)).astype(np.float32)


@pytest.mark.parametrize("mean_of_violations", [False, True])
@pytest.mark.parametrize("margin", [1.0, 0.25])
def test_value_and_gradient_are_those_of_all_pairs(batch, margin, mean_of_violations):
    settings = {"margin": margin, "mean_of_violations": mean_of_violations}
    losses, gradient = value_and_gradient(*batch, **settings)
    expected_losses, expected_gradient = brute_force(*batch, **settings)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)
    assert losses.dtype == np.float32


def test_value_and_gradient_are_those_of_the_released_code(golden):
    loss = RankingLoss(reduction="mean_of_violations")
    scores = tf.constant(golden["scores"])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        value = loss(golden["labels"], scores)
    np.testing.assert_allclose(value, golden["loss"], atol=1e-5, rtol=0)
    gradient = tape.gradient(value, scores)
    np.testing.assert_allclose(gradient, golden["loss_gradient"], atol=1e-5, rtol=0)


def test_the_value_keeps_its_digits_with_thousands_of_classes(rng):
    scores = (100 + rng.normal(size=(2, 7186))).astype(np.float32)
    labels = np.where(rng.random(scores.shape) < 0.005, 1, -1)
    wide = scores.astype(np.float64)
    expected = [
        np.maximum(row[own < 0] - row[own > 0][:, None] + 1, 0).sum()
        for row, own in zip(wide, labels, strict=True)
    ]
    np.testing.assert_allclose(pairwise_ranking_loss(labels, scores), expected, rtol=1e-6)


def test_scores_on_a_grid_with_ties_and_pairs_at_the_margin(rng):
    scores = rng.integers(-2, 3, size=(20, 12)).astype(np.float32)
    labels = rng.choice([-1, 0, 1], size=scores.shape)
    losses, gradient = value_and_gradient(labels, scores)
    expected_losses, expected_gradient = brute_force(labels, scores)
    np.testing.assert_array_equal(losses, expected_losses)
    np.testing.assert_array_equal(gradient, expected_gradient)


def test_a_pair_exactly_at_the_margin_is_not_violated():
    losses, gradient = value_and_gradient([[1, -1]], [[1.0, 0.0]])
    assert losses == [0] and not gradient.any()


def test_label_zero_takes_no_part(batch, rng):
    labels, scores = batch
    other = np.where(labels == 0, 100 * rng.normal(size=scores.shape), scores).astype(np.float32)
    np.testing.assert_array_equal(
        pairwise_ranking_loss(labels, scores), pairwise_ranking_loss(labels, other)
    )
    assert not value_and_gradient(labels, scores)[1][labels == 0].any()


def test_the_order_of_the_classes_does_not_matter(batch, rng):
    labels, scores = batch
    order = rng.permutation(labels.shape[1])
    losses, gradient = value_and_gradient(labels, scores)
    permuted_losses, permuted_gradient = value_and_gradient(labels[:, order], scores[:, order])
    np.testing.assert_allclose(permuted_losses, losses, rtol=1e-6)
    np.testing.assert_array_equal(permuted_gradient, gradient[:, order])


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_other_precisions_of_the_scores(batch, dtype):
    labels, scores = batch
    scores = tf.cast(scores, dtype)
    losses = pairwise_ranking_loss(labels, scores)
    assert losses.dtype == (tf.float64 if dtype == tf.float64 else tf.float32)
    expected, _ = brute_force(labels, tf.cast(scores, tf.float64).numpy())
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert value_and_gradient(labels, scores)[1].dtype == dtype.as_numpy_dtype


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_traced_function_gives_the_same(batch, jit_compile):
    traced = tf.function(pairwise_ranking_loss, jit_compile=jit_compile)
    labels, scores = batch
    np.testing.assert_allclose(
        traced(tf.constant(labels), tf.constant(scores)),
        pairwise_ranking_loss(labels, scores),
        rtol=1e-6,
    )


@pytest.mark.parametrize("shape", [[None, None], None])
def test_shapes_may_be_unknown_when_tracing(batch, shape):
    spec = tf.TensorSpec(shape, tf.float32)
    loss = RankingLoss(reduction="mean_of_violations")
    traced = tf.function(loss, input_signature=[spec, spec])
    np.testing.assert_allclose(traced(*batch), loss(*batch), rtol=1e-6)
    assert traced(np.zeros((0, 5), "f"), np.zeros((0, 5), "f")) == 0


@pytest.mark.parametrize("reduction", ["sum", "mean_of_violations"])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_an_empty_batch_and_an_empty_class_list_lose_nothing(reduction, shape):
    value = RankingLoss(reduction=reduction)(np.zeros(shape), np.zeros(shape))
    assert value.shape == () and value == 0


def test_a_nan_score_on_a_labelled_class_makes_the_image_nan():
    scores = [[np.nan, 5.0, 0.0], [np.nan, 5.0, 0.0]]
    losses = pairwise_ranking_loss([[-1, 1, -1], [0, 1, -1]], scores)
    np.testing.assert_array_equal(losses, [np.nan, 0])


def test_an_infinite_score_that_violates_nothing_costs_nothing():
    assert pairwise_ranking_loss([[1, -1, -1]], [[0.0, -np.inf, 0.0]]) == [1]


def test_the_sum_is_over_all_images(batch):
    expected = brute_force(*batch)[0].sum()
    np.testing.assert_allclose(RankingLoss(reduction="sum")(*batch), expected, rtol=1e-6)


def test_the_mean_is_over_images_with_a_positive(batch):
    labels, _ = batch
    losses, _ = brute_force(*batch, mean_of_violations=True)
    expected = losses.sum() / (labels > 0).any(axis=1).sum()
    loss = RankingLoss(reduction="mean_of_violations")
    np.testing.assert_allclose(loss(*batch), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_sample_weights_multiply_the_images_losses(batch, rng, shape):
    weights = rng.random(7).astype(np.float32)
    expected = (brute_force(*batch)[0] * weights).sum()
    value = RankingLoss()(*batch, sample_weight=weights.reshape(shape))
    np.testing.assert_allclose(value, expected, rtol=1e-6)


class WithMask(keras.layers.Layer):
    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def call(self, inputs):
        return tf.identity(inputs)

    def compute_mask(self, inputs, previous_mask=None):
        return tf.constant(self.mask)


def test_a_masked_image_is_absent_from_the_batch(batch):
    labels, scores = batch
    mask = np.array([True, True, True, True, False, True, False])
    scores_with_nan = scores.copy()
    scores_with_nan[~mask] = np.nan
    masked = WithMask(mask)(scores_with_nan)
    loss = RankingLoss(reduction="mean_of_violations")
    np.testing.assert_allclose(loss(labels, masked), loss(labels[mask], scores[mask]), rtol=1e-6)


def test_weights_of_single_classes_are_refused(batch):
    with pytest.raises(ValueError, match=r"sample_weight of shape \(7, 40\).*label of 0"):
        RankingLoss()(*batch, sample_weight=np.ones((7, 40)))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"labels \(2, 3\) and scores \(2, 4\)"):
        pairwise_ranking_loss(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"scores must be \(images, classes\)"):
        pairwise_ranking_loss(np.zeros((2, 3)), np.zeros(3))


def test_an_unknown_reduction_names_the_known_ones():
    with pytest.raises(ValueError, match="'mean' is not known; use 'sum' or 'mean_of_violations'"):
        RankingLoss(reduction="mean")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("reduction", "jit_compile"), [("sum", False), ("mean_of_violations", True)]
)
def test_anybodys_model_trains_with_it(rng, reduction, jit_compile):
    keras.utils.set_random_seed(0)
    x = rng.normal(size=(64, 8)).astype(np.float32)
    labels = np.where(x @ rng.normal(size=(8, 6)) > 1, 1, -1)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)])
    model.compile(
        keras.optimizers.Adam(0.05), RankingLoss(reduction=reduction), jit_compile=jit_compile
    )
    history = model.fit(x, labels, epochs=10, batch_size=20, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


def test_it_is_saved_with_a_compiled_model(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", RankingLoss(margin=0.5, reduction="mean_of_violations", name="ranks"))
    model.save(tmp_path / "model.keras")
    loss = keras.models.load_model(tmp_path / "model.keras").loss
    assert isinstance(loss, RankingLoss)
    assert (loss.margin, loss.reduction, loss.name) == (0.5, "mean_of_violations", "ranks")
    assert RankingLoss.from_config(loss.get_config()).get_config() == loss.get_config()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_twenty_thousand_classes_need_no_table_of_pairs(rng, jit_compile):
    # Pairs as float32 would be 12.8 MB here with the positives gathered, 6.4 GB without.
    scores = rng.normal(size=(4, 20_000)).astype(np.float32)
    labels = -np.ones(scores.shape, np.int8)
    for row in labels:
        row[rng.choice(20_000, 40, replace=False)] = 1
    traced = tf.function(pairwise_ranking_loss, jit_compile=jit_compile)
    losses = traced(tf.constant(labels), tf.constant(scores)).numpy()
    wide = scores[0].astype(np.float64)
    hinges = np.maximum(wide[labels[0] < 0] - wide[labels[0] > 0][:, None] + 1, 0)
    np.testing.assert_allclose(losses[0], hinges.sum(), rtol=1e-6)


def softmax_loss(labels, scores, i, p, others):
    """-log of the softmax of entry (i, p) among `others`, pairs of image and class."""
    return -(scores[i, p] - np.log(sum(np.exp(scores[j, c]) for j, c in others)))


def test_softmax_over_classes_weighs_present_ones_alike_and_leaves_unknown_ones_out(batch):
    labels, scores = batch
    expected = np.zeros(len(scores))
    for i, row in enumerate(labels):
        known = [(i, c) for c in np.flatnonzero(row)]
        own = [softmax_loss(labels, scores, i, p, known) for p in np.flatnonzero(row > 0)]
        expected[i] = np.mean(own) if own else 0.0
    found = softmax_over_classes(labels, scores)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_softmax_over_images_ranks_the_images_of_each_class(batch):
    labels, scores = batch
    expected = np.zeros(len(scores))
    for i, row in enumerate(labels):
        own = []
        for p in np.flatnonzero(row > 0):
            known = [(j, p) for j in np.flatnonzero(labels[:, p])]
            own.append(softmax_loss(labels, scores, i, p, known))
        expected[i] = np.mean(own) if own else 0.0
    np.testing.assert_allclose(softmax_over_images(labels, scores), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [softmax_over_classes, softmax_over_images])
def test_softmax_losses_have_finite_gradients_in_half_precision_and_with_unknown_labels(
    batch, loss
):
    labels, scores = batch
    scores = tf.constant(scores, "float16")
    with tf.GradientTape() as tape:
        tape.watch(scores)
        value = tf.reduce_sum(loss(labels, scores))
    gradient = tape.gradient(value, scores).numpy()
    assert np.isfinite(gradient).all() and not gradient[labels == 0].any()


def pairs_of(row_labels):
    return np.flatnonzero(row_labels > 0), np.flatnonzero(row_labels < 0)


@pytest.mark.parametrize("margin", [1.0, 0.25])
def test_weighted_ranking_weighs_the_hinges_of_a_positive_by_the_negatives_that_violate_it(
    batch, margin
):
    labels, scores = batch
    expected, gradient = np.zeros(len(scores)), np.zeros(scores.shape)
    for i, (row_labels, row) in enumerate(zip(labels, scores.astype(np.float64), strict=True)):
        positives, negatives = pairs_of(row_labels)
        for p in positives:
            violating = [n for n in negatives if row[n] - row[p] + margin > 0]
            k = len(violating)
            weight = sum(1 / j for j in range(1, k + 1)) / max(k, 1) / len(positives)
            for n in violating:
                expected[i] += weight * (row[n] - row[p] + margin)
                gradient[i, n] += weight
                gradient[i, p] -= weight
    found = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(found)
        losses = weighted_ranking_loss(labels, found, margin)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(losses, found), gradient, rtol=1e-5, atol=1e-7)


def test_ranknet_is_the_mean_over_all_pairs(batch):
    labels, scores = batch
    expected, gradient = np.zeros(len(scores)), np.zeros(scores.shape)
    for i, (row_labels, row) in enumerate(zip(labels, scores.astype(np.float64), strict=True)):
        positives, negatives = pairs_of(row_labels)
        for p in positives:
            for n in negatives:
                share = 1 / (len(positives) * len(negatives))
                expected[i] += share * np.log1p(np.exp(row[n] - row[p]))
                slope = share / (1 + np.exp(row[p] - row[n]))
                gradient[i, n] += slope
                gradient[i, p] -= slope
    found = tf.constant(np.where(labels == 0, np.nan, scores))  # unknown ones take no part
    with tf.GradientTape() as tape:
        tape.watch(found)
        losses = ranknet_loss(labels, found)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(losses, found), gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", [ranknet_loss, weighted_ranking_loss])
def test_losses_of_pairs_take_empty_batches_and_refuse_shapes_that_do_not_fit(loss):
    no_class = tf.zeros((2, 3)) - 1
    np.testing.assert_array_equal(loss(no_class, no_class), [0, 0])
    assert loss(no_class[:0], no_class[:0]).shape == (0,)
    with pytest.raises(ValueError, match="must have one shape"):
        loss(no_class, no_class[:, :2])
