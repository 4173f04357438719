"""Fixtures of the tests of serving."""

import functools
import shutil

import pytest
from tiny_model import write_tiny_model
from tiny_server import ready, started

from serving.graph.warmup import FILE_NAME


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """Holds version 3 of the tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, 3)
    return folder


@pytest.fixture(scope="module")
def server(model_dir):
    """A server of the tiny model, loaded."""
    server = ready(started(model_dir, metrics_port=0))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tagger_dir(finished, made_once):
    """Holds version 1 of the run that ended, as an export writes it; not to be changed."""
    from serving import export

    def write(folder):
        assert export.main([str(finished.path), str(folder)]) == 0

    return made_once("tagger", write)


@pytest.fixture(scope="session")
def cold_dir(tagger_dir, made_once):
    """As `tagger_dir`, without requests to warm up with: a server of it is ready much earlier."""

    def write(folder):
        shutil.copytree(tagger_dir, folder)
        (folder / "1" / "assets.extra" / FILE_NAME).unlink()

    return made_once("cold", write)


@pytest.fixture(scope="session")
def portable_dir(finished, made_once):
    """As `tagger_dir`, without WebP, which TensorFlow decodes from 2.20 on."""
    from serving import export

    def write(folder):
        options = ["--formats", "jpeg,png,gif,bmp"]
        assert export.main([str(finished.path), str(folder), *options]) == 0

    return made_once("portable", write)


@functools.cache
def _embedder(*arguments):
    from serving.indexing.region_embedder import RegionEmbedder

    return RegionEmbedder(*arguments)


@pytest.fixture(scope="module")
def loaded_once():
    """Indexing keeps the exports that it loads: loading one takes seconds, and none changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.indexing.build_index.RegionEmbedder", _embedder)
        yield
