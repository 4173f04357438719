"""The project's modules and what they import, read from the source without running it."""

import ast
import dataclasses
import functools
import pathlib
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("biam_tf", "training", "serving")
FOLDERS = (*PACKAGES, "benchmarks")


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of the project.

    Attributes:
        name: with dots; a package's `__init__` has the name of the package.
        path: of its file.
        lines: of its file.
        imports: names of the project's modules that it imports, at its top or inside functions, but
            not for type checkers alone.
        names: `imports`, and those that it imports for type checkers alone.
        tree: its syntax tree.
    """

    name: str
    path: pathlib.Path
    lines: int
    imports: frozenset[str]
    names: frozenset[str]
    tree: ast.Module = dataclasses.field(repr=False)

    @property
    def package(self) -> str:
        """The outermost package, such as `training`."""
        return self.name.partition(".")[0]


@functools.cache
def modules() -> dict[str, Module]:
    """Returns the modules of the packages and of the benchmarks, by name."""
    paths = {}
    for path in (p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))):
        parts = path.relative_to(ROOT).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {}
    for name, path in paths.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        imports, names = _imported(_run(tree), paths), _imported(ast.walk(tree), paths)
        found[name] = Module(name, path, len(text.splitlines()), imports, names, tree)
    return found


def _run(tree: ast.AST):
    """Yields the nodes below `tree`, without what is there for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _run(node)


def _imported(nodes: Iterable[ast.AST], names) -> frozenset[str]:
    imported: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names if alias.name in names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in names:
                    imported.add(inner)
                elif node.module in names:
                    imported.add(node.module)
    return frozenset(imported)


def cycles(imports: dict[str, frozenset[str]]) -> list[list[str]]:
    """Returns groups of modules that import one another, directly or through others."""
    reached = {name: _reachable(name, imports) for name in imports}
    groups = {
        frozenset(other for other in reached[name] if name in reached.get(other, ())) | {name}
        for name in imports
        if name in reached[name]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(name: str, imports: dict[str, frozenset[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(imports[name])
    while waiting:
        other = waiting.pop()
        if other not in reached:
            reached.add(other)
            waiting += imports.get(other, ())
    return reached
