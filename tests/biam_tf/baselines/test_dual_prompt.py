import numpy as np
import pytest
from query_decoder_reference import dense
from reference import relu, softmax
from small_systems import small_head

from biam_tf.models.head import with_response_maps

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

GRID, CHANNELS, SCENE, EMBEDDING, CLASSES = (2, 3), 5, 4, 6, 7


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_regions_are_weighted_by_the_positive_and_compared_with_both_embeddings(rng):
    seen = rng.normal(size=(4, EMBEDDING)).astype("float32")
    head = small_head("dual_prompt", (*GRID, CHANNELS), SCENE, seen, channels=8)
    dual = head.get_layer("dual_embeddings").contexts
    for context in dual.values():
        context.kernel.assign(rng.normal(size=context.kernel.shape))
    classes = rng.normal(size=(CLASSES, EMBEDDING)).astype("float32")
    inputs = [
        rng.normal(size=(2, *GRID, CHANNELS)).astype("float32"),
        rng.normal(size=(2, SCENE)).astype("float32"),
        classes,
    ]
    outputs = with_response_maps(head)(inputs)
    p, n = (unit(dense(dual[name], classes)) for name in ("positive", "negative"))
    for i, photo in enumerate(inputs[0]):
        hidden = relu(dense(head.get_layer("region_hidden"), photo.reshape(-1, CHANNELS)))
        f = unit(dense(head.get_layer("region_vectors"), hidden))
        for c in range(CLASSES):
            positive, negative = 20 * f @ p[c], 20 * f @ n[c]
            weights = softmax(positive)
            sums = 5 * (weights @ positive), 5 * (weights @ negative)
            np.testing.assert_allclose(
                outputs["scores"][i, c], sums[0] - sums[1], rtol=1e-3, atol=1e-3
            )
            # The method's probability: a softmax over the two sums.
            probability = softmax(np.array(sums))[0]
            found = 1 / (1 + np.exp(-np.float64(outputs["scores"][i, c])))
            np.testing.assert_allclose(found, probability, rtol=1e-2, atol=1e-6)
            maps = 5 * (weights * (positive - negative)).reshape(GRID)
            np.testing.assert_allclose(
                outputs["response_maps"][i, ..., c], maps, rtol=1e-3, atol=1e-3
            )


def test_an_untrained_head_starts_from_the_class_embedding(rng):
    seen = rng.normal(size=(4, EMBEDDING)).astype("float32")
    head = small_head("dual_prompt", (*GRID, CHANNELS), SCENE, seen, channels=None)
    p, n = head.get_layer("dual_embeddings")(seen)
    for found in (p, n):
        assert ((found * unit(seen)).numpy().sum(axis=1) > 0.95).all()
    assert not np.allclose(p, n)
