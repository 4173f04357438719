"""Markers, workers and fixtures shared by all tests."""

import os
import pathlib

import numpy as np
import pytest
from tiny_run import COMPLETE, TINY
from unit_guard import unit_guard

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

UNIT, INTEGRATION = "unit", "integration"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Two workers for a folder or the whole suite; files and single tests run in this process."""
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    folders = all(pathlib.Path(argument).is_dir() for argument in config.args)
    if folders and config.option.numprocesses is None and not config.option.usepdb:
        # By file: a module's servers, exports and browsers are made in one worker alone.
        config.option.numprocesses, config.option.dist = 2, "loadfile"


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
def scenes(tmp_path_factory) -> pathlib.Path:
    """A folder data set of 40 training, 4 validation and 8 test pictures."""
    from training.data.scenes.reader import draw_scenes

    return draw_scenes(tmp_path_factory.mktemp("data") / "scenes", pictures=40, seed=3)


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
def finished(start, tmp_path_factory):
    """The `RunFolder` of a run that ended; not to be changed."""
    from training.pipeline.run_folder import RunFolder

    folder = RunFolder(tmp_path_factory.mktemp("runs") / "finished")
    assert start(folder.path, *COMPLETE) == 0
    return folder
