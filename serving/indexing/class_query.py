"""Searches of several classes joined by `and`, `or` and `not`.

    query:  all { "or" all }
    all:    one { "and" one }
    one:    "not" one  |  "(" query ")"  |  NAME

A NAME is words, such as `red car`, or any text in double quotes: a name that contains `and`, `or`,
`not`, a comma or a bracket is quoted, such as `"salt and pepper"`. The three words may be written
in capitals; `not` is done first, then `and`, then `or`.
"""

import dataclasses
import re
from collections.abc import Callable, Collection

import numpy as np

from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError

_TOKEN = re.compile(r'\s*(?:(?P<quoted>"[^"]*")|(?P<sign>[()",;])|(?P<word>[^\s()",;]+))')
_OPERATORS = ("and", "or", "not")
_DEEPEST = 50  # brackets in each other
_SHOWN = 200  # characters of a query in messages
_LONGEST_NAME = 8  # words of a class name that is looked for among the words of a query

# Values or decisions of the classes, (C, n), to those of the query, (n,).
_Evaluate = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassQuery:
    """Classes joined by `and`, `or` and `not`.

    Attributes:
        text: the query as it was typed.
        names: C class names, each once, in their order.
        spans: where each mention of a name is in the text: (start, end, name).
        wanted: places in `names` of the classes that are not under a `not`.
    """

    text: str
    names: tuple[str, ...]
    spans: tuple[tuple[int, int, str], ...]
    wanted: tuple[int, ...]
    _evaluate: _Evaluate

    @classmethod
    def parse(cls, text: str, known: Collection[str] = ()) -> "ClassQuery":
        """Reads a query.

        Args:
            text: the query.
            known: names of the model's classes, normalized: one that contains `and`, `or` or `not`
                must be quoted, so that it is not taken for several classes by mistake.

        Raises:
            UserError: the text is no query; the message says where and why.
        """
        return _Parser(text, known).query()

    @property
    def is_single(self) -> bool:
        """Whether the query is a class name alone."""
        return len(self.names) == 1 and float(self._evaluate(np.ones((1, 1)))[0]) > 0

    def holds(self, decisions: np.ndarray) -> np.ndarray:
        """Returns whether the query holds, (n,) bool, for the classes' decisions (n, C) bool."""
        return self._evaluate(np.where(np.asarray(decisions, bool), 1.0, -1.0).T) > 0

    def value(self, values: np.ndarray) -> np.ndarray:
        """Returns the value of the query (n,) from those of its classes (n, C).

        That of `and` is the smallest, of `or` the largest, of `not` the negative value. Where the
        values of classes are positive if they are decided, so is that of the query.
        """
        return self._evaluate(np.asarray(values).T)

    def replaced(self, name: str, other: str | None) -> str:
        """Returns the text with `other` in the places of a name; None: a quoted empty name."""
        text, end = "", 0
        for start, stop, own in self.spans:
            if own == name:
                text += self.text[end:start] + quoted(other or "")
                end = stop
        return text + self.text[end:]


def quoted(name: str) -> str:
    """Returns a name as it is written in a query: quoted if it needs to be."""
    plain = name and not re.search(r'[()",;]', name)
    return name if plain and not set(name.lower().split()) & {*_OPERATORS} else f'"{name}"'


class _Parser:
    def __init__(self, text: str, known: Collection[str]) -> None:
        self._text, self._known = text, known
        self._tokens = [match for match in _TOKEN.finditer(text) if match[0].strip()]
        self._next = 0
        self._names: dict[str, int] = {}
        self._spans: list[tuple[int, int, str]] = []
        self._wanted: set[int] = set()
        self._negative = False
        self._depth = 0

    def query(self) -> ClassQuery:
        if not self._tokens:
            raise UserError("the query is empty; name a class")
        self._refuse_signs()
        self._refuse_known_names()
        evaluate = self._any()
        if self._next < len(self._tokens):
            raise self._error("expected 'and', 'or' or the end")
        wanted = tuple(sorted(self._wanted))
        return ClassQuery(self._text, tuple(self._names), tuple(self._spans), wanted, evaluate)

    def _any(self) -> _Evaluate:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return _joined(np.maximum.reduce, parts)

    def _all(self) -> _Evaluate:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return _joined(np.minimum.reduce, parts)

    def _one(self) -> _Evaluate:
        before, negative = self._negative, False
        while self._take("not"):
            negative = not negative
        self._negative = before != negative
        if self._take("("):
            self._depth += 1
            if self._depth > _DEEPEST:
                raise self._error(f"more than {_DEEPEST} brackets in each other", self._next - 1)
            inner = self._any()
            if not self._take(")"):
                raise self._error("expected ')'")
            self._depth -= 1
        else:
            inner = self._name()
        self._negative = before
        return (lambda values: -inner(values)) if negative else inner

    def _name(self) -> _Evaluate:
        first = self._next
        while self._next < len(self._tokens) and self._is_word(self._next):
            self._next += 1
        if first == self._next and first < len(self._tokens) and self._tokens[first]["quoted"]:
            self._next += 1
        if first == self._next:
            raise self._error("expected the name of a class")
        start = self._start(first)
        end = self._tokens[self._next - 1].end()
        name = normalize(" ".join(self._text[start:end].strip('"').split()))
        if not name:
            raise self._error("expected a name between the quotes", first)
        self._spans.append((start, end, name))
        row = self._names.setdefault(name, len(self._names))
        if not self._negative:
            self._wanted.add(row)
        return lambda values: values[row]

    def _is_word(self, place: int) -> bool:
        word = self._tokens[place]["word"]
        return word is not None and word.lower() not in _OPERATORS

    def _take(self, sign: str) -> bool:
        if self._next == len(self._tokens):
            return False
        token = self._tokens[self._next]
        if (token["word"] or token["sign"] or "").lower() != sign:
            return False
        self._next += 1
        return True

    def _start(self, place: int) -> int:
        token = self._tokens[place]
        return token.end() - len(token[0].lstrip())

    def _error(self, expected: str, place: int | None = None) -> UserError:
        place = self._next if place is None else place
        text = self._text if len(self._text) <= _SHOWN else f"{self._text[:_SHOWN]}…"
        if place >= len(self._tokens):
            return UserError(f"{text!r}: {expected} at the end")
        at = self._start(place)
        return UserError(f"{text!r}: {expected} at {self._text[at:][:20]!r}")

    def _refuse_signs(self) -> None:
        for place, token in enumerate(self._tokens):
            if token["sign"] == '"':
                raise self._error("a quote that is not closed", place)
            if token["sign"] in (",", ";"):
                raise self._error(
                    "join classes by 'and' or 'or', and quote a name that contains a comma;", place
                )

    def _refuse_known_names(self) -> None:
        for first in range(len(self._tokens)):
            for end in range(first + 2, min(first + _LONGEST_NAME, len(self._tokens)) + 1):
                words = [token["word"] for token in self._tokens[first:end]]
                if None in words or not {word.lower() for word in words} & {*_OPERATORS}:
                    continue
                name = normalize(" ".join(words))
                if name in self._known:
                    raise UserError(
                        f'{self._text!r}: {name!r} is the name of a class: write "{name}", or put '
                        "brackets around its parts if they are meant"
                    )


def _joined(reduce: Callable[..., np.ndarray], parts: list[_Evaluate]) -> _Evaluate:
    if len(parts) == 1:
        return parts[0]
    return lambda values: reduce([part(values) for part in parts])
