"""YAML files into frozen dataclasses, with errors that name file, key path, value and remedy.

A setting that is text takes what is written: `2024`, `no` and `12:30` are not read as YAML's
numbers, and the value of a `--set` option is not read as YAML at all, so that ` #3` in it is no
comment. The type of the setting decides, and so both readings of a value are kept until then.
"""

import dataclasses
import math
import os
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
# YAML 1.1 reads 010 as 8 and 12:30 as 750, which nobody means: for numbers they are mistakes.
_MISLEADING_NUMBER = re.compile(r"[-+]?0[0-9_]+|.*:.*")
_QUOTED = re.compile(r"""'([^']|'')*'|"([^"\\]|\\.)*\"""", re.DOTALL)
_NULL = ("", "null", "Null", "NULL")


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


@dataclasses.dataclass(frozen=True)
class _Written:
    """A value as it is written, for settings that are text, and as YAML reads it, for others.

    Attributes:
        text: what is written.
        read: what YAML makes of it, or the `UserError` that says why it makes nothing of it.
        is_null: whether it means that an optional text is left out.
    """

    text: str
    read: Any
    is_null: bool

    @property
    def value(self) -> Any:
        if isinstance(self.read, UserError):
            raise self.read
        return self.read


def _plain(value: Any) -> Any:
    """Returns a value as YAML reads it."""
    return value.value if isinstance(value, _Written) else value


class _Loader(yaml.SafeLoader):
    """The safe loader with scalars as `_Written`, and an error for a key that is given twice.

    By itself it would silently use the last of two equal keys.
    """

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
        mapping = super().construct_mapping(node, deep)
        return {_plain(key): value for key, value in mapping.items()}

    def construct_written(self, node: yaml.ScalarNode) -> _Written:
        """Constructs a scalar that YAML does not read as text."""
        try:
            read = yaml.SafeLoader.yaml_constructors[node.tag](self, node)
        except ValueError:  # a date such as 2024-13-99
            read = node.value
        if isinstance(read, (int, float)) and _MISLEADING_NUMBER.fullmatch(node.value):
            read = node.value
        return _Written(node.value, read, read is None)


for _tag in ("null", "bool", "int", "float", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_written)


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
        """Applies one `a.b.c=value`.

        A setting that is text takes the value as it is, without spaces around it and without
        quotes around the whole of it; all others read it as YAML.

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
            section[key] = _plain(section.get(key))
            if section[key] is None:
                section[key] = {}
            if not isinstance(section[key], dict):
                before = ".".join(keys[:depth])
                raise UserError(f"{option}: {before} is a single value, not a section")
            section = section[key]
        section[last] = _written(text, option)
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

    @staticmethod
    def plain(value: Any) -> Any:
        """Returns a value as YAML reads it; that of a mapping's members is left to `convert`.

        Raises:
            UserError: it is the value of an option and not valid YAML.
        """
        return _plain(value)

    def section(self, values: Any, key_path: str, known: Iterable[str]) -> dict[str, Any]:
        """Returns `values` as a mapping whose keys are all among the `known` ones."""
        known, values = list(known), _plain(values)
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
        """Returns `value` as the type `expected`; see `_EXPECTED` for the simple types.

        In text, `~` and `~user` at the beginning are replaced by that home folder.
        """
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
            return self._convert_list(_plain(value), arguments, key_path)
        if expected is str and isinstance(value, _Written) and not value.is_null:
            value = value.text
        value = _plain(value)
        if expected is float and isinstance(value, str) and _NUMBER_AS_TEXT.fullmatch(value):
            value = float(value)
        if expected is float and type(value) is int:
            value = float(value)
        if type(value) is not expected:
            self.fail(key_path, f"expected {_EXPECTED[expected]}, got {_shown(value)}")
        if expected is float and not math.isfinite(value):
            self.fail(key_path, f"expected a finite number, got {_shown(value)}")
        return os.path.expanduser(value) if expected is str else value

    def _check_range(self, number: float, metadata: Iterable[Any], key_path: str) -> None:
        for limits in metadata:
            if isinstance(limits, Range) and number is not None and not limits.holds(number):
                self.fail(key_path, f"expected a number {limits}, got {number!r}")

    def _convert_union(self, value: Any, members: tuple, key_path: str) -> Any:
        if types.NoneType in members and _is_null(value, str in members):
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
        if isinstance(value, _Written) and value.text in choices:
            return value.text
        value = _plain(value)
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
    value = _without_texts(value)
    return "null" if value is None else repr(value)


def _without_texts(value: Any) -> Any:
    """Returns a value as YAML reads it, in all its depth."""
    value = _plain(value)
    if isinstance(value, dict):
        return {key: _without_texts(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_without_texts(member) for member in value]
    return value


def _is_null(value: Any, is_text: bool) -> bool:
    if is_text and isinstance(value, _Written):
        return value.is_null
    return _plain(value) is None


def _written(text: str, option: str) -> _Written:
    """Returns the value of an option."""
    text = text.strip()
    try:
        read = _plain(_parse(text, option))
    except UserError as error:
        read = error
    if isinstance(read, str) and _QUOTED.fullmatch(text):
        return _Written(read, read, False)
    return _Written(text, read, text in _NULL)


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = error.problem or "not valid YAML"
        if re.search("not allowed here|cannot start|undefined alias|constructor for", problem):
            problem += "; text that has ': ' or begins with one of @ % * & ! needs quotes"
        raise UserError(f"{source}: {line}{problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None


def _parse_mapping(text: str, source: str) -> dict[str, Any]:
    try:
        values = _plain(_parse(text, source))
    except RecursionError:
        raise UserError(f"{source}: nested too deeply to be a configuration file") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected `section: …` lines, got {_shown(values)}")
    return values
