"""A run as an ONNX file, run by ONNX Runtime alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from biam_tf.models.head import with_response_maps
from biam_tf.runs import load_run
from serving import onnx as onnx_command

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished.path)


@pytest.fixture(scope="module")
def files(finished, tmp_path_factory):
    """The two ONNX files of a run, by part, written by the command."""
    folder = tmp_path_factory.mktemp("onnx")
    files = {part: folder / f"{part}.onnx" for part in ("full", "head")}
    assert onnx_command.main([str(finished.path), str(files["full"])]) == 0
    # In a process of its own, which has imported nothing but what the command imports.
    command = [sys.executable, "-m", "serving.onnx", str(finished.path), str(files["head"])]
    subprocess.run([*command, "--part", "head"], check=True)
    assert sorted(folder.iterdir()) == sorted(files.values())
    return files


ALONE = """
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
with np.load(sys.argv[2]) as inputs:
    outputs = session.run(None, dict(inputs))
np.savez(sys.argv[3], **{o.name: v for o, v in zip(session.get_outputs(), outputs)})
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"tensorflow", "keras", "biam_tf", "serving", "training"}, loaded
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["full", "head"])
@pytest.mark.parametrize(("photos", "classes"), [(1, 1), (4, 9)])
def test_onnx_runtime_alone_gives_the_scores_of_keras(
    files, run, rng, tmp_path, part, photos, classes
):
    size = run.image_size
    images = rng.uniform(0, 255, (photos, size, size, 3)).astype(np.float32)
    features = run.backbone(images, training=False)
    class_embeddings = rng.normal(size=(classes, 14)).astype(np.float32)
    parts = [features["region_features"], features["scene_feature"], tf.constant(class_embeddings)]
    expected = with_response_maps(run.head)(parts, training=False)
    inputs = {"images": images} if part == "full" else features
    np.savez(tmp_path / "in.npz", **inputs, class_embeddings=class_embeddings)
    command = [sys.executable, "-c", ALONE, files[part], tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(command, check=True, cwd=tmp_path)
    with np.load(tmp_path / "out.npz") as found:
        for name in ("scores", "response_maps"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-4)


def test_the_file_says_what_goes_in_and_out(files, run):
    model = onnx.load(files["full"])
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert int(facts["image_size"]) == run.image_size and facts["embedding_size"] == "14"
    assert tuple(json.loads(facts["class_names"])) == tuple(run.vocabulary.names)
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert dims == {
        "images": ["photos", run.image_size, run.image_size, 3],
        "class_embeddings": ["classes", 14],
        "scores": ["photos", "classes"],
        "response_maps": ["photos", 12, 12, "classes"],
    }


def test_a_file_that_differs_is_not_kept(run, tmp_path, monkeypatch):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"the file before")
    monkeypatch.setattr("serving.graph.onnx_file.TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differs from TensorFlow"):
        onnx_command.export_onnx(run, file, "head")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert file.read_bytes() == b"the file before"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{tmp}/no/model.onnx"], "there is no folder"),
        (["{run}", "{tmp}/model.onnx", "--opset", "5"], "--opset 5: use 13 to"),
        (["{run}", "{tmp}"], "is a folder; name a file in it"),
        (["{tmp}", "{tmp}/model.onnx"], "is not the folder of a run"),
    ],
)
def test_the_command_names_what_is_wrong(finished, tmp_path, capsys, arguments, message):
    places = {"run": finished.path, "tmp": tmp_path}
    assert onnx_command.main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
