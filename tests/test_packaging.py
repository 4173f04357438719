"""What an installation holds besides Python files."""

import ast
import pathlib

import pytest
from source_tree import PACKAGES, ROOT

pytestmark = pytest.mark.unit


def package_data() -> dict[str, list[str]]:
    """Returns the patterns in setup.py, by package."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "package_data":
            return ast.literal_eval(node.value)
    raise AssertionError("setup.py names no package_data")


def data_files(package: str) -> set[pathlib.Path]:
    """Returns the files that the patterns find; Triton's model is one, and no module."""
    folder = ROOT / package
    return {path for pattern in package_data()[package] for path in folder.glob(pattern)}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_installed(package):
    installed = data_files(package)
    there = {path for path in (ROOT / package).rglob("*") if path.is_file()}
    modules = {path for path in there - installed if path.suffix in (".py", ".pyc")}
    assert there - modules == installed


@pytest.mark.parametrize("package", PACKAGES)
def test_every_pattern_of_files_to_install_finds_some(package):
    assert all(list((ROOT / package).glob(pattern)) for pattern in package_data()[package])


def test_every_folder_with_modules_is_a_package():
    modules = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    modules -= {path for package in PACKAGES for path in data_files(package)}
    folders = {path.parent for path in modules}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
