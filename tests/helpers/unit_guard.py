"""What a test that is marked `unit` must not do, and the guard that makes it fail if it does."""

import contextlib
import importlib
import platform
import sys
from collections.abc import Iterator

import pytest

# Module, attribute in it, and what calling it amounts to. Modules that nobody has imported are left
# alone: `-m unit` on a test of a text file does not import TensorFlow.
FORBIDDEN = (
    ("subprocess", "Popen.__init__", "starts a process"),
    ("multiprocessing.process", "BaseProcess.start", "starts a process"),
    ("socket", "socket.listen", "opens a server"),
    ("grpc", "server", "opens a server"),
    ("keras", "optimizers.Optimizer.apply", "trains"),
    ("keras", "Model.fit", "trains"),
    ("training.loop.trainer", "train", "trains"),
    ("training.loop.closed_form", "fit_head", "trains"),
    ("training.pipeline.whole_run", "run", "trains"),
)


# The first import of TensorFlow asks for this, which starts `uname` and is then remembered. The
# first import of numpy.testing starts `lscpu` before NumPy 2.0.
platform.processor()
importlib.import_module("numpy.testing")


@contextlib.contextmanager
def unit_guard() -> Iterator[None]:
    """Makes everything in `FORBIDDEN` fail the test that calls it."""
    with pytest.MonkeyPatch.context() as patch:
        for module, attribute, what in FORBIDDEN:
            if module in sys.modules:
                patch.setattr(f"{module}.{attribute}", _failing(what))
        yield


def _failing(what: str):
    def fail(*arguments, **keywords):
        pytest.fail(f"a test marked unit {what}; mark it integration")

    return fail
