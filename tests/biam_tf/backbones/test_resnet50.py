"""ResNet-50 against the same network in NumPy and, where it is installed, torchvision's."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from torch_files import tensor, write_zip

from biam_tf.backbones import build_backbone, resnet50, weights_fingerprint
from biam_tf.errors import UserError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}


def torch_shapes():
    """The names and shapes of the published state, without the classification layer."""
    convolutions, normalizations = {"conv1": (64, 3, 7, 7)}, {"bn1": 64}
    channels, width = 64, 64
    for stage, blocks in BLOCKS.items():
        for number in range(blocks):
            block = f"{stage}.{number}"
            convolutions[f"{block}.conv1"] = (width, channels, 1, 1)
            convolutions[f"{block}.conv2"] = (width, width, 3, 3)
            convolutions[f"{block}.conv3"] = (4 * width, width, 1, 1)
            normalizations |= {f"{block}.bn1": width, f"{block}.bn2": width}
            normalizations[f"{block}.bn3"] = 4 * width
            if number == 0:
                convolutions[f"{block}.downsample.0"] = (4 * width, channels, 1, 1)
                normalizations[f"{block}.downsample.1"] = 4 * width
            channels = 4 * width
        width *= 2
    shapes = {f"{name}.weight": shape for name, shape in convolutions.items()}
    for name, size in normalizations.items():
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{name}.{part}": (size,) for part in parts}
    return shapes


@pytest.fixture(scope="module")
def state():
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in torch_shapes().items():
        values = rng.standard_normal(shape, np.float32)
        if len(shape) == 4:
            values *= np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith((".weight", ".running_var")):
            values = 0.5 + np.abs(values) / 2
        else:
            values *= 0.1
        arrays[name] = np.asarray(values, np.float32)
    return arrays


def write(path, state):
    return write_zip(path, {name: tensor(array, name) for name, array in state.items()})


@pytest.fixture(scope="module")
def published(state, tmp_path_factory):
    return write(tmp_path_factory.mktemp("resnet50") / "dino.pth", state)


@pytest.fixture(scope="module")
def backbone(published):
    return build_backbone("resnet50", 64, published)


def windows(x, size, strides, padding, value=0.0):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)), constant_values=value)
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return view[:, ::strides, ::strides]  # (channels, height, width, size, size)


def conv_and_norm(x, state, conv, norm, strides=1):
    kernel = state[f"{conv}.weight"].astype(np.float64)
    size = kernel.shape[-1]
    x = np.tensordot(kernel, windows(x, size, strides, size // 2), ([1, 2, 3], [0, 3, 4]))
    scale, offset, mean, variance = (
        state[f"{norm}.{part}"][:, None, None].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + offset


def numpy_resnet50(photo, state):
    """Returns what layer3 (h, w, 1024) and the pooled layer4 (2048) give for a photo (S, S, 3)."""
    x = (photo / 255 - MEAN) / DEVIATION
    x = np.maximum(conv_and_norm(x.transpose(2, 0, 1), state, "conv1", "bn1", 2), 0)
    x = windows(x, 3, 2, 1, -np.inf).max((3, 4))
    outputs = {}
    for stage, blocks in BLOCKS.items():
        for number in range(blocks):
            block, strides = f"{stage}.{number}", 2 if number == 0 and stage != "layer1" else 1
            y = np.maximum(conv_and_norm(x, state, f"{block}.conv1", f"{block}.bn1"), 0)
            y = np.maximum(conv_and_norm(y, state, f"{block}.conv2", f"{block}.bn2", strides), 0)
            y = conv_and_norm(y, state, f"{block}.conv3", f"{block}.bn3")
            if number == 0:
                names = f"{block}.downsample.0", f"{block}.downsample.1"
                x = conv_and_norm(x, state, *names, strides)
            x = np.maximum(x + y, 0)
        outputs[stage] = x
    return outputs["layer3"].transpose(1, 2, 0), outputs["layer4"].mean((1, 2))


def largest_difference(found, expected):
    """As a share of the largest number."""
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@pytest.mark.rounding
def test_it_equals_the_network_in_numpy(backbone, state, rng):
    photo = rng.integers(0, 256, (64, 64, 3)).astype("float32")
    outputs = backbone(photo[None])
    regions, scene = numpy_resnet50(photo, state)
    assert largest_difference(outputs["region_features"][0], regions) < 1e-5
    assert largest_difference(outputs["scene_feature"][0], scene) < 1e-5


# Apart from TensorFlow: in one process, the two bring libraries that crash each other.
TORCHVISION = """
import sys

import numpy as np
import torch
from torchvision.models import feature_extraction, resnet50

torch.manual_seed(0)
model = resnet50(weights=None).eval()
for name, value in model.state_dict().items():
    if value.dim() == 1:  # biases and statistics, which would all be 0 or 1
        value.uniform_(0.5, 1.5) if name.endswith(("weight", "var")) else value.normal_(0, 0.1)
torch.save(model.state_dict(), "resnet50.pth")
nodes = {"layer3": "region_features", "flatten": "scene_feature"}
features = feature_extraction.create_feature_extractor(model, nodes)
images = torch.from_numpy(np.load("images.npy")).permute(0, 3, 1, 2)
with torch.no_grad():
    outputs = features(images)
outputs["region_features"] = outputs["region_features"].permute(0, 2, 3, 1)
np.savez("outputs.npz", **{name: value.numpy() for name, value in outputs.items()})
"""


@pytest.mark.rounding
@pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="needs [torch-check]")
def test_it_equals_torchvision(tmp_path, rng):
    photos = rng.integers(0, 256, (2, 224, 224, 3)).astype("float32")
    np.save(tmp_path / "images.npy", ((photos / 255 - MEAN) / DEVIATION).astype("float32"))
    subprocess.run([sys.executable, "-c", TORCHVISION], cwd=tmp_path, check=True)
    outputs = build_backbone("resnet50", weights=tmp_path / "resnet50.pth")(photos)
    with np.load(tmp_path / "outputs.npz") as expected:
        assert expected["region_features"].shape == (2, 14, 14, 1024)
        for name in expected:
            assert largest_difference(outputs[name], expected[name]) < 1e-4


@pytest.mark.parametrize(
    ("prefix", "more"),
    [
        ("", {"fc.weight": (1000, 2048), "fc.bias": (1000,)}),
        ("backbone.", {"head.mlp.0.weight": (8, 2048)}),
    ],
    ids=["torchvision", "a larger model"],
)
def test_the_same_weights_are_read_from_other_files(prefix, more, backbone, state, tmp_path):
    changed = {f"{prefix}{name}": array for name, array in state.items()}
    changed |= {name: np.zeros(shape, np.float32) for name, shape in more.items()}
    changed[f"{prefix}bn1.num_batches_tracked"] = np.array(3)
    other = build_backbone("resnet50", 32, write(tmp_path / "other.pth", changed))
    assert weights_fingerprint(other) == weights_fingerprint(backbone)


def test_what_does_not_fit_is_named(tmp_path):
    wrong = {
        "conv1.weight": np.zeros((64, 3, 3, 3), np.float32),
        "layer5.0.conv1.weight": np.zeros((1, 1, 1, 1), np.float32),
    }
    with pytest.raises(UserError) as raised:
        build_backbone("resnet50", 32, write(tmp_path / "wrong.pth", wrong))
    for part in (
        "wrong.pth: these weights do not fit",
        "missing: bn1.weight",
        "layer1.0.downsample.0.weight",
        "unexpected: layer5.0.conv1.weight",
        "of another shape: conv1.weight (expected (64, 3, 7, 7), found (64, 3, 3, 3))",
    ):
        assert part in str(raised.value)


def test_the_regions_are_the_papers_14_by_14_at_224():
    outputs = resnet50.build(224).output
    assert outputs["region_features"].shape == (None, 14, 14, 1024)
    assert outputs["scene_feature"].shape == (None, 2048)
