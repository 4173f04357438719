"""Small image-text models of KerasHub with random weights and tokenizers, saved as presets are."""

import functools
import io
import pathlib
from typing import Any

import keras
import numpy as np

SIZE, PATCH, DIM, JOINT = 32, 8, 8, 6
SCALE, OFFSET = [0.01, 0.02, 0.03], [-1.0, 0.0, 0.5]
LOGIT_SCALE, LOGIT_BIAS = 1.3, -2.0
CONTEXT = {"clip": 12, "metaclip_2": 12, "siglip": 10}
# What the tokenizers are made from.
CORPUS = [
    "a photo of a black dog",
    "two red cars near the sea",
    "ein Hund und ein Haus am Meer",
] * 4


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in GPT-2's and CLIP's vocabularies."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]


def bpe_vocabulary() -> tuple[dict[str, int], list[str]]:
    """A vocabulary of CLIP's form: bytes, their forms at the end of a word, and merges."""
    letters = _byte_letters()
    merges = [
        "d o",
        "do g</w>",
        "o f</w>",
        "p h",
        "ph o",
        "t o</w>",
        "pho to</w>",
        "r e",
        "re d</w>",
    ]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}, merges


@functools.cache
def sentence_pieces(seed: int = 0) -> bytes:
    """A SentencePiece model of a few dozen pieces, whose padding is its end token, as SigLIP's."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=60,
        model_type="unigram",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return model.getvalue()


def _vision(kind: Any, **settings: Any) -> keras.Model:
    sizes = {"patch_size": PATCH, "hidden_dim": DIM, "num_layers": 2, "num_heads": 2}
    return kind(**sizes, intermediate_dim=16, image_shape=(SIZE, SIZE, 3), **settings)


def _text(kind: Any, vocabulary: int, context: int, **settings: Any) -> keras.Model:
    sizes = {"hidden_dim": DIM, "embedding_dim": DIM, "num_layers": 2, "num_heads": 2}
    sizes |= {"vocabulary_size": vocabulary, "max_sequence_length": context}
    return kind(**sizes, intermediate_dim=16, **settings)


def make_model(case: str) -> keras.Model:
    """A model of the architecture: "clip", "metaclip_2" or "siglip"."""
    import keras_hub

    m, context = keras_hub.models, CONTEXT[case]
    if case == "siglip":
        text = _text(m.SigLIPTextEncoder, 60, context, projection_dim=DIM)
        return m.SigLIPBackbone(_vision(m.SigLIPVisionEncoder), text)
    if case == "clip":
        text = _text(m.CLIPTextEncoder, len(bpe_vocabulary()[0]), context)
        return m.CLIPBackbone(_vision(m.CLIPVisionEncoder), text, JOINT)
    text = _text(m.MetaCLIP2TextEncoder, 61, context)
    return m.MetaCLIP2Backbone(_vision(m.MetaCLIP2VisionEncoder), text, JOINT)


def make_preprocessor(case: str) -> Any:
    import keras_hub

    m, context = keras_hub.models, CONTEXT[case]
    converters = keras_hub.layers
    pictures = {"image_size": (SIZE, SIZE), "scale": SCALE, "offset": OFFSET}
    if case == "clip":
        vocabulary, merges = bpe_vocabulary()
        tokenizer = m.CLIPTokenizer(vocabulary, merges, pad_with_end_token=True)
        return m.CLIPPreprocessor(
            tokenizer, converters.CLIPImageConverter(**pictures), sequence_length=context
        )
    if case == "siglip":
        tokenizer = m.SigLIPTokenizer(sentence_pieces())
        return m.SigLIPPreprocessor(
            tokenizer, converters.SigLIPImageConverter(**pictures), sequence_length=context
        )
    tokenizer = m.MetaCLIP2Tokenizer(sentence_pieces())
    return m.MetaCLIP2CausalLMPreprocessor(
        tokenizer, converters.MetaCLIP2ImageConverter(**pictures), sequence_length=context
    )


def save_preset(case: str, folder: pathlib.Path, seed: int = 0) -> keras.Model:
    """Writes a preset with random weights, none of which are zero; returns its model."""
    rng = np.random.default_rng(seed)
    model = make_model(case)
    for weight in model.weights:
        if "int" not in weight.dtype:
            weight.assign(rng.normal(scale=0.3, size=weight.shape))
    head = getattr(
        model, {"clip": "clip_head", "siglip": "siglip_head"}.get(case, "metaclip_2_head")
    )
    head.logit_scale.assign(LOGIT_SCALE)
    if case == "siglip":
        head.logit_bias.assign(LOGIT_BIAS)
    model.save_to_preset(folder)
    make_preprocessor(case).save_to_preset(folder)
    return model
