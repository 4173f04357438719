"""Classifiers of KerasHub's presets: the head gives the logits of KerasHub's own model."""

import keras
import numpy as np
import pytest

from biam_tf.backbones import BackboneClasses, build_backbone, load_classifier
from biam_tf.backbones.classifier import imagenet_class_names
from biam_tf.errors import UserError
from biam_tf.models.systems import build_system_head

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

SIZE, DIM = 32, 8
SCALE, OFFSET = [0.01, 0.02, 0.03], [-1.0, 0.0, 0.5]


def resnet():
    return keras_hub.models.ResNetBackbone([64], [7], [64, DIM], [1, 1], [1, 2], "basic_block")


def vit():
    shape = {"image_shape": (SIZE, SIZE, 3), "patch_size": 8}
    return keras_hub.models.ViTBackbone(
        **shape, num_layers=1, num_heads=2, hidden_dim=DIM, mlp_dim=16
    )


def save(folder, network, kind, classes=1000, **settings):
    """Saves a classifier with random weights as KerasHub does; returns it and its name here."""
    classifier = kind(backbone=network, num_classes=classes, **settings)
    rng = np.random.default_rng(0)
    for weight in classifier.weights:
        value = rng.normal(scale=0.2, size=weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)
    classifier.save_to_preset(str(folder))
    converter = {"image_size": (SIZE, SIZE), "scale": SCALE, "offset": OFFSET}
    keras_hub.layers.ImageConverter(**converter).save_to_preset(str(folder))
    return classifier, f"keras_hub:{folder}"


@pytest.fixture
def photos():
    return np.random.default_rng(1).uniform(0, 255, (3, SIZE, SIZE, 3)).astype("float32")


def logits(layers, features):
    for layer in layers:
        features = features @ layer.kernel + layer.bias
        features = np.tanh(features) if layer.activation == "tanh" else features
    return features


def test_a_network_with_mean_pooling_gives_every_region_its_logits(tmp_path, photos):
    task, name = save(tmp_path, resnet(), keras_hub.models.ResNetImageClassifier)
    classifier = load_classifier(name)
    expected = np.asarray(task(photos * np.float32(SCALE) + np.float32(OFFSET)))
    features = build_backbone(name)(photos)
    scene = np.asarray(features["scene_feature"])
    np.testing.assert_allclose(logits(classifier.scene_layers, scene), expected, atol=1e-4)
    regions = logits(classifier.region_layers, np.asarray(features["region_features"]))
    np.testing.assert_allclose(regions.mean(axis=(1, 2)), expected, atol=1e-4)

    # The weights of the head are those of the classifier, for ImageNet's names in their order.
    np.testing.assert_array_equal(
        classifier.scene_layers[0].kernel, np.asarray(task.get_layer("predictions").kernel)
    )
    assert classifier.names == imagenet_class_names()
    known = BackboneClasses(classifier, np.random.default_rng(2).normal(size=(1000, 6)))
    head = build_system_head(
        "backbone_classes", (*regions.shape[1:3], DIM), DIM, 6, backbone_classes=known, top_k=2
    )
    kernel = head.get_layer("backbone_classifier_0").kernel
    np.testing.assert_array_equal(kernel, classifier.region_layers[0].kernel)


def test_a_class_token_gives_the_picture_its_logits(tmp_path, photos):
    task, name = save(tmp_path, vit(), keras_hub.models.ViTImageClassifier, intermediate_dim=5)
    classifier = load_classifier(name)
    assert classifier.region_layers is None
    assert [layer.activation for layer in classifier.scene_layers] == ["tanh", None]
    scene = np.asarray(build_backbone(name)(photos)["scene_feature"])
    expected = np.asarray(task(photos * np.float32(SCALE) + np.float32(OFFSET)))
    np.testing.assert_allclose(logits(classifier.scene_layers, scene), expected, atol=1e-4)
    known = BackboneClasses(classifier, np.random.default_rng(2).normal(size=(1000, 6)))
    head = build_system_head(
        "backbone_classes", (4, 4, DIM), DIM, 6, preset="conse", backbone_classes=known
    )
    found = keras.Model(head.inputs, head.get_layer("backbone_classifier_1").output)
    regions, classes = np.zeros((3, 4, 4, DIM), "float32"), np.ones((2, 6), "float32")
    np.testing.assert_allclose(found([regions, scene, classes]), expected, atol=1e-4)


def test_what_cannot_be_taken_is_refused(tmp_path, monkeypatch):
    _, name = save(tmp_path / "few", resnet(), keras_hub.models.ResNetImageClassifier, 10)
    with pytest.raises(UserError, match=r"its classifier has 10 classes; only those of ImageNet"):
        load_classifier(name)
    _, name = save(
        tmp_path / "max", resnet(), keras_hub.models.ResNetImageClassifier, pooling="max"
    )
    with pytest.raises(UserError, match="has a layer GlobalMaxPooling2D, which cannot be taken"):
        load_classifier(name)
    _, name = save(tmp_path / "gap", vit(), keras_hub.models.ViTImageClassifier, pooling="gap")
    with pytest.raises(UserError, match="does not take the scene feature"):
        load_classifier(name)
    (tmp_path / "gap" / "task.json").unlink()
    with pytest.raises(UserError, match=r"has no task\.json, so it comes without a classifier"):
        load_classifier(name)


def test_kerashubs_order_of_classes_is_that_of_the_names():
    ours = [name.lower().replace("-", " ") for name in imagenet_class_names()]
    names = [keras_hub.utils.imagenet_id_to_name(number) for number in range(1000)]
    theirs = [name.lower().replace("_", " ").replace("-", " ") for name in names]
    # Many names are other synonyms; a list in another order would share few.
    assert sum(map(str.__eq__, ours, theirs)) > 500
    assert sum(map(str.__eq__, ours, theirs[1:])) < 5
