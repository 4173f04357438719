"""What of TensorFlow's messages a command passes on."""

import io
import os
import subprocess
import sys
import threading

import pytest

from biam_tf import library_messages
from biam_tf.backbones import BACKBONES, is_pretrained
from biam_tf.errors import UserError

START = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
    "I0000 00:00:1795846555.452116    4280 port.cc:153] oneDNN custom operations are on.\n",
    "E0000 00:00:1795846555.452506    4280 cuda_platform.cc:51] failed call to cuInit: 303\n",
    "W0000 00:00:1795846555.452506    4280 gpu_device.cc:2342] Cannot dlopen libraries.\n",
]
OWN = "epoch 1/2: 7/7\n"
FATAL = "F0000 00:00:1795846555.452506    4280 cpu_info.cc:51] compiled to use AVX\n"
LATER = "E0000 00:00:1795846560.452506    4280 conv.cc:51] out of memory\n"
FALLBACK = (
    "E0000 00:00:1795846560.452506    4280 util.cc:131] oneDNN supports DT_UINT8 only with "
    "AVX-512. Falling back to the default Eigen-based implementation if present.\n"
)


def filtered(*parts: str) -> str:
    """Returns what the filter passes on of these writes."""
    read_end, write_end = os.pipe()
    sink = io.BytesIO()
    thread = threading.Thread(target=library_messages.filter_messages, args=(read_end, sink))
    thread.start()
    for part in parts:
        os.write(write_end, part.encode())
    os.close(write_end)
    thread.join()
    os.close(read_end)
    return sink.getvalue().decode()


STARTED, ENDED = (mark.decode() for mark in (library_messages._STARTED, library_messages._ENDED))


@pytest.mark.unit
def test_lines_of_a_start_without_a_gpu_are_left_out():
    assert filtered(*START, STARTED, OWN, FALLBACK, ENDED) == OWN


@pytest.mark.unit
def test_errors_after_the_start_and_fatal_ones_are_passed_on():
    assert filtered(FATAL, *START, STARTED, LATER, ENDED) == FATAL + LATER


@pytest.mark.unit
def test_what_was_held_back_is_shown_when_the_process_dies():
    assert filtered(*START, OWN) == OWN + START[2] + START[3]


@pytest.mark.unit
def test_lines_may_come_in_pieces():
    assert filtered(START[1][:9], START[1][9:], "10%", "\r20%", "\n", ENDED) == "10%\r20%\n"


@pytest.mark.unit
@pytest.mark.parametrize("module", ["keras", "tensorflow"])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_command_needs_the_backend_tensorflow(module, by_file, monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text('{"backend": "tensorflow"}')
    finder = library_messages._TensorFlowFinder(lambda: None, lambda: None)
    assert finder.find_spec("keras", None) is None
    if by_file:
        (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    else:
        monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UserError, match="need TensorFlow, but Keras is set to jax: set KERAS_BACK"):
        finder.find_spec(module, None)


@pytest.mark.unit
def test_the_backbones_with_imagenet_weights_are_known_without_importing_them():
    for name, spec in BACKBONES.items():
        assert is_pretrained(name) == (spec.load_imagenet is not None), name


CRASH = """
import argparse, os, sys
from biam_tf.command_line import run_command
def command(arguments):
    sys.path.insert(0, sys.argv[1])
    import tensorflow
sys.exit(run_command(argparse.ArgumentParser(), command, []))
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("os.abort()", -6),
        ("raise ImportError('broken')", 1),
        ("import biam_tf.library_messages as messages; messages.end_process(3)", 3),
    ],
)
def test_a_crash_while_tensorflow_is_imported_shows_its_reason(ending, status, tmp_path):
    lines = [START[1], START[3], "native reason\n"]
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nfor line in {lines!r}:\n    os.write(2, line.encode())\n{ending}\n"
    )
    command = [sys.executable, "-c", CRASH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert "native reason" in done.stderr
    assert (START[3] in done.stderr) == (status != 3)  # the process ended as it meant to
    assert START[1] not in done.stderr
    assert ("broken" in done.stderr) == (status == 1)
