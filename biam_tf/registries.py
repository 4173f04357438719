"""Registries and packages whose members are imported when they are used.

Modules with Keras layers take seconds to import. Names and settings are checked without them.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

Member = TypeVar("Member")


class Registry(MutableMapping[str, Member], Generic[Member]):
    """Members by name; those of this package are imported when they are first asked for.

    Names can be listed and looked for without an import. Others add members as to a dictionary:
    `SYSTEMS["mine"] = MINE`.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        """Makes a registry.

        Args:
            paths: by name, `module:attribute` of the member.
        """
        self._paths = dict(paths)
        self._members: dict[str, Member | None] = dict.fromkeys(paths)  # None: not imported yet

    def __getitem__(self, name: str) -> Member:
        member = self._members[name]
        if member is None:
            member = _import(self._paths[name])
            self._members[name] = member
        return member

    def __setitem__(self, name: str, member: Member) -> None:
        self._members[name] = member

    def __delitem__(self, name: str) -> None:
        del self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members


def late(path: str) -> Callable[..., Any]:
    """Returns a function that imports the one at `path`, `module:name`, when it is called."""
    return _Late(path)


def import_late(function: Callable[..., Any]) -> None:
    """Imports what a function of `late` would call; any other is there already."""
    if isinstance(function, _Late):
        _import(function.path)


@dataclasses.dataclass(frozen=True)
class _Late:
    path: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _import(self.path)(*args, **kwargs)


def _import(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def importing_from(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a function `__getattr__` for a package that imports its names when they are used.

    Args:
        package: its `__name__`.
        modules: by name, the module below the package that defines it.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get
