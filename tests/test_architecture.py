"""The house stays as ARCHITECTURE.md draws it: who imports whom, and how large a room may be."""

import ast
import collections

import pytest
from source_tree import PACKAGES, ROOT, cycles, modules

pytestmark = pytest.mark.unit

MOST_LINES = 400
SMALL_LINES, MOST_SMALL = 60, 5
# Modules at the root of training/ that are no commands.
SHARED_AT_ROOT_OF_TRAINING = 2
MAY_IMPORT = {
    "biam_tf": {"biam_tf"},
    "training": {"biam_tf", "training"},
    "serving": {"biam_tf", "serving"},
}


def own_modules():
    return {n: module for n, module in modules().items() if module.package in PACKAGES}


def is_command(module) -> bool:
    return any(
        isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.tree.body
    )


def test_no_modules_import_one_another():
    # Also where the import stands in a function or is there for types alone: it would only hide
    # that two rooms are one.
    assert cycles({name: module.names for name, module in own_modules().items()}) == []


def test_a_cycle_is_found_directly_and_through_others():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}}
    imports = {name: frozenset(others) for name, others in imports.items()}
    assert cycles(imports) == [["a", "b", "c"], ["e", "f"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    wrong = [
        f"{module.name} imports {other}"
        for module in modules().values()
        if module.package == package
        for other in sorted(module.imports)
        if other.partition(".")[0] not in MAY_IMPORT[package]
    ]
    assert wrong == []


def test_the_root_of_training_holds_its_commands():
    others = [
        module.name
        for module in own_modules().values()
        if module.path.parent == ROOT / "training"
        and module.path.name != "__init__.py"
        and not is_command(module)
    ]
    assert len(others) <= SHARED_AT_ROOT_OF_TRAINING, others


def test_no_module_and_no_file_of_tests_is_long():
    long = {m.name: m.lines for m in own_modules().values() if m.lines > MOST_LINES}
    for path in (ROOT / "tests").rglob("*.py"):
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES:
            long[path.name] = lines
    assert long == {}


def test_few_modules_are_small_and_imported_once():
    importers = collections.Counter(
        other for module in own_modules().values() for other in module.imports
    )
    small = {
        module.name: module.lines
        for module in own_modules().values()
        if module.lines < SMALL_LINES
        and module.path.name not in ("__init__.py", "__main__.py")
        and importers[module.name] == 1
    }
    assert len(small) <= MOST_SMALL, small
