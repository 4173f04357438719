"""Backbones from presets of KerasHub: small random networks, saved as its presets are."""

import functools
import json
import shutil

import keras
import numpy as np
import pytest
from processor import MIXED_BFLOAT16

from biam_tf.backbones import build_backbone, load_backbone, weights_fingerprint
from biam_tf.errors import UserError
from biam_tf.runs import load_run
from serving import export

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

SIZE, DIM = 32, 8
SCALE, OFFSET = [0.01, 0.02, 0.03], [-1.0, 0.0, 0.5]

QUICK = "training.epochs=1", "training.tensorboard=false"

TRANSFORMER = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": DIM}
PICTURES = {"image_shape": (SIZE, SIZE, 3)}
VISION = {**TRANSFORMER, **PICTURES, "intermediate_dim": 16}


def vit():
    return keras_hub.models.ViTBackbone(**TRANSFORMER, **PICTURES, mlp_dim=16)


def dinov2():
    trained_at = {"position_embedding_shape": (48, 48, 3)}
    return keras_hub.models.DINOV2Backbone(**VISION, **trained_at, num_register_tokens=3)


def siglip_vision():
    return keras_hub.models.SigLIPVisionEncoder(**VISION)


def siglip():
    text = keras_hub.models.SigLIPTextEncoder(
        vocabulary_size=9,
        embedding_dim=DIM,
        hidden_dim=DIM,
        num_layers=1,
        num_heads=2,
        intermediate_dim=16,
        max_sequence_length=4,
    )
    return keras_hub.models.SigLIPBackbone(siglip_vision(), text)


def swin():
    depths = {"embed_dim": DIM, "depths": [1, 1], "num_heads": [1, 1], "window_size": 4}
    return keras_hub.models.SwinTransformerBackbone(**PICTURES, patch_size=4, **depths)


def resnet():
    return keras_hub.models.ResNetBackbone([64], [7], [64, DIM], [1, 1], [1, 2], "basic_block")


def hgnet():
    stages = [[8, 8, 8, 1, 1, 3], [8, 8, DIM, 1, 1, 3]]
    return keras_hub.models.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[8, DIM],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        use_lightweight_conv_block=[False, False],
        stackwise_stage_filters=stages,
        apply_downsample=[False, True],
    )


def first_token(tokens):
    return tokens[:, 0]


# Network, its tokens that stand for no region, and what its scene feature is.
CASES = {
    "vit": (vit, 1, first_token),
    "dinov2": (dinov2, 4, first_token),
    "siglip_vision": (siglip_vision, 0, None),
    "siglip": (siglip, 0, None),
    "swin": (swin, 0, lambda tokens: tokens.mean(1)),
    "resnet": (resnet, 0, lambda regions: regions.mean((1, 2))),
    "hgnet": (hgnet, 0, lambda regions: regions.mean((1, 2))),
}


class Preset:
    """A preset on the disk, and the network that KerasHub reads from it."""

    def __init__(self, case, folder):
        make, self.others, self.scene = CASES[case]
        self.folder, self.name = folder / case, f"keras_hub:{folder / case}"
        network, rng = make(), np.random.default_rng(0)
        for weight in network.weights:
            value = rng.normal(scale=0.2, size=weight.shape)
            weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)
        network.save_to_preset(self.folder)
        size_and_scale = {"image_size": (SIZE, SIZE), "scale": SCALE, "offset": OFFSET}
        keras_hub.layers.ImageConverter(**size_and_scale).save_to_preset(self.folder)
        read = keras_hub.models.Backbone.from_preset(str(self.folder))
        self.network = getattr(read, "vision_encoder", read)

    def expected(self, photos):
        """Region features (B, h * w, d) and scene feature by KerasHub's own network."""
        pictures = photos * np.float32(SCALE) + np.float32(OFFSET)
        inputs, output = self.network.inputs[0], self.network.output
        if self.scene is None:  # pooled by a head
            tokens, scene = keras.Model(inputs, [self.network.head.input, output])(pictures)
        else:
            output = output["stage2"] if isinstance(output, dict) else output
            tokens = keras.Model(inputs, output)(pictures)
            scene = self.scene(np.asarray(tokens))
        return np.reshape(tokens, (len(photos), -1, tokens.shape[-1]))[:, self.others :], scene


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Returns the function that gives the preset of a case, saved once."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("presets")
    return functools.cache(lambda case: Preset(case, folder))


@pytest.fixture
def photos(rng):
    return rng.integers(0, 256, (2, SIZE, SIZE, 3)).astype("float32")


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_network(case, presets, photos, tmp_path):
    preset = presets(case)
    backbone = build_backbone(preset.name, regions="tokens")
    outputs = backbone(photos)
    regions, scene = preset.expected(photos)
    assert backbone.input_shape == (None, SIZE, SIZE, 3)
    assert outputs["region_features"].shape == (2, 4, 4, regions.shape[-1])
    found = np.reshape(outputs["region_features"], regions.shape)
    np.testing.assert_allclose(found, regions, atol=1e-5)
    np.testing.assert_allclose(outputs["scene_feature"], scene, atol=1e-5)

    # Built a second time in a process, and read back from the file of a trained one.
    again = build_backbone(preset.name, regions="tokens")
    assert weights_fingerprint(again) == weights_fingerprint(backbone)
    backbone.save(tmp_path / "backbone.keras")
    loaded = load_backbone(preset.name, tmp_path / "backbone.keras")
    assert weights_fingerprint(loaded) == weights_fingerprint(backbone)
    np.testing.assert_array_equal(loaded(photos)["region_features"], outputs["region_features"])


@pytest.mark.slow
def test_an_export_and_the_next_run_see_the_backbone_of_the_preset(
    presets, start, photos, tmp_path
):
    preset, runs = presets("vit"), tmp_path / "runs"
    settings = f"backbone={{name: '{preset.name}', trainable: false}}"
    assert start(runs / "frozen", settings, *QUICK) == 0
    (store,) = (runs / "features").iterdir()
    assert (store / "manifest.json").exists()

    run = load_run(runs / "frozen")
    np.testing.assert_allclose(
        run.backbone(photos)["scene_feature"], preset.expected(photos)[1], atol=1e-5
    )
    options = ["--formats", "jpeg,png"]
    assert export.main([str(runs / "frozen"), str(tmp_path / "exported"), *options]) == 0


@pytest.mark.slow
def test_a_trained_one_is_read_back_as_it_was(presets, start, photos, tmp_path):
    preset = presets("siglip_vision")
    settings = f"backbone={{name: '{preset.name}', trainable: true}}"
    assert start(tmp_path / "trained", settings, *QUICK) == 0
    shutil.move(preset.folder, tmp_path / "away")  # the run has all it needs
    try:
        trained = load_run(tmp_path / "trained").backbone
    finally:
        shutil.move(tmp_path / "away", preset.folder)
    difference = np.abs(trained(photos)["scene_feature"] - preset.expected(photos)[1])
    assert 1e-5 < difference.max() < 1


@pytest.mark.parametrize("mixed_precision", [MIXED_BFLOAT16])
def test_it_follows_the_policy(mixed_precision, presets, photos):
    preset = presets("vit")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(mixed_precision)
    try:
        outputs = build_backbone(preset.name)(photos)
    finally:
        keras.config.set_dtype_policy(before)
    assert {x.dtype.name for x in outputs.values()} == {"bfloat16"}
    scene = preset.expected(photos)[1]
    np.testing.assert_allclose(np.asarray(outputs["scene_feature"], "float32"), scene, atol=0.1)


@pytest.mark.parametrize(
    ("case", "size", "regions"), [("dinov2", 48, (6, 6, 8)), ("resnet", 64, (8, 8, 8))]
)
def test_networks_that_can_take_other_sizes(case, size, regions, presets):
    backbone = build_backbone(presets(case).name, size)
    assert backbone.output["region_features"].shape == (None, *regions)


@pytest.mark.parametrize(
    ("case", "arguments", "message"),
    [
        (
            "vit",
            {"image_size": 64},
            "does not fit ViTBackbone for 64x64 pictures; the weights may fit 32x32",
        ),
        ("vit", {"image_size": 36}, "image_size must be a multiple of 8; got 36"),
        (
            "siglip",
            {"image_size": 64},
            r"has inputs \(32, 32, 3\) instead of pictures \(64, 64",
        ),
        (
            "vit",
            {"weights": "imagenet"},
            r"no ImageNet weights; use weights 'default' \(the preset's\)",
        ),
        (
            "dinov2",
            {"trainable": True},
            "cannot be trained on 32x32 .* position embeddings for 48x48 only",
        ),
    ],
)
def test_what_a_preset_cannot_do_is_refused(case, arguments, message, presets):
    with pytest.raises(UserError, match=message):
        build_backbone(presets(case).name, **arguments)


# === Presets ===


def test_a_name_is_found_in_the_cache(presets, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    name = "vit_base_patch16_224_imagenet"
    handle = keras_hub.models.ViTBackbone.presets[name]["kaggle_handle"].removeprefix("kaggle://")
    with pytest.raises(UserError) as raised:
        build_backbone(f"keras_hub:{name}")
    for part in (
        str(tmp_path / "models" / handle),
        "not downloaded automatically",
        handle,
        "FOLDER",
    ):
        assert part in str(raised.value)
    shutil.copytree(presets("vit").folder, tmp_path / "models" / handle)
    assert build_backbone(f"keras_hub:{name}").input_shape == (None, SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("keras_hub:", "'' is neither a folder nor the name of a preset"),
        ("keras_hub:resnet_50_imagene", "did you mean 'resnet_50_imagenet'"),
        ("keras_hub:no/such/folder", "'no/such/folder' is neither a folder nor the name"),
    ],
)
def test_a_preset_that_is_nowhere_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        build_backbone(name)


def change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


DAMAGES = {
    "has no image_converter.json": lambda folder: (folder / "image_converter.json").unlink(),
    "has no config.json": lambda folder: (folder / "config.json").unlink(),
    "config.json cannot be read": lambda folder: (folder / "config.json").write_text("{"),
    "is not part of a KerasHub preset": lambda folder: (folder / "config.json").write_text("{}"),
    "has no keras_hub>Other": lambda folder: change(
        folder / "config.json", registered_name="keras_hub>Other"
    ),
    "is not an image converter": lambda folder: shutil.copy(
        folder / "config.json", folder / "image_converter.json"
    ),
    "no weights in": lambda folder: (folder / "model.weights.h5").unlink(),
    "model.weights.h5 does not fit": lambda folder: (folder / "model.weights.h5").write_bytes(b"0"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_preset_is_refused(message, presets, tmp_path):
    folder = shutil.copytree(presets("vit").folder, tmp_path / "preset")
    DAMAGES[message](folder)
    with pytest.raises(UserError, match=message):
        build_backbone(f"keras_hub:{folder}")


def test_a_preset_that_names_no_picture_size_needs_one(presets, tmp_path):
    folder = shutil.copytree(presets("resnet").folder, tmp_path / "preset")
    keras_hub.layers.ImageConverter(scale=1 / 255).save_to_preset(folder)
    with pytest.raises(UserError, match="it has no default picture size; set image_size"):
        build_backbone(f"keras_hub:{folder}")
    assert build_backbone(f"keras_hub:{folder}", 64).input_shape == (None, 64, 64, 3)


def test_other_scales_of_the_pixels_are_another_backbone(presets, tmp_path):
    folder = shutil.copytree(presets("resnet").folder, tmp_path / "preset")
    before = weights_fingerprint(build_backbone(f"keras_hub:{folder}"))
    for field in ("scale", "offset"):
        shutil.copy(presets("resnet").folder / "image_converter.json", folder)
        converter = json.loads((folder / "image_converter.json").read_text())
        converter["config"][field] = [0.5, 0.02, 0.03]
        (folder / "image_converter.json").write_text(json.dumps(converter))
        assert weights_fingerprint(build_backbone(f"keras_hub:{folder}")) != before


def test_a_network_of_texts_is_refused(presets, tmp_path):
    folder = shutil.copytree(presets("vit").folder, tmp_path / "preset")
    size = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    keras_hub.models.BertBackbone(vocabulary_size=9, **size).save_to_preset(folder)
    with pytest.raises(UserError, match=r"BertBackbone has inputs .* instead of pictures"):
        build_backbone(f"keras_hub:{folder}", 32)
