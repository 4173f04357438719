"""Commands write nothing of their libraries to standard error."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from own_lines import foreign_lines
from photo_files import encoded
from tiny_run import TINY
from tiny_server import ready, started

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}

# One process for many commands: the import of TensorFlow takes most of the time of each.
EACH = """
import importlib, json, sys
for module, arguments in json.loads(sys.argv[1]):
    print(f"== {module}", file=sys.stderr, flush=True)
    assert importlib.import_module(module).main(arguments) == 0, module
"""


@pytest.fixture
def process():
    """Returns a function that starts Python with arguments, as a user does."""
    processes = []

    def process(*arguments):
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=ROOT,
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield process
    for each in processes:
        each.kill()


def test_training_and_tagging_write_only_their_own_lines(
    finished, tagger_dir, cold_dir, scenes, process, tmp_path
):
    album = tmp_path / "my photos"
    album.mkdir()
    for i in range(2):
        (album / f"{i}.png").write_bytes(encoded("PNG", (60, 50), i))
    run, index, photo = finished.path, tmp_path / "index", album / "0.png"
    data = ["--set", f"data.directory={scenes}", "--set", "data.name=folder"]
    small = [*TINY, "backbone.image_size=32"]
    tiny = [*(text for setting in small for text in ("--set", setting)), *data]
    version = tagger_dir / "1"
    server = ready(started(cold_dir))
    commands = [
        ("training.run", [*tiny, "--set", f"output={tmp_path / 'run'}"]),
        ("training.describe", [scenes, "--output", tmp_path / "description"]),
        ("training.evaluate", [run, "--data", scenes, "--output", tmp_path / "figures.json"]),
        ("training.report.__main__", [run, "--output", tmp_path / "report"]),
        ("serving.export", [tmp_path / "run", tmp_path / "model", "--formats", "png"]),
        ("serving.predict", [album, "--model", version, "--csv", tmp_path / "tags.csv"]),
        ("serving.index", [tagger_dir, album, index]),
        ("serving.retag", [index, "--classes", "red plain star"]),
        ("serving.client", ["--server", server.address, "--json", photo]),
    ]
    given = json.dumps([(module, list(map(str, words))) for module, words in commands])
    done = process("-c", EACH, given)
    _, printed = done.communicate(timeout=600)
    server.stop()
    assert done.returncode == 0, printed
    others = [line for line in foreign_lines(printed) if not line.startswith("== ")]
    assert not others, printed
    assert printed.count("== ") == len(commands) and "using the CPU" in printed


def test_the_page_and_its_server_write_only_their_own_lines(tagger_dir, process, tmp_path):
    pytest.importorskip("gradio", reason="the demo's page needs gradio")
    options = ("--port", 0, "--no-browser", "--indexes", tmp_path)
    page = process("-m", "serving.demo", tagger_dir, *options)
    assert page.stdout.readline().endswith("(Ctrl-C stops it)\n")
    page.send_signal(signal.SIGTERM)
    _, printed = page.communicate(timeout=120)
    assert page.returncode == 0 and not foreign_lines(printed), printed
