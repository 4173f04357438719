"""Tokenizers of image-text models as Hugging Face publishes them, for KerasHub's classes."""

import base64
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from biam_tf.backbones.preset_folder import import_keras_hub
from biam_tf.errors import UserError

TOKENIZER = "tokenizer.json"
SENTENCE_PIECES = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


def read_json(path: pathlib.Path) -> Any:
    """Returns the contents of a JSON file of a model of Hugging Face.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; give the folder of a model of Hugging Face with config.json, "
            "model.safetensors and tokenizer.json"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def clip_tokenizer(path: pathlib.Path, config: Mapping[str, Any]) -> Any:
    """Returns the tokenizer of KerasHub with the vocabulary of a CLIP model's `tokenizer.json`.

    Raises:
        UserError: the file is missing, damaged or another tokenizer's.
    """
    try:
        bpe = read_json(path)["model"]
        vocabulary = {str(token): int(number) for token, number in bpe["vocab"].items()}
        merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: not the tokenizer of a CLIP model ({error!r})") from error
    end = vocabulary.get("<|endoftext|>")
    padding = (config.get("text_config") or {}).get("pad_token_id", 1)
    return import_keras_hub().models.CLIPTokenizer(
        vocabulary, merges, pad_with_end_token=padding in (1, end)
    )


def sentence_pieces(folder: pathlib.Path) -> bytes:
    """Returns the SentencePiece model of SigLIP, from its own file or made of unigrams.

    Raises:
        UserError: there is none, or the tokenizer is of another kind.
    """
    for name in SENTENCE_PIECES:
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    path = folder / TOKENIZER
    read = read_json(path)
    try:
        model = read["model"]
        if model["type"] != "Unigram":
            raise UserError(
                f"{path}: holds a tokenizer of the type {model['type']}; put the model's "
                f"{' or '.join(SENTENCE_PIECES[:2])} beside it, from which KerasHub's tokenizer "
                "is made"
            )
        return _unigrams(model["vocab"], model["unk_id"], read.get("normalizer") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the tokenizer of a SigLIP model ({error!r})") from error


def _unigrams(vocabulary: list, unknown: int, normalizer: Mapping[str, Any]) -> bytes:
    """Returns a SentencePiece model with the pieces and scores of a tokenizer of unigrams."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto, kinds = pb.ModelProto(), pb.ModelProto.SentencePiece
    for number, (piece, score) in enumerate(vocabulary):
        kind = kinds.NORMAL
        if number == unknown:
            kind = kinds.UNKNOWN
        elif piece in ("<pad>", "<s>", "</s>"):
            kind = kinds.CONTROL
        proto.pieces.add(piece=piece, score=score, type=kind)
    ids = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    trainer = proto.trainer_spec
    trainer.model_type = pb.TrainerSpec.UNIGRAM
    trainer.vocab_size = len(vocabulary)
    trainer.unk_id, trainer.eos_id = unknown, ids.get("</s>", -1)
    trainer.pad_id, trainer.bos_id = ids.get("<pad>", -1), ids.get("<s>", -1)
    parts = [normalizer, *(normalizer.get("normalizers") or [])]
    tables = [p["precompiled_charsmap"] for p in parts if p.get("type") == "Precompiled"]
    proto.normalizer_spec.name = "precompiled" if tables else "identity"
    proto.normalizer_spec.precompiled_charsmap = base64.b64decode(tables[0]) if tables else b""
    return proto.SerializeToString()
