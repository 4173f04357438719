"""What a backbone's own classes add to the scores of a cosine head, against NumPy."""

import keras
import numpy as np
import pytest
from small_systems import small_backbone_classes

from biam_tf.backbones import BackboneClasses
from biam_tf.backbones.classifier import BackboneClassifier
from biam_tf.errors import UserError
from biam_tf.models import BIAM, build_head
from biam_tf.models.factors import factors_of
from biam_tf.models.head import response_map_layer, with_response_maps

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

SHAPE, SCENE, EMBEDDING, REGIONS = (3, 2, 16), 10, 6, 6
KNOWN = small_backbone_classes(SHAPE[-1], SCENE, EMBEDDING)
BY_SCENE = BackboneClasses(
    BackboneClassifier(KNOWN.classifier.names, KNOWN.classifier.scene_layers), KNOWN.embeddings
)
COSINE = {"channels": 8, "num_heads": 2, "top_k": REGIONS, "kept_classes": 4}


@pytest.fixture
def inputs(rng):
    regions, scene = rng.normal(size=(2, *SHAPE)), rng.normal(size=(2, SCENE))
    classes = rng.normal(size=(5, EMBEDDING))
    return [array.astype("float32") for array in (regions, scene, classes)]


def head_of(classes, known=KNOWN, preset="recommended", **settings):
    keras.utils.set_random_seed(3)
    settings = {**COSINE, "backbone_input": 0.0, "region_source": "regions", **settings}
    given = {"seen_embeddings": classes[:3], "backbone_classes": known}
    return build_head(SHAPE, SCENE, EMBEDDING, preset, **given, **settings)


def direction(vector, dense) -> np.ndarray:
    """The mixture of the four most probable names of one feature, step by step in float64."""
    z = vector.astype(np.float64)
    for layer in dense:
        z = z @ layer.kernel + layer.bias
        if layer.relu6:
            z = np.clip(z, 0, 6)
    best = np.argsort(-z)[:4]
    names = KNOWN.embeddings - KNOWN.embeddings.mean(axis=0, dtype=np.float64)
    mixed = (np.exp(z[best] / 3.0)[:, None] * names[best]).sum(axis=0)
    return mixed / np.linalg.norm(mixed)


@pytest.mark.parametrize("known", [KNOWN, BY_SCENE], ids=["by region", "by scene"])
def test_scores_gain_the_weighted_cosine_with_what_the_backbone_saw(inputs, known):
    regions, scene, classes = inputs
    head = head_of(classes, known, anchor_weight=0.0)
    plain = head_of(classes, None, anchor_weight=0.0)
    names = {layer.name for layer in plain.layers}
    for layer in head.layers:
        if layer.name in names:
            plain.get_layer(layer.name).set_weights(layer.get_weights())
    weight = head.get_layer("and_backbone_direction").weight
    assert weight.trainable and float(weight) == pytest.approx(1.0)
    weight.assign(0.7)
    if known is KNOWN:
        dense, vectors = known.classifier.region_layers, regions.reshape(2, REGIONS, -1)
    else:
        dense, vectors = known.classifier.scene_layers, np.repeat(scene[:, None], REGIONS, axis=1)
    seen = np.array([[direction(vector, dense) for vector in photo] for photo in vectors])
    unit = classes - classes[:3].mean(axis=0)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    gained = 0.7 * 10.0 * seen.mean(axis=1) @ unit.T  # all regions count
    np.testing.assert_allclose(head(inputs), plain(inputs) + gained, atol=2e-5)


def test_the_direction_is_an_input_of_the_projection_by_its_factor(inputs):
    head = head_of(inputs[2], backbone_input=4.0, anchor_weight=0.0)
    outputs = [head.get_layer(name).output for name in ("region_projection", "region_direction")]
    features, directions = keras.Model(head.inputs, outputs)(inputs)
    dense = KNOWN.classifier.region_layers
    seen = np.array([direction(v, dense) for v in inputs[0].reshape(-1, SHAPE[-1])])
    kernel = np.asarray(head.get_layer("direction_projection").kernel)
    expected = np.asarray(features).reshape(-1, EMBEDDING) + 4.0 * seen @ kernel
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(directions).reshape(-1, EMBEDDING), expected, atol=1e-5)


def test_regions_may_be_what_the_classifier_computes_of_them_before_its_last_layer(inputs):
    head = head_of(inputs[2], region_source="backbone_classifier", region_context="none")
    embedding = head.get_layer("region_embedding")
    found = keras.Model(head.inputs, embedding.output)(inputs)
    first = KNOWN.classifier.region_layers[0]
    hidden = np.clip(inputs[0].astype(np.float64) @ first.kernel + first.bias, 0, 6)
    kernel, bias = (np.asarray(weight) for weight in embedding.weights)
    expected = np.maximum(hidden @ kernel.reshape(hidden.shape[-1], -1) + bias, 0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    by_scene = head_of(inputs[2], BY_SCENE, region_source="backbone_classifier")
    assert by_scene.get_layer("region_embedding").input.shape[-1] == SHAPE[-1]


def test_what_the_backbone_knows_is_saved_and_never_trained(inputs, tmp_path):
    head = head_of(inputs[2], backbone_input=2.0)
    frozen = {weight.path for weight in head.non_trainable_weights}
    for part in ("backbone_classifier_0/kernel", "backbone_classifier_1/bias", "mixture/matrix"):
        assert any(path.endswith(part) for path in frozen), part
    head.save(tmp_path / "head.keras")
    again = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(again(inputs), head(inputs))


def test_stored_vectors_hold_the_direction(inputs):
    regions, scene, classes = inputs
    head = head_of(classes, backbone_input=2.0)
    factors = factors_of(head, BIAM)
    products = (
        np.asarray(factors.region_vectors(regions, scene)) @ factors.class_side.vectors(classes).T
    )
    maps = with_response_maps(head)(inputs)["response_maps"]
    np.testing.assert_allclose(products, maps, atol=2e-5)


def test_pooled_features_get_the_mean_of_the_directions(inputs):
    head = head_of(inputs[2], classify="pooled_features", backbone_input=2.0)
    assert response_map_layer(head) is None and head(inputs).shape == (2, 5)


def test_a_head_without_a_classifier_is_refused_only_where_it_is_required(inputs):
    names = [layer.name for layer in head_of(inputs[2], None).layers]
    assert "and_backbone_direction" not in names
    with pytest.raises(ValueError, match="required needs backbone_classes"):
        head_of(inputs[2], None, use_backbone_classes="required")
    with pytest.raises(
        UserError, match=r"^use_backbone_classes: 'required' is not valid; it must be no"
    ):
        BIAM.settings("paper", use_backbone_classes="required")
    with pytest.raises(UserError, match=r"^template: 'photo' is not valid"):
        BIAM.settings("recommended", template="photo")
