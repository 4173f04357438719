"""The authors' checkpoints as Keras heads."""

import collections

import keras
import numpy as np
import pytest

from biam_tf import checkpoints
from biam_tf.checkpoints import load_released_checkpoint
from biam_tf.errors import UserError
from biam_tf.legacy_formats.torch_files import read_torch_state

pytestmark = [pytest.mark.unit, pytest.mark.rounding]


@pytest.fixture(scope="session")
def released_file(test_data):
    return test_data / "golden" / "biam_release_small.pth"


@pytest.fixture
def changed(released_file, monkeypatch):
    """Lets a checkpoint be read with some arrays changed; returns the dictionary to change."""
    state = read_torch_state(released_file)
    monkeypatch.setattr(checkpoints, "read_torch_state", lambda path: state)
    return state


@pytest.fixture
def inputs(golden):
    return [golden[name] for name in ("region_features", "scene_feature", "class_embeddings")]


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("h_r", "region_embedding"),
        ("e_r", "region_context"),
        ("e_g", "scene_context"),
        ("scores", "scores"),
    ],
)
def test_the_released_checkpoint_gives_the_released_numbers(
    released_file, golden, inputs, tensor, layer
):
    head = load_released_checkpoint(released_file, int(golden["heads"]), int(golden["top_k"]))
    found = keras.Model(head.inputs, head.get_layer(layer).output)(inputs)
    np.testing.assert_allclose(found, golden[tensor], rtol=0, atol=1e-5)


def test_the_sizes_come_from_the_file(released_file):
    head = load_released_checkpoint(released_file, num_heads=8)
    assert [tuple(tensor.shape) for tensor in head.inputs] == [
        (None, 14, 14, 512),
        (None, 4096),
        (None, 300),
    ]
    assert head.get_layer("region_embedding").output.shape[-1] == 64
    assert head.get_layer("fusion").output.shape[-1] == 512


def test_the_same_weights_fit_any_number_of_regions(released_file, golden, inputs):
    head = load_released_checkpoint(released_file, num_heads=8, region_size=(None, None))
    np.testing.assert_allclose(head(inputs), golden["scores"], rtol=0, atol=1e-5)
    region_features, scene_feature, class_embeddings = inputs
    assert head([region_features[:, :7, :9], scene_feature, class_embeddings]).shape == (3, 24)


def test_the_head_is_saved_and_loaded(released_file, inputs, tmp_path):
    head = load_released_checkpoint(released_file, num_heads=8)
    head.save(tmp_path / "head.keras")
    loaded = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(loaded(inputs), head(inputs))


@pytest.mark.parametrize("num_heads", [7, 0, -8])
def test_heads_that_do_not_divide_the_channels_are_refused(released_file, num_heads):
    with pytest.raises(UserError, match=f"num_heads={num_heads} does not divide the 64 channels"):
        load_released_checkpoint(released_file, num_heads)


def test_what_does_not_fit_is_listed_precisely(changed):
    del changed["W.bias"]
    del changed["conv_3X3.bn.running_var"]
    changed["classifier.weight"] = np.zeros((3, 3), np.float32)
    changed["conv_1X1.body.bias"] = np.zeros(7, np.float32)
    with pytest.raises(UserError) as raised:
        load_released_checkpoint("best.pth", num_heads=8)
    assert str(raised.value) == (
        "best.pth: these weights do not fit this model; "
        "missing: conv_3X3.bn.running_var, W.bias; "
        "unexpected: classifier.weight; "
        "of another shape: conv_1X1.body.bias (expected (512,), found (7,))"
    )


@pytest.mark.parametrize("missing", [name for name, _, _ in checkpoints.SIZES.values()])
def test_a_missing_array_that_tells_a_size_is_listed_like_any_other(changed, missing):
    del changed[missing]
    with pytest.raises(UserError, match=rf"best.pth: .* missing: {missing}"):
        load_released_checkpoint("best.pth", num_heads=8)


def test_another_model_is_refused(changed):
    weights = np.zeros((64, 3, 3, 3), np.float32)
    changed.clear()
    changed.update(collections.OrderedDict({"features.0.weight": weights}))
    with pytest.raises(UserError, match=r"missing: conv_3X3.*; unexpected: features.0.weight$"):
        load_released_checkpoint("vgg.pth", num_heads=8)
