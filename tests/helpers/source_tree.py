"""The project's modules and what they import, read from the source without running it."""

import ast
import dataclasses
import functools
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("biam_tf", "training", "serving")


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of the project.

    Attributes:
        name: with dots; a package's `__init__` has the name of the package.
        path: of its file.
        lines: of its file.
        imports: names of the project's modules that it imports, at its top or inside functions.
        top_imports: those at its top alone, which must be there for it to be imported.
    """

    name: str
    path: pathlib.Path
    lines: int
    imports: frozenset[str]
    top_imports: frozenset[str]

    @property
    def package(self) -> str:
        """The outermost package, such as `training`."""
        return self.name.partition(".")[0]

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.path.read_text(encoding="utf-8"))


@functools.cache
def modules(*folders: str) -> dict[str, Module]:
    """Returns the modules of some folders at the root, by name."""
    paths = {}
    for path in (p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))):
        parts = path.relative_to(ROOT).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {}
    for name, path in paths.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        every = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        inside = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for inner in ast.walk(node)
        }
        top = [node for node in every if node not in inside]
        found[name] = Module(
            name,
            path,
            len(text.splitlines()),
            _imported(every, paths),
            _imported(top, paths),
        )
    return found


def _imported(nodes, names) -> frozenset[str]:
    imported: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names if alias.name in names}
        else:
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
