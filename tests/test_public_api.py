"""Public functions are annotated, and what users import says what it does."""

import ast

import pytest
from source_tree import PACKAGES, ROOT, modules

pytestmark = pytest.mark.unit

# What users import, and what is public in it.
USER_API = (
    "biam_tf/layers",
    "biam_tf/losses",
    "biam_tf/models",
    "biam_tf/metrics",
    "biam_tf/backbones",
    "biam_tf/vocabulary.py",
    "biam_tf/thresholds.py",
    "biam_tf/checkpoints.py",
    "biam_tf/tagger.py",
    "biam_tf/pretrained.py",
    "serving/client.py",
)
# Keras documents these.
OF_KERAS = {
    "build",
    "call",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_config",
    "main",
}


def public_functions(tree: ast.Module):
    """Yields (class name or None, function) of functions and methods without an underscore."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield None, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and (
                    not inner.name.startswith("_") or inner.name == "__init__"
                ):
                    yield node.name, inner


def missing_annotations(function: ast.FunctionDef, method: bool) -> list[str]:
    arguments = function.args
    static = any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list)
    positional = [*arguments.posonlyargs, *arguments.args][method and not static :]
    # The keywords that a layer hands on to Keras have no type of ours.
    to_keras = function.name == "__init__" and arguments.kwarg and arguments.kwarg.arg == "kwargs"
    others = [arguments.vararg, None if to_keras else arguments.kwarg]
    every = [*positional, *arguments.kwonlyargs, *(argument for argument in others if argument)]
    missing = [argument.arg for argument in every if argument.annotation is None]
    if function.returns is None and function.name != "__init__":
        missing.append("return")
    return missing


def where(module, owner: str | None, function) -> str:
    name = f"{owner}.{function.name}" if owner else function.name
    return f"{module.path.relative_to(ROOT)}:{function.lineno} {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_are_annotated(package):
    problems = [
        f"{where(module, owner, function)}: {', '.join(missing)}"
        for module in modules().values()
        if module.package == package
        for owner, function in public_functions(module.tree)
        if (missing := missing_annotations(function, owner is not None))
    ]
    assert not problems, f"{len(problems)} without annotation:\n" + "\n".join(problems)


def test_an_argument_without_annotation_is_found():
    tree = ast.parse("class A:\n  def f(self, x, *, y: int, **z): ...\n  def g(self) -> int: ...")
    (_, f), (_, g) = public_functions(tree)
    assert missing_annotations(f, True) == ["x", "z", "return"]
    assert missing_annotations(g, True) == []


def test_what_users_import_has_docstrings():
    problems = []
    for module in modules().values():
        path = module.path.relative_to(ROOT).as_posix()
        if not any(path == place or path.startswith(f"{place}/") for place in USER_API):
            continue
        tree = module.tree
        documented = [(None, node) for node in tree.body if isinstance(node, ast.ClassDef)]
        documented = [(o, n) for o, n in documented if not n.name.startswith("_")]
        for owner, node in [*documented, *public_functions(tree)]:
            if node.name not in {*OF_KERAS, "__init__"} and not ast.get_docstring(node):
                problems.append(where(module, owner, node))
    assert not problems, "no docstring:\n" + "\n".join(problems)
