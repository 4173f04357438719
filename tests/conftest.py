"""Markers, workers and fixtures shared by all tests."""

import collections
import fcntl
import gc
import os
import pathlib
import shutil
import sys
from collections.abc import Callable

import numpy as np
import pytest
from graph_optimizer import optimize_graphs
from tiny_run import COMPLETE, TINY
from unit_guard import unit_guard

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

UNIT, INTEGRATION = "unit", "integration"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Three workers for a folder or the whole suite; files and single tests run in this process."""
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    folders = all(pathlib.Path(argument).is_dir() for argument in config.args)
    if folders and config.option.numprocesses is None and not config.option.usepdb:
        # By file: a module's servers, exports and browsers are made in one worker alone. In the
        # order of `_longest_first`, not by the number of tests: none waits for the other's last.
        # One more than the cores of a small machine, because a seventh of the time is waiting.
        config.option.numprocesses, config.option.dist = 3, "loadfile"
        config.option.loadscopereorder = False


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """With `-m unit`, modules without unit tests are not imported: some import Beam or Gradio."""
    if config.option.markexpr == UNIT and collection_path.name.startswith("test_"):
        if f"mark.{UNIT}" not in collection_path.read_text(encoding="utf-8"):
            return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each test one of unit and integration: its own mark, its module's, or integration."""
    kinds = {}
    for item in items:
        marks = [mark.name for mark in item.iter_markers() if mark.name in (UNIT, INTEGRATION)]
        kinds[item] = marks[0] if marks else INTEGRATION
    for item in items:
        for node in item.listchain():
            node.own_markers = [m for m in node.own_markers if m.name not in (UNIT, INTEGRATION)]
        item.add_marker(kinds[item])
    if "PYTEST_XDIST_WORKER" in os.environ:
        _longest_first(items)


def pytest_collection_finish() -> None:
    """What the imports left is there to stay: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
    if "tensorflow" in sys.modules:
        optimize_graphs(False)


@pytest.fixture(scope="module")
def optimized_graphs():
    """TensorFlow optimizes graphs before their first call, as it does for users.

    For other tests it does so only in programs that they start.
    """
    optimize_graphs(True)
    yield
    optimize_graphs(False)


def _longest_first(items: list[pytest.Item]) -> None:
    """Sorts the files by about how long their tests take; the last ones are short."""
    guesses: dict[tuple[pathlib.Path, str], float] = {}
    for item in items:
        is_slow, is_unit = (item.get_closest_marker(mark) is not None for mark in ("slow", UNIT))
        name = item.name if is_slow else item.name.partition("[")[0]  # where cases are many
        guesses[item.path, name] = 12.0 if is_slow else 0.1 if is_unit else 1.0
    seconds: collections.Counter[pathlib.Path] = collections.Counter()
    for (path, _), guess in guesses.items():
        seconds[path] += guess
    items.sort(key=lambda item: -seconds[item.path])


@pytest.fixture(autouse=True)
def _no_training_in_unit_tests(request):
    if request.node.get_closest_marker(UNIT) is None:
        yield
        return
    with unit_guard():
        yield


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of golden vectors and photos; tests that need it skip where it is absent."""
    folder = os.environ.get("BIAM_TEST_DATA")
    if not folder:
        pytest.skip("BIAM_TEST_DATA is not set: no golden vectors or photos to test against")
    path = pathlib.Path(folder)
    if not path.is_dir():
        pytest.fail(f"BIAM_TEST_DATA names {folder!r}, which is not a folder")
    return path


@pytest.fixture(scope="session")
def golden(test_data) -> dict[str, np.ndarray]:
    """Outputs of the released code at small sizes, as arrays by name."""
    with np.load(test_data / "golden" / "biam_release_small.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def saved_figures(monkeypatch) -> list:
    """The matplotlib figures that the test saves, in their order."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    saved, save = [], figure.savefig

    def savefig(self, *arguments, **keywords):
        saved.append(self)
        return save(self, *arguments, **keywords)

    monkeypatch.setattr(figure, "savefig", savefig)
    return saved


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[pathlib.Path], object]], pathlib.Path]:
    """Returns a function that makes a folder which all workers read and none may change.

    It takes the folder's name and a function that writes into a new folder; of several workers,
    the first one that asks calls it, and the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make(name: str, write: Callable[[pathlib.Path], object]) -> pathlib.Path:
        folder, done = shared / "made_once" / name, shared / "made_once" / f"{name}.done"
        folder.parent.mkdir(exist_ok=True)
        with open(done.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                write(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def scenes(made_once) -> pathlib.Path:
    """A folder data set of 40 training, 4 validation and 8 test pictures; not to be changed."""
    from training.data.scenes.reader import draw_scenes

    return made_once("scenes", lambda folder: draw_scenes(folder, pictures=40, seed=3))


@pytest.fixture(scope="session")
def start(scenes):
    """Returns a function that runs the training command in this process."""
    from training import run

    def start(output, *settings) -> int:
        arguments = [f"data.directory={scenes}", "data.name=folder", f"output={output}"]
        command = []
        for setting in [*TINY, *arguments, *settings]:
            command += ["--set", setting]
        return run.main(command)

    return start


@pytest.fixture(scope="session")
def finished(start, made_once):
    """The `RunFolder` of a run that ended; not to be changed."""
    from training.pipeline.run_folder import RunFolder

    def train(folder: pathlib.Path) -> None:
        assert start(folder, *COMPLETE) == 0

    return RunFolder(made_once("finished", train))
