"""A model repository for Triton; its Python model runs on a stand-in for Triton's module."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import text_format

from biam_tf import Tagger
from serving import triton

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

# Triton's Python backend as far as the model uses it, with ONNX Runtime behind it.
ALONE = """
import json, pathlib, sys, types

import numpy as np
import onnxruntime


class Tensor:
    def __init__(self, name, values):
        assert isinstance(values, np.ndarray)
        self.name, self.values = name, values

    def as_numpy(self):
        return self.values


class Response:
    def __init__(self, output_tensors=(), error=None):
        self.tensors, self.problem = {t.name: t for t in output_tensors}, error

    def has_error(self):
        return self.problem is not None


class Request:
    def __init__(self, inputs, model_name=None, requested_output_names=(), preferred_memory=None):
        self.tensors = {tensor.name: tensor for tensor in inputs}
        self.model_name, self.names = model_name, list(requested_output_names)

    def exec(self):
        session = onnxruntime.InferenceSession(str(repository / self.model_name / "1/model.onnx"))
        inputs = {name: tensor.values for name, tensor in self.tensors.items()}
        values = session.run(self.names, inputs)
        return Response([Tensor(*each) for each in zip(self.names, values)])


repository, photos, names, result = (pathlib.Path(each) for each in sys.argv[1:])
sys.modules["triton_python_backend_utils"] = types.SimpleNamespace(
    Tensor=Tensor, InferenceResponse=Response, InferenceRequest=Request, TritonError=str,
    PreferredMemory=lambda kind, device: (kind, device), TRITONSERVER_MEMORY_CPU=0,
    get_input_tensor_by_name=lambda request, name: request.tensors.get(name),
    get_output_tensor_by_name=lambda response, name: response.tensors[name],
)
sys.path.insert(0, str(repository / "tagger/1"))
from model import TritonPythonModel

model = TritonPythonModel()
model.initialize({"model_repository": str(repository / "tagger"), "model_version": "1"})
images = Tensor("images", np.array([p.read_bytes() for p in sorted(photos.iterdir())], object))
classes = json.loads(names.read_text())


def names_of(values):
    return Tensor("class_names", np.array([v.encode() for v in values], object))


broken = Tensor("images", np.array([*images.values, b"GIF89a"], object))
answers = model.execute([
    Request([images, names_of(classes)]),
    Request([images]),
    Request([images, names_of([*classes, "zzz"])]),
    Request([broken, names_of(classes)]),
    Request([Tensor("images", np.array([], object))]),
    Request([images, Tensor("class_names", np.array([b"\\xff"], object))]),
])
named, own = answers[:2]
np.savez(result, own=own.tensors["scores"].values,
         **{name: tensor.values for name, tensor in named.tensors.items()})
print(json.dumps([answer.problem for answer in answers[2:]]))
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"tensorflow", "keras"}, loaded
"""


@pytest.fixture(scope="module")
def repository(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton") / "models"
    assert triton.main([str(finished.path), str(folder)]) == 0
    return folder


def test_photos_and_names_have_the_scores_of_the_run(repository, finished, scenes, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    chosen = sorted(pathlib.Path(scenes).rglob("*.png"))[:3]
    for photo in chosen:
        (photos / photo.name).write_bytes(photo.read_bytes())
    tagger = Tagger.load(finished.path)
    classes = [tagger.vocabulary.names[3], tagger.vocabulary.names[0]]
    (tmp_path / "names.json").write_text(json.dumps(classes))
    paths = [repository, photos, tmp_path / "names.json", tmp_path / "result.npz"]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, paths)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "result.npz")
    paths = sorted(photos.iterdir())
    scores = tagger.scores(paths, classes)
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-3, atol=1e-3 * np.abs(scores).max())
    own = tagger.scores(paths, tagger.vocabulary.names)
    np.testing.assert_allclose(found["own"], own, rtol=1e-3, atol=1e-3 * np.abs(own).max())
    its = tagger.thresholds.for_names(classes)
    np.testing.assert_allclose(
        found["probabilities"], its.probabilities(found["scores"]), rtol=1e-5
    )
    np.testing.assert_array_equal(found["present"], its.decide(found["scores"]))
    unknown, broken, none, not_text = json.loads(done.stdout)
    assert "zzz" in unknown
    assert broken.startswith("images[3]: not a whole")
    assert none == "images: send 1 to 64 photos, not 0"
    assert not_text == "class_names: not UTF-8"


@pytest.mark.parametrize("name", ["tagger", "tagger_scores"])
def test_configurations_are_tritons(repository, name):
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="extra [test]")
    text = (repository / name / "config.pbtxt").read_text()
    configuration = text_format.Parse(text, messages.ModelConfig())
    assert configuration.name == name and configuration.max_batch_size == 0
    inputs = {tensor.name: tensor for tensor in configuration.input}
    if name == "tagger":
        assert configuration.backend == "python"
        assert inputs["images"].data_type == messages.TYPE_STRING
        assert inputs["class_names"].optional and not inputs["images"].optional
        return
    assert configuration.backend == "onnxruntime"
    session = onnxruntime.InferenceSession(str(repository / name / "1" / "model.onnx"))
    for tensors, named in ((session.get_inputs(), inputs), (session.get_outputs(), None)):
        named = named or {tensor.name: tensor for tensor in configuration.output}
        assert named.keys() == {tensor.name for tensor in tensors}
        for tensor in tensors:
            sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
            assert list(named[tensor.name].dims) == sizes


def test_a_version_that_exists_is_kept(repository, finished, capsys):
    file = repository / "tagger" / "1" / "model.py"
    before = file.stat().st_mtime_ns
    assert triton.main([str(finished.path), str(repository)]) == 2
    assert "exists; choose another --version" in capsys.readouterr().err
    assert file.stat().st_mtime_ns == before
