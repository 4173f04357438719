"""Fixtures shared by all tests."""

import os
import pathlib

import numpy as np
import pytest
from tiny_run import COMPLETE, TINY

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


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
