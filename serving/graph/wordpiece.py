"""Texts to the tokens of BERT in a graph, without tensorflow-text: the same as `tokenizers`.

1. A text is divided at special tokens (`[MASK]`), and each of its characters is replaced: by what
   it is in lower case without accents, by nothing (control characters), or by itself between
   spaces (Chinese characters).
2. Marks that are left stand in Unicode's canonical order.
3. Words lie between spaces; a punctuation mark is a word.
4. A word is the longest token that it begins with, then the longest that continues it, and so on;
   a word that has another part, or is too long, is unknown.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from serving.graph.tokenizer_rules import (
    ALONE,
    BETWEEN_SPACES,
    CODES,
    DIVIDES,
    FIRST_MARK,
    FIRST_ROW,
    ITSELF,
    NOTHING,
    PAGE,
    SPACE,
    SPECIAL_TOKENS,
    WordPieceRules,
    character_tables,
)

# Codes above Unicode's: a mark that was removed but divides others, and the special tokens.
_BOUNDARY = CODES
_FIRST_SPECIAL = CODES + 1
# Private characters, which the tokenizer removes: they hold the places of special tokens.
_FIRST_PLACE = 0xF0000
_REMOVED = "\x01"


class WordPiece(tf.Module):
    """Divides texts into tokens in a graph that can be saved.

    Args:
        tokenizer: of the library `tokenizers`, with truncation enabled.

    Attributes:
        rules: what it does.

    Raises:
        UserError: it is another tokenizer than BERT's.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.rules = rules = WordPieceRules.of(tokenizer)
        characters = character_tables(tokenizer)
        self._special = list(rules.special)
        codes = {token: _FIRST_SPECIAL + i for i, token in enumerate(self._special)}
        rows = [*characters.rows, *((code,) for code in codes.values())]
        becomes = dict(characters.becomes)
        for place, row in enumerate(range(len(characters.rows), len(rows))):
            becomes[_FIRST_PLACE + place] = FIRST_ROW + row
        width = max(3, *map(len, rows)) if rows else 3
        self._rows = _constant([[*row, *[-1] * (width - len(row))] for row in rows] or [[-1] * 3])
        self._becomes = _Pages(becomes)
        kinds = characters.kinds | dict.fromkeys(codes.values(), ALONE)
        self._kinds = _Pages(kinds)
        self._special_ids = _constant([rules.unknown, *rules.special.values()])
        # No token that continues a word begins with that sign.
        self._longest_token = max(len(token) for token in rules.tokens)
        with tf.init_scope():
            tokens = {token: number for token, number in rules.tokens.items() if token}
            self._tokens = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(
                    list(tokens), list(tokens.values()), tf.string, tf.int64
                ),
                -1,
            )

    @property
    def token_bytes(self) -> int:
        """About how much of a file the list of tokens takes."""
        return sum(len(token.encode()) + 10 for token in self.rules.tokens)

    def __call__(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Returns the tokens of `texts` (N,), and how many each text has of its own.

        Returns:
            Numbers (N, any) int32, cut to the longest text, with the tokens around them; and the
            numbers of tokens (N,) before that.
        """
        count = tf.size(texts, tf.int64)
        codes, texts_of_codes = self._normalize(texts)
        words, texts_of_words, special = self._words(codes, texts_of_codes)
        different, rows = tf.unique(words, tf.int64)
        pieces = tf.gather(self._pieces(different), rows)  # (words, any)
        special = tf.gather(special, pieces.value_rowids())
        numbers = tf.where(
            special < 0,
            tf.cast(pieces.values, tf.int32),
            tf.gather(self._special_ids, tf.maximum(special, -1) + 1),
        )
        owners = tf.gather(texts_of_words, pieces.value_rowids())
        tokens = tf.RaggedTensor.from_value_rowids(numbers, owners, nrows=count, validate=False)
        rules = self.rules
        room = rules.longest_text - len(rules.before) - len(rules.after)
        around = [
            tf.tile(tf.constant([ids], tf.int32, (1, len(ids))), [count, 1])
            for ids in (rules.before, rules.after)
        ]
        whole = tf.concat([around[0], tokens[:, :room], around[1]], axis=1)
        return whole, tokens.row_lengths()

    def _normalize(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the characters' codes of steps 1 and 2, and the text of each."""
        places = f"[\\x{{{_FIRST_PLACE:X}}}-\\x{{{_FIRST_PLACE + SPECIAL_TOKENS - 1:X}}}]"
        marked = tf.strings.regex_replace(texts, places, _REMOVED)
        for place, token in self._longest_first():
            pattern = "".join(f"\\x{{{ord(character):X}}}" for character in token)
            marked = tf.strings.regex_replace(marked, pattern, chr(_FIRST_PLACE + place))
        letters = tf.strings.unicode_decode(marked, "UTF-8")
        code = letters.values[:, None]
        becomes = self._becomes(letters.values)[:, None]
        width = self._rows.shape[1]
        nothing = tf.fill([tf.size(code), width - 1], -1)
        space = tf.fill([tf.size(code), 1], 32)
        parts = tf.gather(self._rows, tf.maximum(becomes[:, 0] - FIRST_ROW, 0))
        for kind, first in ((ITSELF, code), (NOTHING, code * 0 - 1), (DIVIDES, None)):
            if first is None:
                first = tf.fill([tf.size(code), 1], _BOUNDARY)
            parts = tf.where(becomes == kind, tf.concat([first, nothing], 1), parts)
        spaced = tf.concat([space, code, space, nothing[:, 2:]], 1)
        parts = tf.where(becomes == BETWEEN_SPACES, spaced, parts)
        kept = parts >= 0
        owners = tf.broadcast_to(letters.value_rowids()[:, None], tf.shape(parts))
        return self._in_order(tf.boolean_mask(parts, kept), tf.boolean_mask(owners, kept))

    def _longest_first(self) -> Iterable[tuple[int, str]]:
        return sorted(enumerate(self._special), key=lambda each: -len(each[1]))

    def _in_order(self, codes: tf.Tensor, owners: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        marks = tf.maximum(self._kinds(codes) - FIRST_MARK + 1, 0)
        # Marks stay behind their letter, which begins a run; each text begins one, too.
        runs = tf.cumsum(tf.cast(marks == 0, tf.int64)) + owners
        order = tf.cond(
            tf.reduce_any(marks > 0),
            lambda: tf.argsort(runs * 1024 + tf.cast(marks, tf.int64), stable=True),
            lambda: tf.range(tf.size(codes)),
        )
        codes = tf.gather(codes, order)
        kept = codes != _BOUNDARY
        return tf.boolean_mask(codes, kept), tf.boolean_mask(owners, kept)

    def _words(self, codes: tf.Tensor, owners: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the words, the text of each, and the number of a special token or -1."""
        kinds = self._kinds(codes)
        space, alone = kinds == SPACE, kinds == ALONE
        # The first character begins a word, as one behind a space does.
        after_space = tf.concat([[True], space[:-1]], 0)
        after_alone = tf.concat([[False], alone[:-1]], 0)
        new_text = tf.concat([[False], owners[1:] != owners[:-1]], 0)
        count = tf.size(codes)
        begins = ~space & (after_space[:count] | after_alone[:count] | new_text[:count] | alone)
        words = tf.boolean_mask(tf.cumsum(tf.cast(begins, tf.int64)) - 1, ~space)
        codes_of_words = tf.boolean_mask(codes, ~space)
        texts_of_words = tf.boolean_mask(owners, begins)
        first = tf.boolean_mask(codes, begins)
        special = tf.where(first >= _FIRST_SPECIAL, first - _FIRST_SPECIAL, -1)
        letters = tf.RaggedTensor.from_value_rowids(
            tf.where(codes_of_words < CODES, codes_of_words, ord("?")),
            words,
            nrows=tf.size(texts_of_words, tf.int64),
            validate=False,
        )
        return tf.strings.unicode_encode(letters, "UTF-8"), texts_of_words, special

    def _pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Returns the tokens (W, any) of `words` (W,), int64."""
        lengths = tf.strings.length(words, unit="UTF8_CHAR")
        too_long = lengths > self.rules.longest_word
        sizes = tf.range(self._longest_token, 0, -1)

        def unfinished(starts: tf.Tensor, unknown: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
            return tf.reduce_any((starts < lengths) & ~unknown)

        def next_pieces(
            starts: tf.Tensor, unknown: tf.Tensor, owners: tf.Tensor, numbers: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            rows = tf.where((starts < lengths) & ~unknown)[:, 0]
            start, left = tf.gather(starts, rows), tf.gather(lengths - starts, rows)
            beginnings = tf.strings.substr(
                tf.repeat(tf.gather(words, rows), self._longest_token),
                tf.repeat(start, self._longest_token),
                tf.tile(sizes, [tf.size(rows)]),
                unit="UTF8_CHAR",
            )
            sign = tf.repeat(tf.where(start > 0, self.rules.continues, ""), self._longest_token)
            found = self._tokens.lookup(tf.strings.join([sign, beginnings]))
            found = tf.reshape(found, [-1, self._longest_token])
            known = found >= 0
            # Beginnings that are longer than what is left are all of what is left.
            best = tf.argmax(tf.cast(known, tf.int32), axis=1, output_type=tf.int32)
            number = tf.gather(found, best, batch_dims=1)
            taken = tf.where(number >= 0, tf.minimum(self._longest_token - best, left), 0)
            at = rows[:, None]
            return (
                tf.tensor_scatter_nd_add(starts, at, taken),
                tf.tensor_scatter_nd_update(unknown, at, number < 0),
                tf.concat([owners, rows], 0),
                tf.concat([numbers, number], 0),
            )

        none = tf.zeros([0], tf.int64)
        any_size = tf.TensorShape([None])
        _, unknown, owners, numbers = tf.while_loop(
            unfinished,
            next_pieces,
            (tf.zeros_like(lengths), too_long, none, none),
            shape_invariants=(lengths.shape, too_long.shape, any_size, any_size),
        )
        known = ~tf.gather(unknown, owners)
        bad = tf.where(unknown)[:, 0]
        owners = tf.concat([tf.boolean_mask(owners, known), bad], 0)
        unknown_number = tf.constant(self.rules.unknown, tf.int64)
        numbers = tf.concat(
            [tf.boolean_mask(numbers, known), tf.fill([tf.size(bad)], unknown_number)], 0
        )
        order = tf.argsort(owners, stable=True)
        return tf.RaggedTensor.from_value_rowids(
            tf.gather(numbers, order),
            tf.gather(owners, order),
            nrows=tf.size(words, tf.int64),
            validate=False,
        )


class _Pages(tf.Module):
    """A number for each character's code: pages of 256, of which equal ones are kept once.

    Args:
        numbers: by code; 0 for others.
    """

    def __init__(self, numbers: dict[int, int]) -> None:
        super().__init__()
        pages = np.zeros((CODES // PAGE + 2, PAGE), np.int32)
        pages.reshape(-1)[list(numbers)] = list(numbers.values())
        different, rows = np.unique(pages, axis=0, return_inverse=True)
        self._pages, self._rows = _constant(different), _constant(rows.reshape(-1))

    def __call__(self, codes: tf.Tensor) -> tf.Tensor:
        page = tf.gather(self._rows, codes // PAGE)
        return tf.gather_nd(self._pages, tf.stack([page, codes % PAGE], axis=-1))


def _constant(values: Sequence | np.ndarray) -> tf.Variable:
    """A variable, because a constant is written once for every signature."""
    return tf.Variable(np.asarray(values, np.int32), trainable=False)
