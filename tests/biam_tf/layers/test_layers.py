"""One conformance test for every layer, then what only one of them promises."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from processor import MIXED_BFLOAT16

from biam_tf.layers import (
    BoundClassEmbeddings,
    ConvReluBatchNorm,
    CrissCrossAttention,
    NonLocalBlock,
    PointwiseConv2D,
    RegionClassifier,
    RegionContextBlock,
    SceneContextBlock,
    TopKSpatialPooling,
)

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

REGIONS, SCENE, CLASSES = (2, 5, 4, 8), (2, 6), (3, 7)

# layer, shapes of its inputs, shape of its output
CASES = {
    "conv_relu_batch_norm": (lambda **k: ConvReluBatchNorm(12, **k), REGIONS, (2, 5, 4, 12)),
    "region_context": (
        lambda **k: RegionContextBlock(num_heads=4, attention_dropout=0.1, output_dropout=0.1, **k),
        REGIONS,
        REGIONS,
    ),
    "region_context_sigmoid": (
        lambda **k: RegionContextBlock(
            2, feed_forward_units=5, attention="sigmoid", mask_zero_scores=True, **k
        ),
        REGIONS,
        REGIONS,
    ),
    "region_context_layer_norm": (
        lambda **k: RegionContextBlock(2, layer_norm=True, **k),
        REGIONS,
        REGIONS,
    ),
    "non_local": (
        lambda **k: NonLocalBlock(batch_norm_momentum=0.5, batch_norm_epsilon=1e-2, **k),
        REGIONS,
        REGIONS,
    ),
    "criss_cross": (lambda **k: CrissCrossAttention(3, **k), REGIONS, REGIONS),
    "scene_context": (lambda **k: SceneContextBlock(**k), [REGIONS, SCENE], REGIONS),
    "scene_context_released": (
        lambda **k: SceneContextBlock(
            value_projection=True, residual="attended", scene_dropout=0.2, **k
        ),
        [REGIONS, SCENE],
        REGIONS,
    ),
    "scene_context_softmax": (
        lambda **k: SceneContextBlock(attention="softmax", **k),
        [REGIONS, SCENE],
        REGIONS,
    ),
    "region_classifier": (
        lambda **k: RegionClassifier(use_bias=True, **k),
        [REGIONS, CLASSES],
        (2, 5, 4, 3),
    ),
    "pointwise_conv": (lambda **k: PointwiseConv2D(5, **k), REGIONS, (2, 5, 4, 5)),
    "top_k_pooling": (lambda **k: TopKSpatialPooling(3, **k), REGIONS, (2, 8)),
    "bound_class_embeddings": (
        lambda **k: BoundClassEmbeddings(np.eye(3, 7), **k),
        REGIONS,
        (3, 7),
    ),
}


def fill_zeros(layer):
    """Gives weights that start at zero other values, as a trained layer has them."""
    for weight in layer.trainable_variables:
        if not np.any(weight):
            weight.assign(np.random.default_rng(1).normal(0, 0.1, weight.shape))


def arrays(shapes, rng):
    if isinstance(shapes, list):
        return [arrays(shape, rng) for shape in shapes]
    return rng.normal(size=shapes).astype(np.float32)


@pytest.fixture(params=CASES)
def case(request, rng):
    make, shapes, output_shape = CASES[request.param]
    return make, arrays(shapes, rng), shapes, output_shape


def test_output_shape_is_as_computed(case):
    make, inputs, shapes, output_shape = case
    layer = make()
    assert tuple(layer.compute_output_shape(shapes)) == output_shape
    assert layer(inputs).shape == output_shape


def test_layer_is_saved_and_loaded_inside_a_functional_model(case, tmp_path):
    make, inputs, shapes, _ = case
    listed = shapes if isinstance(shapes, list) else [shapes]
    # Class embeddings have no batch axis: their first dimension is free as well.
    tensors = [keras.Input(batch_shape=(None, *shape[1:])) for shape in listed]
    layer = make()
    model = keras.Model(tensors, layer(tensors if isinstance(shapes, list) else tensors[0]))
    fill_zeros(layer)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    given = inputs if isinstance(shapes, list) else [inputs]
    np.testing.assert_array_equal(again(given), model(given))
    assert again.layers[-1].get_config() == layer.get_config()


def test_a_graph_may_leave_all_but_the_channels_unknown(case):
    make, inputs, shapes, _ = case
    layer = make()
    layer(inputs)  # built
    fill_zeros(layer)
    unknown = [
        tf.TensorSpec([*[None] * (len(shape) - 1), shape[-1]])
        for shape in (shapes if isinstance(shapes, list) else [shapes])
    ]
    graph = tf.function(
        layer, input_signature=[unknown if isinstance(shapes, list) else unknown[0]]
    )
    np.testing.assert_allclose(graph(inputs), layer(inputs), atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_float16", MIXED_BFLOAT16])
def test_dtype_policy_is_respected(case, precision):
    make, inputs, _, _ = case
    layer = make(dtype=precision)
    layer(inputs)
    fill_zeros(layer)
    output = layer(inputs)
    assert output.dtype == precision.removeprefix("mixed_")
    assert np.isfinite(np.asarray(output, np.float32)).all()
    assert all(w.dtype == "float32" for w in layer.trainable_variables)
    whole = make()
    whole(inputs)
    whole.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        np.asarray(layer(inputs), np.float32), whole(inputs), atol=0.1, rtol=0.05
    )


def test_every_trainable_weight_gets_a_gradient(case):
    make, inputs, _, _ = case
    layer = make()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(inputs)))
    for variable, gradient in zip(
        layer.trainable_variables,
        tape.gradient(loss, layer.trainable_variables),
        strict=True,
    ):
        assert gradient is not None, variable.path


def test_regions_may_be_permuted_through_the_region_context_block(rng):
    block = RegionContextBlock(num_heads=2)
    x = arrays((2, 4, 3, 8), rng)
    order = rng.permutation(12)
    permuted = x.reshape(2, 12, 8)[:, order].reshape(x.shape)
    expected = np.asarray(block(x)).reshape(2, 12, 8)[:, order].reshape(x.shape)
    np.testing.assert_allclose(block(permuted), expected, atol=1e-5)


def test_masking_zero_scores_takes_those_pairs_out_of_the_softmax(rng):
    block = RegionContextBlock(num_heads=1, mask_zero_scores=True)
    x = arrays((1, 1, 3, 4), rng)
    x[0, 0, 1] = 0.0  # with biases of 0 its key is 0, and so is every score with it
    masked = np.asarray(block(x))
    alone = np.asarray(block(x[:, :, [0, 2]]))
    np.testing.assert_allclose(masked[0, 0, [0, 2]], alone[0, 0], atol=1e-6)


def test_heads_that_do_not_divide_the_channels_are_an_error():
    with pytest.raises(ValueError, match=r"num_heads=3 does not divide the 8 channels"):
        RegionContextBlock(num_heads=3)(np.zeros(REGIONS))


def test_more_regions_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"k=21 is larger than the 20 regions"):
        TopKSpatialPooling(21)(np.zeros(REGIONS))
    with pytest.raises(ValueError, match="k must be at least 1"):
        TopKSpatialPooling(0)


def test_top_k_pooling_is_max_at_one_and_mean_at_all(rng):
    x = arrays(REGIONS, rng)
    np.testing.assert_allclose(TopKSpatialPooling(1)(x), x.max(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(TopKSpatialPooling(20)(x), x.mean(axis=(1, 2)), atol=1e-6)


def test_class_embeddings_of_another_length_are_an_error(rng):
    classifier = RegionClassifier()
    classifier(arrays([REGIONS, CLASSES], rng))
    with pytest.raises(ValueError, match=r"length 7; got class_embeddings of shape \(3, 6\)"):
        classifier(arrays([REGIONS, (3, 6)], rng))


def test_one_classifier_answers_for_any_number_of_classes(rng):
    classifier = RegionClassifier()
    regions = arrays(REGIONS, rng)
    assert classifier([regions, arrays((3, 7), rng)]).shape == (2, 5, 4, 3)
    assert classifier([regions, arrays((50, 7), rng)]).shape == (2, 5, 4, 50)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RegionContextBlock(attention="softmin"), "attention must be one of"),
        (lambda: SceneContextBlock(attention="tanh"), "attention must be one of"),
        (lambda: NonLocalBlock()(np.zeros((1, 2, 2, 1))), "at least 2; got shape"),
        (lambda: CrissCrossAttention()(np.zeros((1, 2, 2, 7))), "at least 8; got shape"),
        (lambda: CrissCrossAttention(0), "recurrence must be at least 1; got 0"),
        (lambda: SceneContextBlock(residual="none"), "residual must be one of"),
        (lambda: SceneContextBlock()(np.zeros(REGIONS)), "must be"),
        (lambda: RegionClassifier()(np.zeros(REGIONS)), "must be"),
        (lambda: TopKSpatialPooling(1)(np.zeros((2, 3))), "must be response maps"),
        (lambda: BoundClassEmbeddings(np.zeros(3)), "must be a matrix"),
        (lambda: PointwiseConv2D(3, strides=2), r"got strides=\(2, 2\)"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
