"""How a class name becomes words: NUS-WIDE's tags, Open Images' display names, and the like.

Data sets spell their classes for machines (`polar_bear`, `PolarBear`, `Ford falcon (australian
version)`), word vectors and sentence encoders know text. The rule, in this order:

1. Text: underscores, slashes, commas, brackets, quotation marks, `&` and full stops become
   spaces (within a number a full stop stays, a comma goes); in a name without spaces a capital
   after a small letter begins a new word. What stands in brackets stays, as it says which meaning
   is meant. Letters keep their accents, a hyphen stays.
2. The whole name is looked up as it is, in lower case, and as a phrase (`New_York`).
3. Failing that, each word: as the name spells it, in lower case, and without accents.
4. A word with a hyphen or an apostrophe that is not known is divided there; a possessive s goes.
5. A word that is still not known is tried in the singular or the plural.
6. A word of grammar (`and`, `of`, `the`, …) that is not known is left out: word2vec's Google News
   vectors have none.

Anything else is missing, and so is the whole name: half of a name is another class.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Container, Iterator

GRAMMAR = frozenset("a an and as at by for from in of on or the to with".split())

_SEPARATORS = re.compile(r"[_/,;:()\[\]{}\"\u201c\u201d&!?+]+|\.(?!\d)|(?<!\d)\.")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_CAMEL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])")
_INNER = re.compile(r"[-\u2013'\u2019]+")
_POSSESSIVE = re.compile(r"['\u2019]s?$")


@dataclasses.dataclass(frozen=True)
class Words:
    """The words that a name was looked up by.

    Attributes:
        found: their spellings in the file; empty where `missing` is not.
        missing: the words that the file lacks.
        how: the steps that were needed, such as "lower case"; empty: as the name is spelled.
    """

    found: tuple[str, ...]
    missing: tuple[str, ...]
    how: tuple[str, ...]


def readable(name: str) -> str:
    """Returns a class name as a person would write it: step 1 of the rule."""
    name = _THOUSANDS.sub("", unicodedata.normalize("NFC", name))
    words = _SEPARATORS.sub(" ", name).split()
    if len(words) == 1:
        words = _CAMEL.sub(" ", words[0]).split()
    return " ".join(words) or name


def spellings(name: str) -> Iterator[str]:
    """Yields everything that `look_up` may ask for, so that one reading of a file is enough."""
    yield from (spelling for spelling, _ in _whole(name))
    for word in readable(name).split():
        for part in (word, *_pieces(word)):
            yield from (spelling for spelling, _ in _forms(part))


def look_up(name: str, known: Container[str]) -> Words:
    """Returns the words of a name by the rule of this module.

    Args:
        name: the class name.
        known: the words that have a vector.
    """
    for spelling, how in _whole(name):
        if spelling in known:
            return Words((spelling,), (), how)
    found: list[str] = []
    missing: list[str] = []
    steps: dict[str, None] = {}
    words = readable(name).split()
    if len(words) > 1:
        steps["word by word"] = None
    for word in words:
        parts = [word]
        if _known_form(word, known) is None and _pieces(word) not in ([], [word]):
            parts = _pieces(word)
            steps["divided"] = None
        for part in parts:
            form = _known_form(part, known)
            if form is not None:
                found.append(form[0])
                steps |= dict.fromkeys([form[1]] if form[1] else [])
            elif part.lower() in GRAMMAR:
                steps["without words of grammar"] = None
            else:
                missing.append(part)
    if missing or not found:
        return Words((), tuple(missing or words or [name]), tuple(steps))
    return Words(tuple(found), (), tuple(steps))


def _whole(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    phrase = "_".join(readable(name).split())
    yield name, ()
    yield name.lower(), ("lower case",)
    yield phrase, ("phrase",)
    yield phrase.lower(), ("phrase", "lower case")


def _known_form(word: str, known: Container[str]) -> tuple[str, str] | None:
    return next((form for form in _forms(word) if form[0] in known), None)


def _pieces(word: str) -> list[str]:
    return [piece for piece in _INNER.split(_POSSESSIVE.sub("", word)) if piece]


def _forms(word: str) -> Iterator[tuple[str, str]]:
    """Yields the spellings a word is tried by, best first, each with what was done to it."""
    lower = word.lower()
    plain = "".join(
        letter
        for letter in unicodedata.normalize("NFD", lower)
        if not unicodedata.combining(letter)
    )
    yield word, ""
    yield lower, "lower case"
    yield plain, "without accents"
    for singular in _singulars(plain):
        yield singular, "singular"
    for plural in _plurals(plain):
        yield plural, "plural"


def _singulars(word: str) -> Iterator[str]:
    if len(word) > 4 and word.endswith("ies"):
        yield word[:-3] + "y"
    if len(word) > 4 and word.endswith("es"):
        yield word[:-1]
        yield word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]


def _plurals(word: str) -> Iterator[str]:
    if len(word) < 3 or not word.isalpha():
        return
    if word.endswith("y") and word[-2] not in "aeiou":
        yield word[:-1] + "ies"
    yield word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
