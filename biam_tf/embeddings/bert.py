"""BERT's encoder as a Keras model that takes weights by their names in Hugging Face's files.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (2019): word, position and
type embeddings, then layers of attention and of two dense layers, each added to its input and
normalized.
"""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from biam_tf.errors import UserError

ACTIVATIONS = {
    "gelu": lambda x: keras.activations.gelu(x, approximate=False),
    "gelu_new": lambda x: keras.activations.gelu(x, approximate=True),
    "relu": keras.activations.relu,
}


@dataclasses.dataclass(frozen=True)
class BertSettings:
    """Sizes of an encoder, as `config.json` names them.

    Attributes:
        vocab_size: V, number of tokens.
        hidden_size: d, length of a token's vector.
        num_hidden_layers: number of layers.
        num_attention_heads: attention heads of a layer.
        intermediate_size: units of the first dense layer of a layer.
        max_position_embeddings: largest number of tokens of a text.
        layer_norm_eps: epsilon of the layer normalizations.
        hidden_act: a key of `ACTIVATIONS`.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"


def build_bert(settings: BertSettings) -> keras.Model:
    """Builds the encoder, with random weights.

    Returns:
        A model from `token_ids` (B, T) and `mask` (B, T), 1 for a token and 0 for padding, to the
        tokens' vectors (B, T, d). All tokens are of the first type.
    """
    s = settings
    activation = ACTIVATIONS[s.hidden_act]

    def normalized(x, name):
        return keras.layers.LayerNormalization(epsilon=s.layer_norm_eps, name=name)(x)

    # === Functional Model ===
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="mask")
    positions = keras.ops.cumsum(keras.ops.ones_like(token_ids), axis=1) - 1
    types = keras.ops.zeros_like(token_ids)
    words = keras.layers.Embedding(s.vocab_size, s.hidden_size, name="words")(token_ids)
    places = keras.layers.Embedding(s.max_position_embeddings, s.hidden_size, name="places")
    kinds = keras.layers.Embedding(1, s.hidden_size, name="kinds")
    x = normalized(words + kinds(types) + places(positions), "norm")  # (B, T, d)
    attended = keras.ops.expand_dims(mask, 1)  # (B, 1, T): no token attends to padding
    for layer in range(s.num_hidden_layers):
        attention = keras.layers.MultiHeadAttention(
            s.num_attention_heads, s.hidden_size // s.num_attention_heads, name=f"attention_{layer}"
        )
        x = normalized(x + attention(x, x, attention_mask=attended), f"attention_norm_{layer}")
        wide = keras.layers.Dense(s.intermediate_size, activation, name=f"wide_{layer}")(x)
        narrow = keras.layers.Dense(s.hidden_size, name=f"narrow_{layer}")(wide)
        x = normalized(x + narrow, f"norm_{layer}")
    return keras.Model([token_ids, mask], x)


def set_bert_weights(
    model: keras.Model, settings: BertSettings, weights: Mapping[str, np.ndarray]
) -> None:
    """Assigns the weights of a checkpoint to a model of `build_bert`.

    Args:
        model: the model.
        settings: that it was built with.
        weights: arrays by Hugging Face's names, which may share a prefix such as `bert.`; arrays
            that do not belong to the encoder (a pooler) are ignored.

    Raises:
        UserError: an array is missing or its shape differs from `settings`.
    """
    words = "embeddings.word_embeddings.weight"
    prefix = next((name.removesuffix(words) for name in weights if name.endswith(words)), "")

    def array(name: str) -> np.ndarray:
        if prefix + name not in weights:
            raise UserError(f"has no array {prefix + name!r}, which a BERT encoder needs")
        return np.asarray(weights[prefix + name], np.float32)

    def assign(layer: str, *arrays: np.ndarray) -> None:
        variables = model.get_layer(layer).weights
        for variable, value in zip(variables, arrays, strict=True):
            if variable.shape != value.shape:
                raise UserError(
                    f"the weights of {layer} have shape {value.shape}, but config.json asks for "
                    f"{tuple(variable.shape)}"
                )
        model.get_layer(layer).set_weights(arrays)

    def norm(layer: str, name: str) -> None:
        assign(layer, array(f"{name}.weight"), array(f"{name}.bias"))

    def dense(layer: str, name: str) -> None:
        assign(layer, array(f"{name}.weight").T, array(f"{name}.bias"))

    heads = settings.num_attention_heads
    size = settings.hidden_size // heads
    assign("words", array(words))
    assign("places", array("embeddings.position_embeddings.weight"))
    assign("kinds", array("embeddings.token_type_embeddings.weight")[:1])
    norm("norm", "embeddings.LayerNorm")
    for layer in range(settings.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        attention = []
        for part in ("query", "key", "value"):
            own = f"{name}.attention.self.{part}"
            kernel = _sized(array(f"{own}.weight").T, own, (-1, heads, size))
            attention += [kernel, _sized(array(f"{own}.bias"), own, (heads, size))]
        own = f"{name}.attention.output.dense"
        attention += [_sized(array(f"{own}.weight").T, own, (heads, size, -1))]
        assign(f"attention_{layer}", *attention, array(f"{own}.bias"))
        norm(f"attention_norm_{layer}", f"{name}.attention.output.LayerNorm")
        dense(f"wide_{layer}", f"{name}.intermediate.dense")
        dense(f"narrow_{layer}", f"{name}.output.dense")
        norm(f"norm_{layer}", f"{name}.output.LayerNorm")


def _sized(array: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return array.reshape(shape)
    except ValueError:
        raise UserError(f"{name}: {array.shape} does not fit the heads of config.json") from None
