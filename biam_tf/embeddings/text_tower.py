"""The text side of an image-text model of KerasHub: texts to vectors in the space of its images.

The texts are read as in the model's training: by the preset's own tokenizer, in lower case or
without punctuation where the preset says so, and up to the length of the model's context.
"""

import dataclasses
import functools
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from biam_tf.backbones.joint_space import is_image_text_model, text_fingerprint
from biam_tf.backbones.preset_folder import (
    TOKENIZER,
    PresetFolder,
    first_line,
    import_keras_hub,
)

_BATCH = 64
# What SigLIP's published code leaves out of texts: ASCII's punctuation.
_PUNCTUATION = r"[!-/:-@\[-`{-~]"


@dataclasses.dataclass(frozen=True)
class TextTower:
    """Embeds texts by the text side of an image-text model.

    Attributes:
        name: `keras_hub:PRESET`.
        weights_file: of the preset.
        model: the image-text model, with its weights.
        tokenizer: of KerasHub.
        context: largest number of tokens of a text, with those of its start and end.
        start: token that a text begins with; `None`: none.
        end: token that a text ends with.
        padding: token that follows.
        lower: whether texts are read in lower case.
        without_punctuation: whether texts are read without ASCII's punctuation.
        space: fingerprint of the text side, see `biam_tf.backbones.joint_space.JointSpace`.
    """

    name: str
    weights_file: pathlib.Path
    model: keras.Model
    tokenizer: Any
    context: int
    start: int | None
    end: int
    padding: int
    lower: bool
    without_punctuation: bool
    space: str

    @classmethod
    def load(cls, name: str) -> "TextTower":
        """Reads the text side of a preset.

        Args:
            name: `keras_hub:PRESET`; PRESET is a folder or a name in KerasHub's list.

        Raises:
            UserError: KerasHub is not installed; the preset is not on this machine, has no text
                side, or lacks files.
        """
        preset = PresetFolder(name, "text encoder")
        if not is_image_text_model(preset.kind):
            raise preset.error(
                f"a {preset.kind.__name__} has no text side in the space of its images; give the "
                "preset of an image-text model: CLIP, MetaCLIP 2, SigLIP or SigLIP 2"
            )
        if not (preset.folder / TOKENIZER).is_file():
            raise preset.error(
                f"{preset.folder} has no {TOKENIZER}, so that no text can be read; save the "
                "model's preprocessor there, too, with save_to_preset"
            )
        preprocessor = _read_preprocessor(preset)
        try:
            model = preset.build_model()
        except (ValueError, TypeError, KeyError) as error:
            raise preset.error(f"the model cannot be built ({first_line(error)})") from error
        preset.load_weights(model)
        tokenizer = preprocessor.tokenizer
        canonical = getattr(preprocessor, "canonicalize_text", False)
        return cls(
            name=name,
            weights_file=preset.weights_file,
            model=model,
            tokenizer=tokenizer,
            context=model.text_encoder.max_sequence_length,
            start=tokenizer.start_token_id if preprocessor.add_start_token else None,
            end=tokenizer.end_token_id,
            padding=tokenizer.pad_token_id,
            lower=canonical or getattr(preprocessor, "to_lower", False),
            without_punctuation=canonical,
            space=text_fingerprint(model),
        )

    @functools.cached_property
    def embedding_size(self) -> int:
        """Length of an embedding."""
        tokens = keras.Input((self.context,), dtype="int32")
        return self.model.get_text_embeddings(tokens).shape[-1]

    @property
    def reads_whole_context(self) -> bool:
        """Whether padding up to the context belongs to a text (SigLIP), or has no effect."""
        return not hasattr(self.model, "text_pooler")

    @functools.cached_property
    def _run(self) -> Callable[[np.ndarray], tf.Tensor]:
        return tf.function(
            lambda ids: self.model.get_text_embeddings(ids),
            input_signature=[tf.TensorSpec((None, None), tf.int32)],
            autograph=False,
        )

    def canonical(self, texts: Sequence[str]) -> list[str]:
        """Returns texts as the tokenizer reads them."""
        if not self.lower or not texts:
            return list(texts)
        read = canonical_text(tf.constant(list(texts)), self.without_punctuation)
        return [text.decode() for text in read.numpy()]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of texts, without those of start and end, however many."""
        found = self.tokenizer(self.canonical(texts))
        return [[int(token) for token in np.asarray(row)] for row in found]

    def reads(self, text: str) -> bool:
        """Whether it reads anything in a text; not in spaces and punctuation that it ignores."""
        return bool(self.canonical([text])[0].strip()) and bool(self.tokens([text])[0])

    def truncates(self, text: str) -> bool:
        """Whether a text is longer than the context, so that its end is not read."""
        return len(self.tokens([text])[0]) > self._room

    @property
    def _room(self) -> int:
        return self.context - 1 - (self.start is not None)

    def encode(
        self, texts: Sequence[str], update: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """Returns the vectors (N, d) of N texts, float32, each of length 1.

        Warns of texts that are longer than the context and are truncated.

        Args:
            texts: N texts.
            update: called after each batch with its number of texts.
        """
        rows = np.zeros((len(texts), self.embedding_size), np.float32)
        tokens = self.tokens(texts) if texts else []
        long = [row for row, found in enumerate(tokens) if len(found) > self._room]
        if long:
            others = f" and {len(long) - 1} more" if len(long) > 1 else ""
            warnings.warn(
                f"{self.name} reads {self.context} tokens: the end of {texts[long[0]]!r}{others} "
                "is not read; write shorter texts",
                stacklevel=2,
            )
        order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        for first in range(0, len(texts), _BATCH):
            batch = order[first : first + _BATCH]
            vectors = self._run(self._packed([tokens[row] for row in batch])).numpy()
            vectors = vectors.astype(np.float32)
            rows[batch] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            update(len(batch))
        return rows

    def _packed(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Returns token ids (B, T) int32: start, text, end, padding."""
        before = [] if self.start is None else [self.start]
        packed = [[*before, *found[: self._room], self.end] for found in tokens]
        # Where a text attends to what comes before alone, padding is of no effect.
        width = self.context if self.reads_whole_context else max(map(len, packed))
        ids = np.full((len(packed), width), self.padding, np.int32)
        for row, found in enumerate(packed):
            ids[row, : len(found)] = found
        return ids


def canonical_text(texts: tf.Tensor, without_punctuation: bool) -> tf.Tensor:
    """Returns texts (N,) in lower case, and like SigLIP's without punctuation and with one space.

    These are operations of TensorFlow, so that the graph of an export reads texts in the same way.
    """
    texts = tf.strings.lower(texts, encoding="utf-8")
    if not without_punctuation:
        return texts
    texts = tf.strings.regex_replace(texts, _PUNCTUATION, "")
    return tf.strings.strip(tf.strings.regex_replace(texts, r"\s+", " "))


def _read_preprocessor(preset: PresetFolder) -> Any:
    models = import_keras_hub().models
    kind = preset.kind.__name__.removesuffix("Backbone")
    preprocessor = getattr(models, f"{kind}Preprocessor", None) or getattr(
        models, f"{kind}CausalLMPreprocessor", None
    )
    if preprocessor is None:
        raise preset.error(f"this KerasHub cannot read texts for a {preset.kind.__name__}")
    try:
        return preprocessor.from_preset(str(preset.folder.absolute()))
    except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
        raise preset.error(
            f"its tokenizer cannot be read ({first_line(error)}); load the model's preprocessor "
            "with KerasHub and write it with save_to_preset"
        ) from error
