"""A configuration file."""

import pathlib

import pytest


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> pathlib.Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
