"""An export is run by a C program, in which there is no Python, and by older TensorFlows.

`BIAM_OTHER_TENSORFLOWS` names Python environments with other versions of TensorFlow, separated by
colons as in PATH; their libraries run the same program.
"""

import os
import pathlib
import shutil
import struct
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded
from tensorflow.core.protobuf import saved_model_pb2

from biam_tf.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

SOURCE = pathlib.Path(__file__).parents[1] / "data" / "run_signatures.c"
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
THREADS = 8
STRING = tf.string.as_datatype_enum
OTHERS = [path for path in os.environ.get("BIAM_OTHER_TENSORFLOWS", "").split(os.pathsep) if path]


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The program, compiled with the headers and libraries of the installed TensorFlow."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    package = pathlib.Path(tf.__file__).parent
    if not all((package / library).exists() for library in LIBRARIES):
        pytest.skip("this TensorFlow comes without the library of its C API")
    path = tmp_path_factory.mktemp("program") / "run_signatures"
    command = [compiler, "-O1", "-Wall", "-Werror", str(SOURCE), "-o", str(path), "-lpthread"]
    command += [f"-I{package / 'include'}", f"-L{package}", *(f"-l:{name}" for name in LIBRARIES)]
    subprocess.run(command, check=True)
    assert "python" not in subprocess.run(["nm", path], capture_output=True, text=True).stdout
    return path


def sample_requests(version):
    """A request for each signature of an export."""
    vocabulary = Vocabulary.load(version / "assets.extra" / "vocabulary.npz")
    photos = np.array([encoded("JPEG", (80, 60)), encoded("PNG", (33, 99))], object)
    classes = np.concatenate([vocabulary.embeddings[:3], vocabulary.embeddings[:1] * 2])
    names = np.array([name.encode() for name in vocabulary.names[:4]], object)
    loaded = tf.saved_model.load(version)
    features = loaded.signatures["features"](images=tf.constant(photos))
    given = {"images": photos, "class_embeddings": classes, "class_names": names}
    given |= {name: value.numpy() for name, value in features.items()}
    requests, expected = {}, {}
    for name, signature in loaded.signatures.items():
        inputs = signature.structured_input_signature[1]
        requests[name] = {key: given[key] for key in inputs}
        answers = signature(**{key: tf.constant(given[key]) for key in inputs})
        expected[name] = {key: value.numpy() for key, value in answers.items()}
    return requests, expected


def write_plan(path, version, requests):
    """Writes the requests with the names that the graph has for their tensors."""
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    with path.open("wb") as file:

        def write(*values):
            for value in values:
                if isinstance(value, bytes):
                    file.write(struct.pack("<q", len(value)) + value)
                else:
                    file.write(struct.pack("<q", value))

        def write_place(info):
            name, _, number = info.name.partition(":")
            write(name.encode(), int(number))

        write(len(requests))
        for name, inputs in requests.items():
            write(len(inputs))
            for key, array in inputs.items():
                info = signatures[name].inputs[key]
                write_place(info)
                write(info.dtype, array.ndim, *array.shape)
                write(*(array.ravel().tolist() if info.dtype == STRING else [array.tobytes()]))
            outputs = sorted(signatures[name].outputs.items())
            write(len(outputs))
            for _, info in outputs:
                write_place(info)


def read_answers(path, expected):
    """Returns what one thread was answered, by signature and output."""
    data, position = path.read_bytes(), 0

    def number():
        nonlocal position
        position += 8
        return struct.unpack_from("<q", data, position - 8)[0]

    def text():
        nonlocal position
        size = number()
        position += size
        return data[position - size : position]

    answers, names = {}, list(expected)
    while position < len(data):
        name = names[number()]
        answers[name] = {}
        for key in sorted(expected[name]):
            dtype, shape = number(), [number() for _ in range(number())]
            if dtype == STRING:
                values = np.array([text() for _ in range(int(np.prod(shape)))], object)
            else:
                values = np.frombuffer(text(), tf.dtypes.as_dtype(dtype).as_numpy_dtype)
            answers[name][key] = values.reshape(shape)
    return answers


def run_from_threads(program, libraries, version, folder):
    """Runs every signature from eight threads and compares each answer with TensorFlow's."""
    requests, expected = sample_requests(version)
    write_plan(folder / "plan", version, requests)
    done = subprocess.run(
        [program, version, folder / "plan", folder / "answers"],
        env={"LD_LIBRARY_PATH": str(libraries), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for thread in range(THREADS):
        answers = read_answers(folder / f"answers.{thread}", expected)
        assert answers.keys() == expected.keys()
        for name, outputs in expected.items():
            for key, value in outputs.items():
                found = answers[name][key]
                assert found.shape == value.shape and found.dtype == value.dtype, (name, key)
                if value.dtype == object:
                    assert found.tolist() == value.tolist(), (name, key)
                else:
                    scale = max(1.0, float(np.abs(value).max()))
                    np.testing.assert_allclose(found, value, atol=1e-4 * scale, err_msg=name)
    return done.stdout.strip()


def test_every_signature_runs_without_python(program, tagger_dir, tmp_path):
    package = pathlib.Path(tf.__file__).parent
    said = run_from_threads(program, package, tagger_dir / "1", tmp_path)
    assert said == f"TensorFlow {tf.__version__}"


@pytest.mark.skipif(not OTHERS, reason="BIAM_OTHER_TENSORFLOWS names no environment")
@pytest.mark.parametrize("environment", OTHERS)
def test_older_versions_run_it_alike(program, portable_dir, tmp_path, environment):
    (package,) = pathlib.Path(environment).glob("lib/python*/site-packages/tensorflow")
    said = run_from_threads(program, package, portable_dir / "1", tmp_path)
    assert said.startswith("TensorFlow 2.") and said != f"TensorFlow {tf.__version__}"
