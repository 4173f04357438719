"""Exports that a test compares with the Keras model itself, or made of what others compare."""

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Leaves out the comparison at the end of an export, which takes as long as the rest of it."""

    def compare(run, embeddings, folder, requests):
        return dict.fromkeys(requests, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.graph.self_check.compare", compare)
        yield
