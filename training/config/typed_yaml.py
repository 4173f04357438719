"""YAML files into frozen dataclasses, with errors that name file, key path, value and remedy."""

import dataclasses
import math
import pathlib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, Union

import yaml

from biam_tf.errors import UserError, did_you_mean

# YAML 1.1 requires a dot and a sign in a float: PyYAML reads 1e-4 as text.
_NUMBER_AS_TEXT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a field accepts, as in `Annotated[int, Range(at_least=1)]`."""

    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Returns whether `value` is in the range."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        bounds = {
            "at least": self.at_least,
            "above": self.above,
            "below": self.below,
            "at most": self.at_most,
        }
        return " and ".join(
            f"{name} {bound}" for name, bound in bounds.items() if bound is not None
        )


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which by itself would silently use the last of two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key, str):
                continue
            if key in lines:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is already given in line {lines[key]}",
                    key_node.start_mark,
                )  # fmt: skip
            lines[key] = line
        return super().construct_mapping(node, deep)


class Settings:
    """A mapping of settings together with where each of them was written.

    Args:
        values: the nested mapping, as YAML gives it.
        source: the name of the values' origin in errors, usually the file's path.
    """

    def __init__(self, values: Mapping[str, Any], source: str):
        self.values = dict(values)
        self.source = source
        self._overrides: dict[str, str] = {}  # key path -> the option that set it

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "Settings":
        """Reads a YAML file.

        Raises:
            UserError: no such file, or not YAML, or not a mapping, or a key given twice.
        """
        path = pathlib.Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            beside = [str(found) for found in path.parent.glob("*.yaml")]
            raise UserError(
                f"{path}: no such configuration file{did_you_mean(str(path), beside)}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as a configuration file: {error}") from None
        return cls(_parse_mapping(text, str(path)), str(path))

    def override(self, assignment: str) -> None:
        """Applies one `a.b.c=value`; the value is read as YAML.

        Raises:
            UserError: not of that form, or a key on the way is not a section.
        """
        option = f"--set {assignment}"
        key_path, equals, text = assignment.partition("=")
        keys = key_path.strip().split(".")
        if not equals or not all(keys):
            raise UserError(f"{option}: expected a key path and a value, as in training.epochs=10")
        *parents, last = keys
        section = self.values
        for depth, key in enumerate(parents, start=1):
            if section.get(key) is None:
                section[key] = {}
            if not isinstance(section[key], dict):
                before = ".".join(keys[:depth])
                raise UserError(f"{option}: {before} is a single value, not a section")
            section = section[key]
        section[last] = _parse(text, option)
        self._overrides[".".join(keys)] = option

    def is_override(self, key_path: str) -> bool:
        """Returns whether a `--set` option gave this very key."""
        return key_path in self._overrides

    def fail(self, key_path: str, problem: str) -> NoReturn:
        """Raises the `UserError` of a key, naming the file or the option that set it."""
        keys = key_path.split(".")
        prefixes = (".".join(keys[:length]) for length in range(len(keys), 0, -1))
        source = next((self._overrides[p] for p in prefixes if p in self._overrides), self.source)
        raise UserError(f"{source}: {key_path}: {problem}")

    def fail_combination(self, key_paths: Sequence[str], problem: str) -> NoReturn:
        """Raises the `UserError` of incompatible keys; names one that an option set, if any."""
        overridden = [path for path in key_paths if path in self._overrides]
        self.fail((overridden or key_paths)[0], problem)

    def build(self, cls: type, values: Any, key_path: str = "") -> Any:
        """Returns a `cls` dataclass of `values`; missing keys keep their defaults."""
        hints = typing.get_type_hints(cls, include_extras=True)
        values = self.section(values, key_path, hints)
        return cls(
            **{
                key: self.convert(value, hints[key], f"{key_path}.{key}".lstrip("."))
                for key, value in values.items()
            }
        )

    def section(self, values: Any, key_path: str, known: Iterable[str]) -> dict[str, Any]:
        """Returns `values` as a mapping whose keys are all among the `known` ones."""
        known = list(known)
        if values is None:  # a section whose lines are all commented out
            return {}
        if not isinstance(values, dict):
            self.fail(key_path, f"expected a section with {', '.join(known)}; got {_shown(values)}")
        for key in values:
            if key not in known:
                path = f"{key_path}.{key}".lstrip(".")
                self.fail(path, f"unknown key{did_you_mean(str(key), known)}")
        return values

    def convert(self, value: Any, expected: Any, key_path: str) -> Any:
        """Returns `value` as the type `expected`; see `_EXPECTED` for the simple types."""
        origin, arguments = typing.get_origin(expected), typing.get_args(expected)
        if isinstance(expected, type) and dataclasses.is_dataclass(expected):
            return self.build(expected, value, key_path)
        if origin is Annotated:
            number = self.convert(value, arguments[0], key_path)
            self._check_range(number, arguments[1:], key_path)
            return number
        if origin in (Union, types.UnionType):
            return self._convert_union(value, arguments, key_path)
        if origin is Literal:
            return self._convert_choice(value, arguments, key_path)
        if origin is tuple:
            return self._convert_list(value, arguments, key_path)
        if expected is float and isinstance(value, str) and _NUMBER_AS_TEXT.fullmatch(value):
            value = float(value)
        if expected is float and type(value) is int:
            value = float(value)
        if type(value) is not expected:
            self.fail(key_path, f"expected {_EXPECTED[expected]}, got {_shown(value)}")
        if expected is float and not math.isfinite(value):
            self.fail(key_path, f"expected a finite number, got {_shown(value)}")
        return value

    def _check_range(self, number: float, metadata: Iterable[Any], key_path: str) -> None:
        for limits in metadata:
            if isinstance(limits, Range) and number is not None and not limits.holds(number):
                self.fail(key_path, f"expected a number {limits}, got {number!r}")

    def _convert_union(self, value: Any, members: tuple, key_path: str) -> Any:
        if value is None and types.NoneType in members:
            return None
        members = tuple(member for member in members if member is not types.NoneType)
        if len(members) == 1:
            return self.convert(value, members[0], key_path)
        for member in members:
            try:
                return self.convert(value, member, key_path)
            except UserError:
                continue
        kinds = " or ".join(_EXPECTED.get(member, str(member)) for member in members)
        self.fail(key_path, f"expected {kinds}, got {_shown(value)}")

    def _convert_choice(self, value: Any, choices: tuple, key_path: str) -> Any:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            hint = did_you_mean(value, choices) if isinstance(value, str) else ""
            hint = hint if "did you mean" in hint else ""
            options = ", ".join(str(choice) for choice in choices)
            self.fail(key_path, f"expected one of {options}; got {_shown(value)}{hint}")
        return value

    def _convert_list(self, value: Any, arguments: tuple, key_path: str) -> tuple:
        open_ended = len(arguments) == 2 and arguments[1] is Ellipsis
        if not isinstance(value, (list, tuple)):
            self.fail(key_path, f"expected a list, got {_shown(value)}")
        if not open_ended and len(value) != len(arguments):
            self.fail(key_path, f"expected a list of {len(arguments)}, got {_shown(value)}")
        members = [arguments[0]] * len(value) if open_ended else arguments
        pairs = zip(value, members, strict=True)
        return tuple(self.convert(v, t, f"{key_path}.{i}") for i, (v, t) in enumerate(pairs))


_EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
}


def _shown(value: Any) -> str:
    """Returns a value as it is written in YAML or Python."""
    return "null" if value is None else repr(value)


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{source}: {line}{error.problem or 'not valid YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a date such as 2024-13-99, which YAML recognizes and Python refuses.
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None


def _parse_mapping(text: str, source: str) -> dict[str, Any]:
    values = _parse(text, source)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected `section: …` lines, got {values!r}")
    return values
