"""One conformance test for every layer: the checks below, for each entry of the table.

`tests/biam_tf/layers/test_backends.py` runs this file with other backends of Keras, too.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from gradients import compiled, gradients_of
from keras import ops
from processor import MIXED_BFLOAT16

from biam_tf import layers as biam_layers
from biam_tf.baselines.attention_per_cluster import NearestCluster
from biam_tf.baselines.attention_per_label import LowRankBilinearAttention
from biam_tf.baselines.cnn_rnn import LabelSequenceDecoder
from biam_tf.baselines.conse import ConvexCombination
from biam_tf.baselines.fast0tag import AlongDirection
from biam_tf.baselines.known_classes import KnownClasses
from biam_tf.baselines.lesa import (
    AttendedFeatures,
    ChosenResponses,
    ClassProducts,
    HighestScores,
)
from biam_tf.baselines.region_attention import SumOverRegions
from biam_tf.layers import (
    AddDirection,
    BoundClassEmbeddings,
    ConvReluBatchNorm,
    CosineRegionClassifier,
    CrissCrossAttention,
    EmbeddingMixture,
    NonLocalBlock,
    PointwiseConv2D,
    RegionClassifier,
    RegionContextBlock,
    SceneContextBlock,
    TopKRegionScores,
    TopKSpatialPooling,
)
from biam_tf.layers.image_text import ImageTextClassifier, RegionAndScene

array = ops.convert_to_numpy
REGIONS, SCENE, CLASSES, MAPS = (2, 5, 4, 8), (2, 6), (3, 7), (2, 5, 4, 3)
ANCHORS = np.random.default_rng(7).normal(size=(2, 6)).astype("float32")
LEARNED = np.random.default_rng(8).normal(size=(5, 7)).astype("float32")
CENTROIDS = np.random.default_rng(9).normal(size=(3, 7)).astype("float32")


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, what it takes and what it gives.

    Attributes:
        make: the layer with small arguments; takes `dtype`.
        inputs: shapes of its inputs, one tuple or a list; an array where values matter.
        output_shape: of its output.
        output_dtype: of its output under any dtype policy; `None`: the policy's compute dtype.
        unmoved: ends of the paths of trainable weights whose gradient is zero but for rounding.
        known: numbers of the inputs whose sizes must all be known; of the others, only the last.
        jit: whether `supports_jit` is true for known sizes, and XLA compiles it.
        tensorflow: whether it is a layer for TensorFlow alone.
    """

    make: Callable[..., keras.Layer]
    inputs: Any
    output_shape: tuple[int, ...]
    output_dtype: str | None = None
    unmoved: tuple[str, ...] = ()
    known: tuple[int, ...] = ()
    jit: bool = True
    tensorflow: bool = False


def with_classifier(classifier: type[keras.Layer], k: int, **arguments) -> Callable[..., Any]:
    arguments["name"] = "classifier"
    return lambda name=None, **policy: TopKRegionScores(
        classifier(**arguments, **policy), k, name=name
    )


# A bias of keys adds the same number to all scores of a query: no softmax over keys changes.
KEY_BIAS = ("/key/bias",)
CASES = {
    "AddDirection": Case(lambda **k: AddDirection(0.5, **k), [REGIONS, (2, 5, 4, 6)], REGIONS),
    "AddDirection, one for all regions": Case(
        lambda **k: AddDirection(**k), [REGIONS, (2, 1, 1, 8)], REGIONS
    ),
    "BoundClassEmbeddings": Case(
        lambda **k: BoundClassEmbeddings(np.eye(3, 7), **k), REGIONS, (3, 7)
    ),
    "ConvReluBatchNorm": Case(lambda **k: ConvReluBatchNorm(12, **k), REGIONS, (2, 5, 4, 12)),
    "CosineRegionClassifier": Case(
        lambda **k: CosineRegionClassifier(7.0, np.linspace(-1, 1, 7).tolist(), **k),
        [(2, 5, 4, 7), CLASSES],
        MAPS,
    ),
    "CosineRegionClassifier, anchors": Case(
        lambda **k: CosineRegionClassifier(anchors=ANCHORS, anchor_dropout=0.2, **k),
        [REGIONS, (3, 6)],
        MAPS,
    ),
    "CosineRegionClassifier, pooled features": Case(
        lambda **k: CosineRegionClassifier(**k), [(2, 7), CLASSES], (2, 3)
    ),
    "ImageTextClassifier": Case(
        lambda **k: ImageTextClassifier(**k), [(2, 5, 4, 8), CLASSES], MAPS
    ),
    "RegionAndScene": Case(
        lambda **k: RegionAndScene(3.0, -1.0, 0.25, **k), [(2, 5, 4, 7), (2, 7)], (2, 5, 4, 8)
    ),
    "CrissCrossAttention": Case(
        lambda **k: CrissCrossAttention(3, **k), REGIONS, REGIONS, unmoved=KEY_BIAS
    ),
    "EmbeddingMixture": Case(
        lambda **k: EmbeddingMixture(np.eye(8, 6) - 0.5, 3, 2.0, **k), REGIONS, (2, 5, 4, 6)
    ),
    "NonLocalBlock": Case(
        lambda **k: NonLocalBlock(batch_norm_momentum=0.5, batch_norm_epsilon=1e-2, **k),
        REGIONS,
        REGIONS,
        # phi computes the keys; the normalization removes a bias of values and of the projection.
        unmoved=("/phi/bias", "/g/bias", "/projection/bias"),
    ),
    "PointwiseConv2D": Case(lambda **k: PointwiseConv2D(5, **k), REGIONS, (2, 5, 4, 5)),
    "RegionClassifier": Case(
        lambda **k: RegionClassifier(use_bias=True, **k), [REGIONS, CLASSES], MAPS
    ),
    "RegionClassifier, pooled features": Case(
        lambda **k: RegionClassifier(**k), [(2, 8), CLASSES], (2, 3)
    ),
    "RegionContextBlock": Case(
        lambda **k: RegionContextBlock(num_heads=4, attention_dropout=0.1, output_dropout=0.1, **k),
        REGIONS,
        REGIONS,
        unmoved=KEY_BIAS,
    ),
    "RegionContextBlock, sigmoid": Case(
        lambda **k: RegionContextBlock(
            2, feed_forward_units=5, attention="sigmoid", mask_zero_scores=True, **k
        ),
        REGIONS,
        REGIONS,
    ),
    "RegionContextBlock, layer norm": Case(
        lambda **k: RegionContextBlock(2, layer_norm=True, **k), REGIONS, REGIONS, unmoved=KEY_BIAS
    ),
    "SceneContextBlock": Case(lambda **k: SceneContextBlock(**k), [REGIONS, SCENE], REGIONS),
    "SceneContextBlock, released": Case(
        lambda **k: SceneContextBlock(
            value_projection=True, residual="attended", scene_dropout=0.2, **k
        ),
        [REGIONS, SCENE],
        REGIONS,
    ),
    "SceneContextBlock, softmax": Case(
        lambda **k: SceneContextBlock(attention="softmax", **k), [REGIONS, SCENE], REGIONS
    ),
    "TopKRegionScores": Case(
        with_classifier(RegionClassifier, 3, use_bias=True),
        [REGIONS, CLASSES],
        (2, 3),
        "float32",
    ),
    "TopKRegionScores, cosine": Case(
        with_classifier(CosineRegionClassifier, 3, anchors=ANCHORS),
        [REGIONS, (3, 6)],
        (2, 3),
        "float32",
    ),
    "TopKSpatialPooling": Case(lambda **k: TopKSpatialPooling(3, **k), REGIONS, (2, 8)),
    # Of the baselines
    "AlongDirection": Case(lambda **k: AlongDirection(**k), [(2, 7), CLASSES], (2, 3)),
    "AttendedFeatures": Case(lambda **k: AttendedFeatures(**k), [MAPS, REGIONS], (2, 3, 8)),
    "ChosenResponses": Case(
        lambda **k: ChosenResponses(**k), [(2, 6, 3), (2, 5, 4, 6), MAPS], MAPS
    ),
    "ClassProducts": Case(lambda **k: ClassProducts(**k), [REGIONS, (3, 8)], MAPS),
    "ConvexCombination": Case(
        lambda **k: ConvexCombination(2, **k), [(2, 5), (5, 7), CLASSES], (2, 3), known=(1,)
    ),
    "HighestScores": Case(lambda **k: HighestScores(**k), [(2, 6, 3), MAPS], (2, 3)),
    "KnownClasses": Case(
        lambda **k: KnownClasses(LEARNED, **k),
        [(2, 5), LEARNED[[3, 1, 4]]],
        (2, 3),
        jit=False,
        tensorflow=True,
    ),
    "LabelSequenceDecoder": Case(
        lambda **k: LabelSequenceDecoder(4, units=5, max_labels=2, beams=2, **k),
        (2, 6),
        (2, 4),
        "float32",
        tensorflow=True,
    ),
    "LowRankBilinearAttention": Case(
        lambda **k: LowRankBilinearAttention(5, 0.1, **k), [REGIONS, CLASSES], MAPS
    ),
    "NearestCluster": Case(lambda **k: NearestCluster(CENTROIDS, **k), [MAPS, CLASSES], MAPS),
    "SumOverRegions": Case(lambda **k: SumOverRegions(**k), MAPS, (2, 3)),
}


@pytest.fixture(params=CASES)
def case(request) -> Case:
    chosen = CASES[request.param]
    if chosen.tensorflow:
        only_tensorflow()
    return chosen


@pytest.fixture
def inputs(case, rng):
    return map_inputs(
        lambda x: x if isinstance(x, np.ndarray) else rng.normal(size=x).astype("float32"),
        case.inputs,
    )


def only_tensorflow() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("for TensorFlow alone")


def dtype_of(tensor) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


def map_inputs(function, inputs):
    return [function(x) for x in inputs] if isinstance(inputs, list) else function(inputs)


def listed(inputs) -> list:
    return inputs if isinstance(inputs, list) else [inputs]


def trained(layer: keras.Layer, inputs) -> keras.Layer:
    """The layer, built, with other values for weights that start at zero."""
    layer(inputs)
    for weight in layer.trainable_variables:
        if not np.any(array(weight)):
            weight.assign(np.random.default_rng(1).normal(0, 0.1, weight.shape))
    return layer


def unknown_sizes(case: Case, inputs) -> list[tuple[int | None, ...]]:
    return [
        x.shape if number in case.known else (*[None] * (x.ndim - 1), x.shape[-1])
        for number, x in enumerate(listed(inputs))
    ]


def test_every_layer_has_a_case():
    assert set(biam_layers.__all__) <= {name.partition(",")[0] for name in CASES}


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", MIXED_BFLOAT16])
def test_symbolic_shapes_and_dtypes_are_those_of_a_call(case, inputs, precision):
    layer = case.make(dtype=precision)
    dtype = case.output_dtype or layer.compute_dtype
    output = layer(inputs)
    assert (tuple(output.shape), dtype_of(output)) == (case.output_shape, dtype)
    symbolic = map_inputs(lambda x: keras.KerasTensor(x.shape, "float32"), inputs)
    spec = case.make(dtype=precision)(symbolic)
    assert (spec.shape, spec.dtype) == (case.output_shape, dtype)
    shapes = map_inputs(lambda x: x.shape, inputs)
    assert tuple(layer.compute_output_shape(shapes)) == case.output_shape
    # What NumPy makes of numbers by itself.
    assert dtype_of(layer(map_inputs(lambda x: x.astype("float64"), inputs))) == dtype


def test_config_makes_the_layer_again(case, inputs):
    layer = case.make()
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config == case.make(name=layer.name).get_config()
    json.dumps(config)
    shapes = map_inputs(lambda x: x.shape, inputs)
    again.build(shapes)
    layer.build(shapes)
    assert [w.shape for w in again.weights] == [w.shape for w in layer.weights]


def test_a_saved_model_gives_the_same_outputs(case, inputs, tmp_path):
    tensors = [keras.Input(batch_shape=shape) for shape in unknown_sizes(case, inputs)]
    layer = case.make()
    model = keras.Model(tensors, layer(tensors if isinstance(inputs, list) else tensors[0]))
    assert len(model.output.shape) == len(case.output_shape)
    trained(layer, inputs)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(again(listed(inputs))), array(model(listed(inputs))))
    assert settings(again.layers[-1].get_config()) == settings(layer.get_config())


def settings(config):
    """A layer's configuration without the shapes that layers inside it were built with."""
    if isinstance(config, dict):
        return {key: settings(value) for key, value in config.items() if key != "build_config"}
    return config


@pytest.mark.rounding
def test_a_graph_may_leave_sizes_unknown(case, inputs):
    only_tensorflow()
    import tensorflow as tf

    layer = trained(case.make(), inputs)
    specs = [tf.TensorSpec(shape) for shape in unknown_sizes(case, inputs)]
    graph = tf.function(layer, input_signature=[specs if isinstance(inputs, list) else specs[0]])
    np.testing.assert_allclose(graph(inputs), layer(inputs), atol=1e-6, rtol=1e-5)


@pytest.mark.rounding
@pytest.mark.parametrize("precision", ["mixed_float16", MIXED_BFLOAT16])
def test_mixed_precision_equals_float32_to_its_digits(case, inputs, precision):
    half = trained(case.make(dtype=precision), inputs)
    assert all(weight.dtype == "float32" for weight in half.trainable_variables)
    whole = case.make()
    whole(inputs)
    whole.set_weights(half.get_weights())
    output = array(half(inputs)).astype("float32")
    assert np.isfinite(output).all()
    np.testing.assert_allclose(output, array(whole(inputs)), atol=0.1, rtol=0.05)


def test_a_training_step_changes_every_trainable_weight(case, inputs, rng):
    layer = case.make()
    layer(inputs)
    weights = layer.trainable_variables
    for weight in weights:
        weight.assign(rng.normal(size=weight.shape))
    before = [array(weight) for weight in weights]
    takes_training = "training" in inspect.signature(layer.call).parameters
    target = rng.normal(size=case.output_shape)
    gradients = gradients_of(
        layer,
        inputs,
        lambda output: ops.mean(ops.square(output - ops.cast(target, output.dtype))),
        **({"training": True} if takes_training else {}),
    )
    keras.optimizers.SGD(0.1).apply([ops.convert_to_tensor(g) for g in gradients], weights)
    for weight, old, gradient in zip(weights, before, gradients, strict=True):
        assert np.isfinite(gradient).all(), weight.path
        if not weight.path.endswith(case.unmoved):
            assert np.abs(array(weight) - old).max() > 1e-5, weight.path


@pytest.mark.parametrize("precision", ["mixed_float16", MIXED_BFLOAT16])
def test_mixed_precision_has_finite_gradients_in_float32(case, inputs, precision):
    layer = trained(case.make(dtype=precision), inputs)
    for gradient in gradients_of(layer, inputs, lambda out: ops.sum(ops.cast(out, "float32"))):
        assert gradient.dtype == np.float32 and np.isfinite(gradient).all()


@pytest.mark.rounding
def test_xla_compiles_it_where_it_says_so(case, inputs):
    layer = trained(case.make(), inputs)
    assert layer.supports_jit == case.jit
    call = compiled(layer) if case.jit else None
    if call is not None:
        np.testing.assert_allclose(array(call(inputs)), array(layer(inputs)), atol=1e-5, rtol=1e-5)
