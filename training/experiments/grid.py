"""A grid of settings, given on a command line as several `key=value,value`."""

import dataclasses
import itertools
import re
import zlib
from collections.abc import Sequence

from biam_tf.errors import UserError
from training.config import load_config

# Settings with an option of their own.
OTHER_OPTIONS = {"output": "--output", "training.seed": "--seeds"}
OPENING, CLOSING, QUOTES = "[{(", "]})", "'\""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One of the settings that are compared.

    Attributes:
        name: in tables.
        folder: prefix of its runs' folders.
        settings: the `key=value` overrides in which it differs from the others.
    """

    name: str
    folder: str
    settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class GridKey:
    """One axis of a grid.

    Attributes:
        key: path of the setting, such as `head.top_k`.
        label: shorter name for tables and plots, unique within the grid.
        values: its values, as they were given.
    """

    key: str
    label: str
    values: tuple[str, ...]


def parse_grid(options: Sequence[str]) -> tuple[GridKey, ...]:
    """Returns the axes of a grid.

    Args:
        options: `key=value,value,…` each; commas inside brackets or quotes belong to a value.

    Raises:
        UserError: an option has another form, a key or a value is repeated, or the setting has an
            option of its own.
    """
    axes: dict[str, tuple[str, ...]] = {}
    for option in options:
        key, equals, text = option.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--grid {option}: expected a key and values, as in head.top_k=5,10")
        if key in OTHER_OPTIONS:
            raise UserError(f"--grid {option}: {key} is set by {OTHER_OPTIONS[key]}")
        if key in axes:
            raise UserError(f"--grid {option}: {key} is given twice; give all its values at once")
        axes[key] = _distinct(split_values(text, option), option)
    last = [key.rpartition(".")[2] for key in axes]
    labels = [name if last.count(name) == 1 else key for key, name in zip(axes, last, strict=True)]
    return tuple(
        GridKey(key, label, values)
        for (key, values), label in zip(axes.items(), labels, strict=True)
    )


def split_values(text: str, option: str) -> list[str]:
    """Splits at the commas outside brackets and quotes.

    Raises:
        UserError: a value is empty, or a bracket or quote is not closed.
    """
    values, open_brackets, quote = [""], [], ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES:
            quote = character
        elif character in OPENING:
            open_brackets.append(CLOSING[OPENING.index(character)])
        elif character in CLOSING:
            if not open_brackets or open_brackets.pop() != character:
                raise UserError(f"--grid {option}: {character!r} has no opening bracket")
        elif character == "," and not open_brackets:
            values.append("")
            continue
        values[-1] += character
    if quote or open_brackets:
        missing = quote or open_brackets[-1]
        raise UserError(f"--grid {option}: {missing!r} is missing at the end")
    values = [value.strip() for value in values]
    if "" in values:
        raise UserError(f"--grid {option}: value {values.index('') + 1} is empty")
    return values


def expand(axes: Sequence[GridKey]) -> list[Trial]:
    """Returns a trial for every combination; the last key varies fastest.

    Folders are named by the settings alone, with the keys in alphabetical order, so that a
    larger grid, or one in another order, finds the runs of an earlier one.
    """
    trials = []
    for values in itertools.product(*(axis.values for axis in axes)):
        pairs = list(zip(axes, values, strict=True))
        trials.append(
            Trial(
                name=", ".join(f"{axis.label} {value}" for axis, value in pairs),
                folder="_".join(
                    f"{axis.key}-{_slug(value)}"
                    for axis, value in sorted(pairs, key=lambda pair: pair[0].key)
                ),
                settings=tuple(f"{axis.key}={value}" for axis, value in pairs),
            )
        )
    return trials


def _distinct(values: Sequence[str], option: str) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for value in values:
        same = seen.setdefault(_canonical(value), value)
        if same is not value:
            raise UserError(f"--grid {option}: {same} and {value} are the same value")
    return tuple(values)


def _canonical(value: str) -> str:
    """One text for all spellings of a number: 0.001 for 1e-3."""
    for kind in (int, float):
        try:
            return repr(kind(value))
        except ValueError:
            continue
    return value


def _slug(value: str) -> str:
    value = _canonical(value)
    slug = re.sub(r"[^A-Za-z0-9.+-]+", "-", value).strip("-.")
    if slug == value:
        return slug
    # Replaced characters could give different values the same name.
    return f"{slug}-{zlib.crc32(value.encode()):08x}".lstrip("-")


def require_usable(trials: Sequence[Trial], config: str | None, settings: Sequence[str]) -> None:
    """Raises the first `UserError` if the settings of no trial can be used."""
    errors = []
    for trial in trials:
        try:
            load_config(config, [*settings, *trial.settings])
            return
        except UserError as error:
            errors.append(error)
    if errors:
        raise errors[0]
