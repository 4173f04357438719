"""What a tokenizer of BERT does, read from it: its tokens, and what it makes of each character.

Characters are asked of the tokenizer itself, one by one, so that the tables agree with it, whatever
version of Unicode it was made with.
"""

import collections
import dataclasses
import functools
import json
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from biam_tf.errors import UserError

# What a character becomes: these, or a row of a table.
ITSELF, NOTHING, DIVIDES, BETWEEN_SPACES, FIRST_ROW = range(5)
# What a character is to the division into words; of a mark, its canonical class is added.
LETTER, SPACE, ALONE, FIRST_MARK = range(4)
PAGE = 256
CODES = 0x110000
SPECIAL_TOKENS = 256  # at most
# Pages of characters from here on are asked about as a whole first: most are all kept or removed.
_MOSTLY_EMPTY = 0x32000


@dataclasses.dataclass(frozen=True)
class WordPieceRules:
    """What a tokenizer does, read from it.

    Attributes:
        tokens: all tokens with their numbers.
        special: those that are found in a text as they are written.
        unknown: number of the token of unknown words.
        before: numbers of the tokens in front of each text.
        after: numbers of those behind it.
        longest_text: tokens of a text at most, with those.
        longest_word: characters of a word that is known at most.
        continues: begins tokens inside a word: `##`.
    """

    tokens: dict[str, int]
    special: dict[str, int]
    unknown: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    longest_text: int
    longest_word: int
    continues: str

    @classmethod
    def of(cls, tokenizer: Any) -> "WordPieceRules":
        """Reads a tokenizer of the library `tokenizers`.

        Raises:
            UserError: it is not BERT's, or keeps accents.
        """
        made = json.loads(tokenizer.to_str())
        model, normalizer = made["model"], made["normalizer"] or {}
        _require_kind(made, "model", "WordPiece")
        _require_kind(made, "pre_tokenizer", "BertPreTokenizer")
        _require_kind(made, "normalizer", "BertNormalizer")
        strips = normalizer.get("strip_accents")
        if not (normalizer["lowercase"] if strips is None else strips):
            raise _refused("it keeps accents")
        if not normalizer["clean_text"]:
            raise _refused("it keeps control characters")
        special = {}
        for token in made["added_tokens"]:
            if any(token[key] for key in ("normalized", "single_word", "lstrip", "rstrip")):
                raise _refused(f"its token {token['content']!r} is matched by a rule of its own")
            special[token["content"]] = token["id"]
        if len(special) > SPECIAL_TOKENS:
            raise _refused(
                f"it has {len(special)} special tokens; at most {SPECIAL_TOKENS} are supported"
            )
        unknown = tokenizer.token_to_id(model["unk_token"])
        if unknown is None:
            raise _refused(f"it has no token {model['unk_token']!r}")
        before, after = _tokens_around(tokenizer)
        return cls(
            tokens=dict(model["vocab"]),
            special=special,
            unknown=unknown,
            before=before,
            after=after,
            longest_text=tokenizer.truncation["max_length"],
            longest_word=model["max_input_chars_per_word"],
            continues=model["continuing_subword_prefix"],
        )


def _require_kind(made: dict[str, Any], part: str, kind: str) -> None:
    found = (made[part] or {}).get("type")
    if found != kind:
        raise _refused(f"its {part} is {found or 'none'}, not {kind}")


def _refused(reason: str) -> UserError:
    return UserError(f"this tokenizer can't be a part of an exported model: {reason}")


def _tokens_around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    alone = tuple(tokenizer.encode("").ids)
    for count in range(len(alone) + 1):
        pair = tuple(tokenizer.encode("a").ids)
        inner = len(pair) - len(alone)
        if inner > 0 and pair[:count] + pair[count + inner :] == alone:
            whole = tuple(tokenizer.encode("a", add_special_tokens=False).ids)
            if pair[count : count + inner] == whole:
                return alone[:count], alone[count:]
    raise _refused("the tokens that it adds to a text are not in front of it and behind it")


@dataclasses.dataclass(frozen=True)
class CharacterTables:
    """What a tokenizer makes of characters, by their codes.

    Attributes:
        becomes: `NOTHING`, …, or a row plus `FIRST_ROW`; `ITSELF` is left out.
        rows: several characters, or another one.
        kinds: of the characters that are left: `SPACE`, …; `LETTER` is left out.
    """

    becomes: dict[int, int]
    rows: list[tuple[int, ...]]
    kinds: dict[int, int]


_TABLES: dict[str, CharacterTables] = {}


def character_tables(tokenizer: Any) -> CharacterTables:
    """Asks a tokenizer of the library `tokenizers` about every character.

    Takes some seconds, but only once in a process for all tokenizers with the same rules.
    """
    made = json.loads(tokenizer.to_str())
    rules = json.dumps([made["normalizer"], made["pre_tokenizer"]])
    if rules not in _TABLES:
        _TABLES[rules] = _ask(tokenizer)
    return _TABLES[rules]


def _ask(tokenizer: Any) -> CharacterTables:
    normalize = tokenizer.normalizer.normalize_str
    becomes: dict[int, int] = {}
    rows: dict[tuple[int, ...], int] = {}
    left: set[str] = set()
    for code in _codes_to_ask(normalize, becomes):
        character = chr(code)
        found = normalize(character)
        left.update(found)
        if found == character:
            continue
        if not found:
            becomes[code] = NOTHING
        elif found == f" {character} ":
            becomes[code] = BETWEEN_SPACES
        else:
            parts = tuple(map(ord, found))
            becomes[code] = FIRST_ROW + rows.setdefault(parts, len(rows))
    marks = _marks(left, normalize)
    if marks:
        low, high = min(marks, key=marks.__getitem__), max(marks, key=marks.__getitem__)
        for code in [code for code, what in becomes.items() if what == NOTHING]:
            if normalize(high + chr(code) + low) == high + low:
                becomes[code] = DIVIDES
    kinds = _kinds(left, tokenizer.pre_tokenizer.pre_tokenize_str)
    kinds |= {ord(mark): FIRST_MARK + place for mark, place in marks.items()}
    return CharacterTables(becomes, list(rows), kinds)


def _codes_to_ask(normalize: Any, becomes: dict[int, int]) -> Iterator[int]:
    """Yields the codes to ask about one by one; writes what becomes of others."""
    yield from (code for code in range(_MOSTLY_EMPTY) if not 0xD800 <= code < 0xE000)
    for start in range(_MOSTLY_EMPTY, CODES, PAGE):
        page = range(start, start + PAGE)
        text = "".join(map(chr, page))
        result = normalize(text)
        if not result:
            becomes |= dict.fromkeys(page, NOTHING)
        elif result != text:
            yield from page


def _marks(characters: Iterable[str], normalize: Any) -> dict[str, int]:
    """Returns the marks that are put in order, and the place of each."""
    classes: dict[int, list[str]] = collections.defaultdict(list)
    for character in sorted(characters):
        if number := unicodedata.combining(character):
            classes[number].append(character)
    # Marks that the tokenizer's tables lack are letters to it.
    moved = [
        mark
        for own, marks in classes.items()
        for mark in marks
        if any(
            normalize(one + two) == two + one
            for other, others in classes.items()
            if other != own
            for one, two in [
                (mark, others[0]) if own > other else (others[0], mark),
                (mark, others[-1]) if own > other else (others[-1], mark),
            ]
        )
    ]

    def compare(one: str, two: str) -> int:
        if normalize(one + two) == two + one:
            return 1
        return -1 if normalize(two + one) == one + two else 0

    places: dict[str, int] = {}
    previous, place = None, -1
    for mark in sorted(moved, key=functools.cmp_to_key(compare)):
        place += previous is None or compare(mark, previous) != 0
        places[mark], previous = place, mark
    return places


def _kinds(characters: Iterable[str], divide: Any) -> dict[int, int]:
    """Returns which characters divide words, or are words themselves."""
    kinds: dict[int, int] = {}
    ordered = sorted(characters)
    for start in range(0, len(ordered), PAGE):
        part = ordered[start : start + PAGE]
        pieces = collections.Counter(
            first // 4 for _, (first, _) in divide("".join(f"a{c}a " for c in part))
        )
        for position, character in enumerate(part):
            if pieces[position] > 1:
                kinds[ord(character)] = SPACE if pieces[position] == 2 else ALONE
    return kinds
