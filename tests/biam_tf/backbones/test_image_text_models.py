"""Image-text models: features and texts in one space, against transformers on PyTorch.

The golden vectors are made by `tests/helpers/make_image_text_golden.py`.
"""

import json
import pathlib
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from biam_tf import text_operations
from biam_tf.backbones import build_backbone, load_backbone, weights_fingerprint
from biam_tf.errors import UserError
from biam_tf.models.systems import build_system_head

pytest.importorskip("keras_hub", reason="keras-hub is not installed")

from biam_tf.backbones.hugging_face import convert
from biam_tf.backbones.joint_space import joint_space
from biam_tf.embeddings.sources import embed_names, vocabulary_of
from biam_tf.embeddings.spaces import require_joint_space
from biam_tf.embeddings.text_tower import TextTower

PUBLISHED = pathlib.Path(__file__).parents[2] / "data" / "image_text"
CASES = ("clip", "metaclip_2", "siglip")


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """The names of the converted presets."""
    folder = tmp_path_factory.mktemp("presets")
    for case in CASES:
        convert(PUBLISHED / case, folder / case)
    return {case: f"keras_hub:{folder / case}" for case in CASES}


@pytest.fixture(scope="module")
def towers(presets):
    return {case: TextTower.load(name) for case, name in presets.items()}


def golden(case):
    with np.load(PUBLISHED / case / "golden.npz") as file:
        return dict(file)


def unit(rows):
    rows = np.asarray(rows, "float32")
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("case", CASES)
def test_a_converted_model_computes_what_transformers_does(case, presets, towers, tmp_path):
    expected, backbone = golden(case), build_backbone(presets[case])
    pictures = expected["pictures"].astype("float32")
    outputs = backbone(pictures)
    regions, scene = (np.asarray(outputs[n]) for n in ("region_features", "scene_feature"))
    np.testing.assert_allclose(regions, expected["region_features"], atol=1e-4)
    np.testing.assert_allclose(unit(scene), unit(expected["image_embeddings"]), atol=1e-4)
    texts = towers[case].encode([str(text) for text in expected["texts"]])
    np.testing.assert_allclose(texts, unit(expected["text_embeddings"]), atol=1e-4)

    space = joint_space(backbone)
    assert space.fingerprint == towers[case].space
    head = build_system_head(
        "clip",
        regions.shape[1:],
        scene.shape[-1],
        texts.shape[-1],
        preset="scene",
        joint_space=space,
    )
    np.testing.assert_allclose(
        head([regions, scene, texts]), expected["logits"], rtol=1e-4, atol=1e-4
    )

    # As a trained backbone is saved.
    backbone.save(tmp_path / "backbone.keras")
    loaded = load_backbone(presets[case], tmp_path / "backbone.keras")
    assert joint_space(loaded) == space
    assert weights_fingerprint(loaded) == weights_fingerprint(backbone)
    np.testing.assert_array_equal(loaded(pictures)["region_features"], regions)


@pytest.mark.parametrize("case", CASES)
def test_features_under_a_policy_of_16_bits_point_where_those_in_32_do(case, presets):
    expected, before = golden(case), keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        outputs = build_backbone(presets[case])(expected["pictures"].astype("float32"))
    finally:
        keras.config.set_dtype_policy(before)
    cosines = (unit(outputs["region_features"]) * unit(expected["region_features"])).sum(-1)
    assert cosines.min() > 0.99


def test_a_class_is_embedded_by_its_descriptions_or_else_by_templates(presets, towers):
    name, tower = presets["clip"], towers["clip"]
    described = {"dog": ["a black dog", "a {name} of red"]}
    templates = ["a photo of {name}", "red {name}"]
    found = embed_names(name, ["dog", "red_car"], templates, descriptions=described)
    texts = (["a black dog", "a dog of red"], ["a photo of red car", "red red car"])
    for row, own in zip(found.rows, texts, strict=True):
        np.testing.assert_allclose(row, unit(tower.encode(own).sum(0)), atol=1e-5)
    assert [each.how for each in found.found] == ["descriptions", "as text"]
    assert found.space == tower.space


def test_a_text_longer_than_the_context_is_cut_and_said_to_be(towers):
    tower = towers["siglip"]
    long = "a photo of a dog " * 9
    assert tower.truncates(long) and not tower.truncates("dog")
    with pytest.warns(UserWarning, match="reads 10 tokens: the end of .* is not read"):
        rows = tower.encode([long, long + "near the sea"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_texts_are_read_without_case_and_for_siglip_without_punctuation(towers):
    for tower in (towers["clip"], towers["siglip"]):
        rows = tower.encode(["A DOG", "a dog"])
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    assert towers["siglip"].tokens(["a dog!"]) == towers["siglip"].tokens(["a dog"])
    assert towers["clip"].tokens(["a dog!"]) != towers["clip"].tokens(["a dog"])
    # As transformers reads for it.
    assert towers["metaclip_2"].tokens(["A dog"]) != towers["metaclip_2"].tokens(["a dog"])
    assert not towers["siglip"].reads("?!") and towers["siglip"].reads("dog")


def test_embeddings_of_another_model_are_refused_by_their_fingerprint(presets, towers, tmp_path):
    space = joint_space(build_backbone(presets["clip"]))
    name, where = presets["clip"], "head.system: clip"
    require_joint_space(space, name, name, where)
    for source, made in (("own", towers["clip"].space), ("other", towers["siglip"].space)):
        file = tmp_path / f"{source}.npz"
        note = json.dumps({"sources": [{"source": source, "space": made}]})
        np.savez(file, names=np.array(["a"]), embeddings=np.ones((1, 6)), made=note)
    require_joint_space(space, str(tmp_path / "own.npz"), name, where)
    with pytest.raises(UserError, match="they are of two different models"):
        require_joint_space(space, str(tmp_path / "other.npz"), name, where)
    with pytest.raises(UserError, match="nothing says that those of the data set are"):
        require_joint_space(space, None, name, where)
    with pytest.raises(UserError, match="needs features in the space of texts"):
        require_joint_space(None, name, "vgg19", where)


def test_regions_in_a_space_of_texts_are_those_of_image_text_models_alone():
    with pytest.raises(UserError, match="regions 'joint' are those of presets of image-text"):
        build_backbone("small", 96, regions="joint")


def test_half_a_preset_is_refused(presets, tmp_path):
    folder = shutil.copytree(presets["clip"].removeprefix("keras_hub:"), tmp_path / "preset")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"text encoder keras_hub:.* has no tokenizer.json"):
        vocabulary_of(f"keras_hub:{folder}", ["dog"])


def test_files_of_two_models_are_not_converted(tmp_path):
    folder = shutil.copytree(PUBLISHED / "clip", tmp_path / "mixed")
    shutil.copy(PUBLISHED / "siglip" / "model.safetensors", folder)
    with pytest.raises(UserError, match=r"has no array|does not fit"):
        convert(folder, tmp_path / "preset")
    assert not (tmp_path / "preset").exists()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        UserError, match="model_type is 'bert'; models of the types clip, metaclip_2 and sig"
    ):
        convert(folder, tmp_path / "preset")


def test_a_preset_without_a_text_side_is_refused(presets, tmp_path):
    import keras_hub

    folder = tmp_path / "preset"
    keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        mlp_dim=4,
    ).save_to_preset(str(folder))
    with pytest.raises(UserError, match=r"a ViTBackbone has no text side in the space of its imag"):
        vocabulary_of(f"keras_hub:{folder}", ["dog"])


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no config.json; a preset has"),
        ("model.weights.h5", "no weights in"),
        ("image_converter.json", "has no image_converter.json"),
    ],
)
def test_a_preset_that_lacks_a_file_is_no_backbone(presets, tmp_path, missing, message):
    folder = shutil.copytree(presets["clip"].removeprefix("keras_hub:"), tmp_path / "preset")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=message):
        build_backbone(f"keras_hub:{folder}")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (ImportError("No module named 'tensorflow_text'"), "which is not installed"),
        (tf.errors.NotFoundError(None, None, "undefined symbol: _ZN"), "does not fit TensorFlow"),
        (OSError("libtensorflow_text.so: undefined symbol"), "does not fit TensorFlow"),
    ],
)
def test_tensorflow_text_that_is_missing_or_of_another_tensorflow_is_named(
    raised, message, tmp_path, monkeypatch
):
    def fail(name):
        assert name == "tensorflow_text"
        raise raised

    monkeypatch.setattr(text_operations.importlib, "import_module", fail)
    facts = tmp_path / text_operations.FACTS
    facts.parent.mkdir()
    facts.write_text(json.dumps({"needs": [text_operations.TENSORFLOW_TEXT]}))
    with pytest.raises(UserError, match=message) as caught:
        text_operations.load_saved_model(tmp_path)
    assert f"tensorflow-text=={'.'.join(tf.__version__.split('.')[:2])}.*" in str(caught.value)


def test_its_configuration_runs_without_training(presets, scenes, tmp_path, capsys):
    output = f"output={tmp_path / 'run'}"
    assert run_configuration("siglip2", presets["siglip"], scenes, output) == 0
    printed = capsys.readouterr().out
    assert "region_weight" in printed and "top_k" in printed  # chosen on the validation photos
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (figures["zsl"]["classes"], figures["gzsl"]["classes"]) == (24, 72)


def test_a_head_on_its_features_passes_a_dry_run(presets, scenes, capsys):
    head = "head={preset: recommended}"
    assert run_configuration("clip", presets["clip"], scenes, head, dry=True) == 0
    assert "feature store" in capsys.readouterr().out


def run_configuration(name, preset, scenes, *settings, dry=False):
    from training import run

    settings = (
        f"data.directory={scenes}",
        f"backbone.name={preset}",
        f"vocabulary.word_vectors={preset}",
        "training.report=false",
        *settings,
    )
    command = [word for setting in settings for word in ("--set", setting)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the contexts of these models are short
        return run.main(["--config", f"configs/{name}.yaml", *(["--dry-run"] * dry), *command])
