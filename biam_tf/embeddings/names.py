"""The rule by which a class name finds its embedding: the only one, used wherever names are read.

Vectors belong to whole names (rows of an .npz file or a .csv table, the classes of a run) or to
words (GloVe, fastText, word2vec), of which a name may have several. All text is compared in NFC.
The first step that finds something counts:

1. Whole name: as written, in lower case; then both without an id of Open Images, so that
   `Drum (/m/026t6)` is `Drum`.
2. Whole name, by its text (not among words): as text, in lower case, and without regard to case,
   separators, hyphens and ids on both sides, where that leaves one name. Text means: the signs
   `_ / , ; : & ! ? +`, brackets, quotation marks and full stops become spaces (within a number a
   full stop stays and the comma of thousands goes); in a name without spaces a capital after a
   small letter begins a new word (`PolarBear`). What stands in brackets stays, as it says which
   meaning is meant.
3. Words as written: all words between spaces are known as written or in lower case; a word that
   is not is divided at hyphens and underscores. The name is the mean of its words' vectors.
4. Phrase: the words of the text joined by underscores (`New_York`), as written, in lower case.
5. Words of the text: each as written, in lower case, without accents, in the singular, in the
   plural; failing that, divided at hyphens and apostrophes, where a possessive s goes. A word of
   grammar (`and`, `of`, `the`, …) that is not known is left out.

Anything else is missing, and so is the whole name: half of a name is another class. A misspelt
name is never guessed.

Steps 1 and 3 were the rule of training, the others that of `training.embed_classes`. Step 3 comes
before 4 and 5 so that names that training found before still have the same embedding: with `New`,
`York` and `New_York` known, `New York` is the mean of two words; `Kitchen & dining room` includes
`&` where the file has it. Where a name is looked up among a run's classes and in word vectors, each
spelling of step 1 is tried in both, the classes first, and step 2 in the classes.

`serving.graph.name_rule` is the same rule as TensorFlow operations; what both can use is
public here. tests/test_class_names_everywhere.py runs one table of names through every user.
"""

import collections
import dataclasses
import functools
import re
import unicodedata
from collections.abc import Collection, Container, Iterable, Iterator, Sequence

from biam_tf.errors import UserError, nearest_words

_NAMES_IN_AN_ERROR = 20
GRAMMAR = frozenset("a an and as at by for from in of on or the to with".split())

# Patterns that Python's `re` and RE2 read alike.
ID = r" \(/[mg]/[0-9A-Za-z_]+\)$"
SPACES = "[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"  # str.split's
_THOUSANDS = (r"([0-9]),([0-9]{3})", r"\1\2")
TEXT_STEPS = (
    _THOUSANDS,
    _THOUSANDS,  # again, for the second comma of 1,500,000, whose digit before is taken
    ('[_/,;:()\\[\\]{}"\u201c\u201d&!?+]+', " "),
    (r"\.\.+", " "),
    (r"\.([^0-9]|$)", r" \1"),
    (r"(^|[^0-9])\.", r"\1 "),
)
DIVIDERS = "[-_]+"
ACCENTS = "[\u0300-\u036f]+"  # of decomposed letters
KEY_DIVIDERS = "[-\u2013 ]+"
POSSESSIVE = "['\u2019]s?$"
INNER = "[-\u2013'\u2019]+"
# Of words in lower case without accents: the whole word matches, then the part is replaced.
SINGULARS = (
    (".{2,}ies", "ies$", "y"),
    (".{3,}es", "s$", ""),
    (".{3,}es", "es$", ""),
    (".{2,}[^es]s|..es", "s$", ""),
)
PLURALS = (  # only of words that are all letters
    (".+[^aeiou]y", "y$", "ies"),
    (".{2,}[sxz]|.+[cs]h", "$", "es"),
    (".{2,}[^sxzh]|.+[^cs]h", "$", "s"),
)


@dataclasses.dataclass(frozen=True)
class Words:
    """What a name was found by.

    Attributes:
        found: the spellings that have a vector; empty where `missing` is not.
        missing: the words that are not known.
        how: the steps that were needed, such as "lower case"; empty: as the name is written.
        row: of the whole name in `NameIndex`; None where it was found by words, or not at all.
    """

    found: tuple[str, ...]
    missing: tuple[str, ...]
    how: tuple[str, ...]
    row: int | None = None


class NameIndex:
    """Names that are embedded as a whole: rows of a table, the classes of a run.

    Args:
        names: in the order of their embeddings; of a repeated name the first counts.

    Attributes:
        rows: the row of each name, in NFC.
    """

    def __init__(self, names: Iterable[str] = ()):
        self.rows: dict[str, int] = {}
        for row, name in enumerate(names):
            self.rows.setdefault(normalize(name), row)

    @functools.cached_property
    def rows_by_key(self) -> dict[str, int]:
        """The row of each name by `table_key`, where only one name has that key."""
        keys = [table_key(name) for name in self.rows]
        counts = collections.Counter(keys)
        rows = zip(keys, self.rows.values(), strict=True)
        return {key: row for key, row in rows if counts[key] == 1}


NO_NAMES = NameIndex()


def normalize(name: str) -> str:
    """Returns a name in Unicode's form NFC, in which names are compared."""
    return unicodedata.normalize("NFC", name)


def readable(name: str) -> str:
    """Returns the text of a class name (step 2 of the rule), without an id of Open Images."""
    return _text(_without_id(normalize(name)))


def table_key(name: str) -> str:
    """Returns what names have in common that differ in case, separators, hyphens or id only."""
    text = _lower(readable(name))
    return re.sub(KEY_DIVIDERS, " ", text)


def spellings(name: str) -> Iterator[str]:
    """Yields every word that `look_up` may ask for, so that a file is read only once."""
    yield from (spelling for spelling, _ in _whole(name))
    name = _without_id(normalize(name))
    yield from (spelling for spelling, _ in _phrases(name))
    for word in name.split():
        for part in (word, *_parts(DIVIDERS, word)):
            yield from (spelling for spelling, _ in _cases(part))
    for word in _text(name).split():
        for part in (word, *_inner_parts(word)):
            yield from (spelling for spelling, _ in _forms(part))


def look_up(name: str, words: Container[str] | None, names: NameIndex = NO_NAMES) -> Words:
    """Looks up a class name by the rule of this module.

    Args:
        name: the class name.
        words: the words that have a vector, in NFC; None: there are only whole names.
        names: names that are embedded as a whole.

    Returns:
        What the name was found by, or what is missing: of words those that are not known, the
        name itself where `words` is None.
    """
    for spelling, how in _whole(name):
        if spelling in names.rows:
            return Words((spelling,), (), how, names.rows[spelling])
        if words is not None and spelling in words:
            return Words((spelling,), (), how)
    bare = _without_id(normalize(name))
    text = _text(bare)
    for spelling in (text, _lower(text)):
        if spelling in names.rows:
            return Words((spelling,), (), ("as text",), names.rows[spelling])
    if (row := names.rows_by_key.get(table_key(name))) is not None:
        return Words((table_key(name),), (), ("as text",), row)
    if words is None:
        return Words((), (name,), ())
    if (found := _words_as_written(bare, words)) is not None:
        return found
    for spelling, how in _phrases(bare):
        if spelling in words:
            return Words((spelling,), (), how)
    return _words_of_text(text, words)


def refuse_missing(
    names: Sequence[str],
    found: Sequence[Words],
    known: Collection[str],
    problem: str,
    way_out: str = "correct these or leave them out",
) -> None:
    """Raises one error for all names of which something is missing.

    Args:
        names: C class names.
        found: C results of `look_up`.
        known: names or words to suggest.
        problem: begins the message, such as "vectors.txt: no word vector".
        way_out: what to do about it.

    Raises:
        UserError: a name was not found.
    """
    missing = [
        (name, words.missing[0]) for name, words in zip(names, found, strict=True) if words.missing
    ]
    if not missing:
        return
    lines = []
    for name, word in missing[:_NAMES_IN_AN_ERROR]:
        nearest = ", ".join(map(repr, nearest_words(word, known)))
        lines.append(
            f"  {name!r}"
            + (f": the word {word!r}" if word != name else "")
            + (f" (nearest: {nearest})" if nearest else "")
        )
    if len(missing) > _NAMES_IN_AN_ERROR:
        lines.append(f"  and {len(missing) - _NAMES_IN_AN_ERROR} more")
    raise UserError(
        f"{problem} for {len(missing)} of {len(names)} class names; {way_out}:\n" + "\n".join(lines)
    )


def _words_as_written(name: str, words: Container[str]) -> Words | None:
    """Step 3; None where a word is not known."""
    found: list[str] = []
    steps = ["word by word"] * (len(_parts(r"[\s_]+", name)) > 1)
    for word in name.split():
        parts = [word]
        if _first(_cases(word), words) is None:
            parts = _parts(DIVIDERS, word)
            steps += ["divided"] * ("-" in word)
        if not parts:
            return None
        for part in parts:
            if (form := _first(_cases(part), words)) is None:
                return None
            found.append(form[0])
            steps += form[1]
    return Words(tuple(found), (), tuple(dict.fromkeys(steps))) if found else None


def _words_of_text(text: str, words: Container[str]) -> Words:
    """Step 5."""
    found: list[str] = []
    missing: list[str] = []
    grammar: list[str] = []
    steps = ["word by word"] * (len(text.split()) > 1)
    for word in text.split():
        parts = [word]
        if _first(_forms(word), words) is None and _inner_parts(word) not in ([], [word]):
            parts = _inner_parts(word)
            steps += ["divided"]
        for part in parts:
            if (form := _first(_forms(part), words)) is not None:
                found.append(form[0])
                steps += form[1]
            elif part.lower() in GRAMMAR:
                grammar.append(part)
                steps += ["without words of grammar"]
            else:
                missing.append(part)
    if missing or not found:
        return Words((), tuple(missing or grammar or [text]), tuple(dict.fromkeys(steps)))
    return Words(tuple(found), (), tuple(dict.fromkeys(steps)))


_Spelling = tuple[str, tuple[str, ...]]  # and what was done to the name


def _whole(name: str) -> Iterator[_Spelling]:
    name = normalize(name)
    yield from _cases(name)
    if (bare := _without_id(name)) != name:
        yield from ((spelling, ("without id", *how)) for spelling, how in _cases(bare))


def _phrases(name: str) -> Iterator[_Spelling]:
    phrase = "_".join(_text(name).split())
    yield from ((spelling, ("phrase", *how)) for spelling, how in _cases(phrase))


def _cases(word: str) -> Iterator[_Spelling]:
    yield word, ()
    yield _lower(word), ("lower case",)


def _forms(word: str) -> Iterator[_Spelling]:
    yield from _cases(word)
    plain = re.sub(ACCENTS, "", unicodedata.normalize("NFD", _lower(word)))
    yield normalize(plain), ("without accents",)
    for number, changes in (("singular", SINGULARS), ("plural", PLURALS * plain.isalpha())):
        for whole, part, replacement in changes:
            if re.fullmatch(whole, plain):
                yield normalize(re.sub(part, replacement, plain)), (number,)


def _first(spelled: Iterable[_Spelling], words: Container[str]) -> _Spelling | None:
    return next((spelling for spelling in spelled if spelling[0] in words), None)


def _without_id(name: str) -> str:
    return re.sub(ID, "", name)


def _text(name: str) -> str:
    text = name
    for pattern, replacement in TEXT_STEPS:
        text = re.sub(pattern, replacement, text)
    words = text.split()
    if len(words) == 1:
        words = _divide_camel_case(words[0]).split()
    return " ".join(words) or name


def _lower(text: str) -> str:
    return normalize(text.lower())


def _parts(divider: str, word: str) -> list[str]:
    return [part for part in re.split(divider, word) if part]


def _inner_parts(word: str) -> list[str]:
    return _parts(INNER, re.sub(POSSESSIVE, "", word))


def _divide_camel_case(word: str) -> str:
    """Puts a space before each capital after a small letter, which may have accents."""
    divided, previous = "", ""
    for letter in unicodedata.normalize("NFD", word):
        category = unicodedata.category(letter)
        divided += " " * (previous == "Ll" and category == "Lu") + letter
        previous = previous if category.startswith("M") else category
    return normalize(divided)
