"""The text side of an image-text model in a graph: texts to embeddings.

CLIP's tokenizer is built of TensorFlow's own operations. Those of SigLIP and MetaCLIP 2 are
SentencePiece models, whose operation is one of tensorflow-text: TensorFlow Serving has it, and
Python needs the package to load such a graph.
"""

import unicodedata
from typing import Any

import numpy as np
import tensorflow as tf

from biam_tf.embeddings.run_encoder import RunEncoder
from biam_tf.embeddings.sources import PLACE
from biam_tf.embeddings.text_tower import TextTower, canonical_text
from biam_tf.text_operations import import_tensorflow_text

# Texts of one call of the encoder: they bound its memory, whatever a request has.
_TEXTS_PER_CALL = 32
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # of CLIP
# A letter with its marks, and the parts of a syllable of Hangul.
_CLUSTER = r"[\x{1100}-\x{1112}][\x{1161}-\x{1175}][\x{11a8}-\x{11c2}]?|\P{M}\p{M}*"
_END_OF_WORD, _NEVER = "</w>", np.int64(2**40)


class TowerEncoder(tf.Module):
    """Embeds the texts of class names as `biam_tf.embeddings.run_encoder.RunEncoder` does.

    Args:
        encoder: of which it is a copy; its encoder is a `TextTower`.

    Raises:
        UserError: its tokenizer needs tensorflow-text, which is not there.
    """

    def __init__(self, encoder: RunEncoder) -> None:
        super().__init__()
        tower = encoder.encoder
        assert isinstance(tower, TextTower)
        self._templates, self._tower = encoder.templates, _Plain(tower)
        is_clip = hasattr(tower.tokenizer, "merges")
        self._tokenizer = _BytePairs(tower) if is_clip else _SentencePieces(tower)
        parts = [tower.model.text_encoder, getattr(tower.model, "text_projection", None)]
        # Keep the weights only: models would be saved as Keras objects.
        self._weights = [w.value for part in parts if part is not None for w in part.weights]
        self._size = tower.embedding_size
        encode = tf.function(
            self._encode, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False
        )
        # In a lambda, because saving would trace an attribute that is a tf.function once more.
        self._embed = lambda texts: encode(texts)

    @property
    def stored_bytes(self) -> int:
        """About how large it is in a file."""
        return sum(w.dtype.size * int(np.prod(w.shape)) for w in self._weights)

    def __call__(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the embeddings (N, d) float32, of length 1, of the texts of names (N,).

        And whether each text is blank: without anything that the encoder reads.
        """
        return self._embed(texts)

    def _encode(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        different, rows = tf.unique(texts)
        blank = self._tokens(different).row_lengths() == 0
        total = tf.zeros([tf.size(different), self._size])
        for template in self._templates:
            before, *between = template.split(PLACE)
            parts: list[str | tf.Tensor] = [before]
            for after in between:
                parts += [different, after]
            total += self._encode_texts(tf.strings.join(parts))
        mean = tf.math.l2_normalize(total, 1, 1e-24)
        return tf.gather(mean, rows), tf.gather(blank, rows)

    def _tokens(self, texts: tf.Tensor) -> tf.RaggedTensor:
        tower, texts = self._tower.value, self._tokenizer.composed(texts)
        if tower.lower:
            texts = canonical_text(texts, tower.without_punctuation)
        return self._tokenizer(tf.strings.strip(texts))

    def _encode_texts(self, texts: tf.Tensor) -> tf.Tensor:
        tower, tokens = self._tower.value, self._tokens(texts)
        count = tf.size(texts)
        tokens = tokens[:, : tower.context - 1 - (tower.start is not None)]
        ends = [] if tower.start is None else [tf.fill([count, 1], tower.start)]
        packed = tf.concat([*ends, tokens, tf.fill([count, 1], tower.end)], axis=1)
        width = tower.context if tower.reads_whole_context else None
        ids = packed.to_tensor(tower.padding, shape=(None, width))
        calls = (count + _TEXTS_PER_CALL - 1) // _TEXTS_PER_CALL

        def encode_some(call: tf.Tensor, vectors: tf.TensorArray) -> tuple:
            some = ids[call * _TEXTS_PER_CALL : (call + 1) * _TEXTS_PER_CALL]
            encoded = tf.cast(tower.model.get_text_embeddings(some), tf.float32)
            return call + 1, vectors.write(call, tf.math.l2_normalize(encoded, 1, 1e-24))

        vectors = tf.TensorArray(
            tf.float32, calls, infer_shape=False, element_shape=(None, self._size)
        )
        _, vectors = tf.while_loop(
            lambda call, _: call < calls, encode_some, (0, vectors), parallel_iterations=1
        )
        return vectors.concat()


class _Plain:
    """Holds what a `tf.Module` must not track."""

    def __init__(self, value: TextTower) -> None:
        self.value = value


class _SentencePieces(tf.Module):
    """The tokenizer of SigLIP and MetaCLIP 2, as KerasHub's class numbers its pieces."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self._text = import_tensorflow_text()
        with tf.init_scope():
            self._pieces = self._text.SentencepieceTokenizer(tower.tokenizer.proto, tf.int32)
        # MetaCLIP 2 has one more special token than its SentencePiece model, before all others.
        self._first = 1 if type(tower.tokenizer).__name__.startswith("MetaCLIP2") else 0
        self._unknown = tower.tokenizer.unk_token_id if self._first else None

    def composed(self, texts: tf.Tensor) -> tf.Tensor:
        """Returns texts in Unicode's form NFC."""
        return self._text.normalize_utf8(texts, "NFC")

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns the tokens (N, None) of texts, int32."""
        tokens = self._pieces.tokenize(texts)
        if not self._first:
            return tokens
        values = tokens.values
        return tokens.with_values(tf.where(values == 0, self._unknown, values + self._first))


class _BytePairs(tf.Module):
    """The tokenizer of CLIP: in each word, the pair of the best rank is merged again and again."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        tokenizer = tower.tokenizer
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = iter(range(256, 512))
        letters = [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]
        merges = [m for m in tokenizer.merges if "#version:" not in m]
        vocabulary = dict(tokenizer.vocabulary)
        with tf.init_scope():
            singles = [bytes([byte]) for byte in range(256)]
            self._letters = _table(singles, letters, "")
            self._ranks = _table(merges, np.arange(len(merges)), _NEVER)
            ids = np.array(list(vocabulary.values()), np.int64)
            self._ids = _table(list(vocabulary), ids, vocabulary["<|endoftext|>"])
            clusters = _compositions()
            self._composed = _table(list(clusters), list(clusters.values()), "")

    def composed(self, texts: tf.Tensor) -> tf.Tensor:
        """Returns texts in Unicode's form NFC, of texts in NFD."""
        marked = tf.strings.regex_replace(texts, f"({_CLUSTER})", "\\1\n")
        clusters = tf.strings.split(marked, "\n")
        found = self._composed.lookup(clusters.values)
        values = tf.where(found == "", clusters.values, found)
        return tf.strings.reduce_join(clusters.with_values(values), axis=-1)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns the tokens (N, None) of texts in lower case, int32."""
        texts = tf.strings.regex_replace(texts, r"\s+", " ")
        words = tf.strings.split(tf.strings.regex_replace(texts, f"({_WORDS})", "\\1\n"), "\n")
        words = words.with_values(tf.strings.strip(words.values))
        words = tf.ragged.boolean_mask(words, words != "")
        symbols = self._merged(words.values)
        kept = symbols != ""
        flat = self._ids.lookup(tf.boolean_mask(symbols, kept))
        owners = tf.gather(words.value_rowids(), tf.where(kept)[:, 0])
        tokens = tf.cast(flat, tf.int32)
        return tf.RaggedTensor.from_value_rowids(tokens, owners, tf.size(texts, tf.int64))

    def _merged(self, words: tf.Tensor) -> tf.Tensor:
        """Returns the symbols (W, L) of words (W,), "" behind the last one."""
        parts = tf.strings.bytes_split(words)
        parts = parts.with_values(self._letters.lookup(parts.values))
        ends = parts[:, -1:]
        ends = ends.with_values(tf.strings.join([ends.values, _END_OF_WORD]))
        symbols = tf.concat([parts[:, :-1], ends], axis=1).to_tensor("")
        # One more column, so that there is a pair in words of one letter.
        symbols = tf.pad(symbols, [[0, 0], [0, 1]], constant_values="")

        def best(symbols: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pairs = tf.strings.join([symbols[:, :-1], symbols[:, 1:]], separator=" ")
            ranks = self._ranks.lookup(pairs)
            return tf.argmin(ranks, axis=1), tf.reduce_min(ranks, axis=1) < _NEVER

        def merge(symbols: tf.Tensor, position: tf.Tensor, found: tf.Tensor) -> tuple:
            following = tf.concat([symbols[:, 1:], tf.fill([tf.shape(symbols)[0], 1], "")], axis=1)
            column = tf.range(tf.shape(symbols, tf.int64)[1])[None]
            at = position[:, None]
            joined = tf.where(column == at, tf.strings.join([symbols, following]), following)
            symbols = tf.where(found[:, None] & (column >= at), joined, symbols)
            return (symbols, *best(symbols))

        state = (symbols, *best(symbols))
        shapes = (tf.TensorShape((None, None)), tf.TensorShape((None,)), tf.TensorShape((None,)))
        return tf.while_loop(
            lambda symbols, position, found: tf.reduce_any(found), merge, state, shapes
        )[0]


def _table(keys: Any, values: Any, default: Any) -> tf.lookup.StaticHashTable:
    values = tf.constant(values)
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(keys, tf.string), values)
    return tf.lookup.StaticHashTable(initializer, tf.constant(default, values.dtype))


def _compositions() -> dict[str, str]:
    """Returns the characters of Unicode that are composed, by their decomposition (NFD)."""
    found = {}
    for code in range(0xC0, 0x30000):
        letter = chr(code)
        parts = unicodedata.normalize("NFD", letter)
        if len(parts) > 1 and unicodedata.normalize("NFC", parts) == letter:
            found[parts] = letter
    return found
