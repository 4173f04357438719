"""ML-Decoder and QKS, whose queries attend to the regions."""

import numpy as np
import pytest
import tensorflow as tf
from query_decoder_reference import decode, dense
from reference import relu
from small_systems import small_head

from biam_tf.errors import UserError
from biam_tf.losses import asymmetric_loss
from biam_tf.models.head import with_response_maps
from biam_tf.models.systems import SYSTEMS

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

GRID, CHANNELS, SCENE, EMBEDDING, CLASSES = (2, 3), 5, 4, 6, 7


@pytest.fixture
def inputs(rng):
    shapes = [(2, *GRID, CHANNELS), (2, SCENE), (CLASSES, EMBEDDING)]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def randomized(name, rng, **settings):
    seen = np.eye(EMBEDDING, dtype="float32")
    head = small_head(name, (*GRID, CHANNELS), SCENE, seen, **settings)
    for weight in head.weights:  # ones and zeros would hide the normalizations
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    return head


def test_ml_decoder_decodes_each_class_from_the_regions_by_itself(inputs, rng):
    head = randomized("ml_decoder", rng, channels=8, num_heads=2, feed_forward_units=5)
    outputs = with_response_maps(head)(inputs)
    queries = relu(dense(head.get_layer("class_queries"), inputs[2]))
    layer = head.get_layer("class_decoder")
    for i, photo in enumerate(inputs[0]):
        regions = relu(dense(head.get_layer("region_embedding"), photo.reshape(-1, CHANNELS)))
        decoded, attention = decode(layer.decoder, queries, regions)
        np.testing.assert_allclose(
            outputs["scores"][i], dense(layer.score, decoded)[:, 0], rtol=1e-4, atol=1e-5
        )
        found = np.reshape(outputs["response_maps"][i], (-1, CLASSES)).T
        np.testing.assert_allclose(found, attention, rtol=1e-4, atol=1e-6)


def test_ml_decoder_scores_many_classes_in_blocks_and_alike(inputs, rng):
    head = randomized("ml_decoder", rng, channels=8, num_heads=2, feed_forward_units=5)
    with_maps = with_response_maps(head)
    whole = with_maps(inputs)
    head.get_layer("class_decoder").numbers_at_a_time = 3 * 2 * 8  # three classes of two photos
    in_blocks = tf.function(with_maps)(inputs)
    for name in ("scores", "response_maps"):
        np.testing.assert_allclose(in_blocks[name], whole[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_qks_scores_a_class_by_its_best_query(inputs, rng, num_layers):
    settings = {"queries": 4, "channels": 8, "num_heads": 2, "feed_forward_units": 5}
    head = randomized("query_sharing", rng, num_layers=num_layers, **settings)
    outputs, winners = with_response_maps(head)(inputs), set()
    for i, photo in enumerate(inputs[0]):
        regions = dense(head.get_layer("region_embedding"), photo.reshape(-1, CHANNELS))
        queries = head.get_layer("queries").vectors.numpy().astype(np.float64)
        for number in range(1, num_layers + 1):
            queries, attention = decode(head.get_layer(f"decoder_{number}"), queries, regions)
        products = dense(head.get_layer("query_vectors"), queries) @ inputs[2].T  # (T, C)
        np.testing.assert_allclose(outputs["scores"][i], products.max(axis=0), rtol=1e-4, atol=1e-4)
        best = products.argmax(axis=0)
        winners |= set(best)
        found = np.reshape(outputs["response_maps"][i], (-1, CLASSES)).T
        np.testing.assert_allclose(found, attention[best], rtol=1e-3, atol=1e-5)
    assert len(winners) > 1


@pytest.mark.parametrize("name", ["ml_decoder", "query_sharing", "dual_prompt"])
def test_the_loss_is_the_asymmetric_one_with_the_settings_of_the_head(name, rng):
    labels = rng.choice([-1, 0, 1], size=(3, 6))
    outputs = {"scores": rng.normal(size=(3, 6)).astype("float32")}
    settings = SYSTEMS[name].settings(gamma_positive=0.5, gamma_negative=3.0, clip=0.1)
    found = SYSTEMS[name].make_losses(None, settings)(labels, outputs)
    np.testing.assert_array_equal(found, asymmetric_loss(labels, outputs["scores"], 0.5, 3.0, 0.1))


@pytest.mark.parametrize(
    ("name", "setting", "value", "valid"),
    [
        ("ml_decoder", "num_heads", 7, "a divisor of channels, 768"),
        ("ml_decoder", "clip", 1.0, "at least 0"),
        ("query_sharing", "queries", 0, "at least 1"),
        ("query_sharing", "gamma_negative", -1.0, "at least 0"),
        ("dual_prompt", "region_scale", 0.0, "above 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name, setting, value, valid):
    with pytest.raises(UserError, match=f"{setting}: {value} is not valid; it must be {valid}"):
        SYSTEMS[name].settings(**{setting: value})
