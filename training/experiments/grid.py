"""A grid of settings, as it is written on a command line: `key=value,value`, several times."""

import dataclasses
import itertools
import re
import zlib
from collections.abc import Sequence

from biam_tf.errors import UserError
from training.experiments.trials import Trial

# What a sweep decides itself, and with which option.
DECIDED_ELSEWHERE = {"output": "--output", "training.seed": "--seeds"}
OPENING, CLOSING, QUOTES = "[{(", "]})", "'\""


@dataclasses.dataclass(frozen=True)
class GridKey:
    """One axis of a grid.

    Attributes:
        key: the setting's path, as in `head.top_k`.
        label: a shorter name for tables and plots, unique within the grid.
        values: the texts of its values, as they were given.
    """

    key: str
    label: str
    values: tuple[str, ...]


def parse_grid(options: Sequence[str]) -> tuple[GridKey, ...]:
    """Returns the axes of a grid.

    Args:
        options: `key=value,value,…` each; commas inside brackets or quotes belong to a value.

    Raises:
        UserError: an option is not of that form, a key or a value comes twice, or the key is
            one that a sweep decides itself.
    """
    axes: dict[str, tuple[str, ...]] = {}
    for option in options:
        key, equals, text = option.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--grid {option}: expected a key and values, as in head.top_k=5,10")
        if key in DECIDED_ELSEWHERE:
            raise UserError(f"--grid {option}: {key} is decided by {DECIDED_ELSEWHERE[key]}")
        if key in axes:
            raise UserError(f"--grid {option}: {key} is given twice; name all its values in one")
        axes[key] = _distinct(split_values(text, option), option)
    last = [key.rpartition(".")[2] for key in axes]
    labels = [name if last.count(name) == 1 else key for key, name in zip(axes, last, strict=True)]
    return tuple(
        GridKey(key, label, values)
        for (key, values), label in zip(axes.items(), labels, strict=True)
    )


def split_values(text: str, option: str) -> list[str]:
    """Splits at the commas that stand in no bracket and no quotes.

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
                raise UserError(f"--grid {option}: {character!r} closes nothing")
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
    larger grid, or one written in another order, finds what an earlier one has trained.
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
    """One text for a number however it is written: 1e-3 is 0.001."""
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
    # What was replaced would make equal names of different values.
    return f"{slug}-{zlib.crc32(value.encode()):08x}".lstrip("-")
