"""A sentence encoder in a graph: texts to embeddings with TensorFlow's own operations alone."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from biam_tf.embeddings.run_encoder import RunEncoder
from biam_tf.embeddings.sentence_encoder import SentenceEncoder
from biam_tf.embeddings.sources import PLACE
from biam_tf.errors import UserError
from serving.graph.wordpiece import WordPiece

# Texts of one call of the encoder: they bound its memory, whatever a request has.
_TEXTS_PER_CALL = 32
_LARGEST = 2**15 - 1  # of 16 bits


class PhraseEncoder(tf.Module):
    """Embeds the texts of class names as `biam_tf.embeddings.run_encoder.RunEncoder` does.

    The weights are stored in 16 bits and used in 32, see `_Stored`. Texts of similar length share
    a call of the encoder and are padded to the longest of them, so that short ones are fast.

    Args:
        encoder: of which it is a copy.

    Raises:
        UserError: its tokenizer is not BERT's, or its weights are too large for 16 bits.
    """

    def __init__(self, encoder: RunEncoder) -> None:
        super().__init__()
        sentences = encoder.encoder
        assert isinstance(sentences, SentenceEncoder)
        model = sentences.model
        self._templates = encoder.templates
        self._first_token = sentences.first_token
        self._tokenizer = WordPiece(sentences.tokenizer)
        words = model.get_layer("words")
        body = keras.Model([words.output, *model.inputs], model.output)
        self._body = lambda weights, inputs: body.stateless_call(
            weights, body.non_trainable_variables, inputs, training=False
        )[0]
        self._words = tf.Variable(_float16(np.asarray(words.weights[0])), trainable=False)
        self._weights = [_Stored(np.asarray(weight)) for weight in body.trainable_variables]
        self._size = model.output_shape[-1]
        encode = tf.function(
            self._encode, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False
        )
        # In a lambda, because saving would trace an attribute that is a tf.function once more.
        self._embed = lambda texts: encode(texts)

    @property
    def stored_bytes(self) -> int:
        """About how large it is in a file."""
        return (
            sum(v.dtype.size * int(np.prod(v.shape)) for v in self.variables)
            + self._tokenizer.token_bytes
        )

    def __call__(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the embeddings (N, d) float32, of length 1, of the texts of names (N,).

        And whether each text is blank: without anything that the encoder reads.
        """
        return self._embed(texts)

    def _encode(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        different, rows = tf.unique(texts)
        blank = self._tokenizer(different)[1] == 0
        weights = [weight.restored() for weight in self._weights]
        total = tf.zeros([tf.size(different), self._size])
        for template in self._templates:
            before, *between = template.split(PLACE)
            parts: list[str | tf.Tensor] = [before]
            for after in between:
                parts += [different, after]
            total += self._encode_texts(tf.strings.join(parts), weights)
        # Of one template it has length 1 already.
        mean = total if len(self._templates) == 1 else tf.math.l2_normalize(total, 1, 1e-24)
        return tf.gather(mean, rows), tf.gather(blank, rows)

    def _encode_texts(self, texts: tf.Tensor, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        tokens, _ = self._tokenizer(texts)
        lengths = tokens.row_lengths()
        order = tf.argsort(lengths)
        count = tf.size(texts)
        calls = (count + _TEXTS_PER_CALL - 1) // _TEXTS_PER_CALL

        def encode_some(call: tf.Tensor, vectors: tf.TensorArray) -> tuple:
            rows = order[call * _TEXTS_PER_CALL : (call + 1) * _TEXTS_PER_CALL]
            ids = tf.gather(tokens, rows).to_tensor()  # (B, T)
            mask = tf.sequence_mask(tf.gather(lengths, rows), tf.shape(ids)[1], tf.int32)
            words = tf.cast(tf.gather(self._words, ids), tf.float32)
            encoded = self._body(weights, [words, ids, mask])  # (B, T, d)
            return call + 1, vectors.write(call, self._pool(encoded, mask))

        vectors = tf.TensorArray(
            tf.float32, calls, infer_shape=False, element_shape=(None, self._size)
        )
        _, vectors = tf.while_loop(
            lambda call, _: call < calls, encode_some, (0, vectors), parallel_iterations=1
        )
        return tf.gather(vectors.concat(), tf.math.invert_permutation(order))

    def _pool(self, encoded: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        if self._first_token:
            pooled = encoded[:, 0]
        else:
            weights = tf.cast(mask, tf.float32)[..., None]
            pooled = tf.reduce_sum(encoded * weights, 1) / tf.reduce_sum(weights, 1)
        return pooled / tf.norm(pooled, axis=1, keepdims=True)


class _Stored(tf.Module):
    """A weight in 16 bits, restored to 32 before it is used.

    A matrix is stored as whole numbers of 16 bits, with a factor for each column: its values are
    of similar size, so that this is four times as exact as 16-bit floats, whose rounding alone
    changes embeddings by more than 1e-4. Vectors, such as biases, are few, and kept in 32 bits.
    """

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self._factors = None
        stored = values
        if values.ndim > 1:
            factors = np.abs(values).max(axis=0) / np.float32(_LARGEST)
            factors = np.maximum(factors, np.finfo(np.float32).tiny)
            stored = np.rint(values / factors).astype(np.int16)
            self._factors = tf.Variable(factors, trainable=False)
        self._values = tf.Variable(stored, trainable=False)

    def restored(self) -> tf.Tensor:
        """Returns the weight, float32."""
        values = tf.cast(self._values, tf.float32)
        return values if self._factors is None else values * self._factors


def _float16(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # overflow becomes infinity
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        raise UserError("the sentence encoder's vectors of tokens are too large for 16-bit floats")
    return stored
