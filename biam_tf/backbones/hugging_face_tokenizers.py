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


def clip_tokenizer(folder: pathlib.Path, config: Mapping[str, Any]) -> Any:
    """Returns the tokenizer of KerasHub with the vocabulary of a CLIP model's `tokenizer.json`.

    Raises:
        UserError: the file is missing, damaged or another tokenizer's.
    """
    path = folder / TOKENIZER
    try:
        bpe = read_json(path)["model"]
        vocabulary = {str(token): int(number) for token, number in bpe["vocab"].items()}
        merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
        start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
        # CLIP's text side takes the token with the largest number, which is that of the end.
        if max(vocabulary.values()) != end:
            raise ValueError("<|endoftext|> is not its last token")
        text = config.get("text_config") or {}
        if text.get("eos_token_id", end) not in (2, end):  # 2 in early files, and of no effect
            raise ValueError(f"config.json's eos_token_id is not {end}, that of <|endoftext|>")
        if text.get("bos_token_id", start) not in (0, start):
            raise ValueError(f"config.json's bos_token_id is not {start}, that of <|startoftext|>")
        return import_keras_hub().models.CLIPTokenizer(
            vocabulary, merges, pad_with_end_token=text.get("pad_token_id", 1) in (1, end)
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: not the tokenizer of a CLIP model ({error!r})") from error


def siglip_tokenizer(folder: pathlib.Path) -> Any:
    """Returns the tokenizer of KerasHub for SigLIP, or for SigLIP 2, whose tokenizer is Gemma's.

    Raises:
        UserError: its files are missing, damaged or another tokenizer's.
    """
    proto = sentence_pieces(folder)
    models, pieces = import_keras_hub().models, _processor(proto, folder)
    # Gemma's has a piece </s>, too, but as a word of HTML.
    if all(pieces.is_control(pieces.piece_to_id(end)) for end in ("<bos>", "<eos>", "<pad>")):
        return models.GemmaTokenizer(proto)
    if pieces.is_control(pieces.piece_to_id("</s>")):
        return models.SigLIPTokenizer(proto)
    raise UserError(
        f"{folder}: its SentencePiece model is neither SigLIP's (with the end </s>) nor SigLIP "
        "2's (with <eos>)"
    )


def metaclip_2_tokenizer(folder: pathlib.Path) -> Any:
    """Returns the tokenizer of KerasHub for MetaCLIP 2.

    Raises:
        UserError: its SentencePiece model is missing, damaged or another tokenizer's.
    """
    path = folder / SENTENCE_PIECES[-1]
    if not path.is_file():
        raise UserError(
            f"{folder} has no {path.name}, from which KerasHub's tokenizer is made; it is a file "
            "of facebook/xlm-v-base, whose tokenizer MetaCLIP 2 has"
        )
    proto = path.read_bytes()
    pieces = _processor(proto, folder)
    # KerasHub numbers its special tokens as XLM-RoBERTa does, from these three.
    first = [pieces.id_to_piece(number) for number in range(min(3, len(pieces)))]
    if first != ["<unk>", "<s>", "</s>"]:
        raise UserError(
            f"{path}: begins with the pieces {', '.join(first)}, not with those of XLM-V: "
            "<unk>, <s>, </s>"
        )
    return import_keras_hub().models.MetaCLIP2Tokenizer(proto)


def _processor(proto: bytes, folder: pathlib.Path) -> Any:
    """Returns a SentencePiece model as its library reads it."""
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=proto)
    except RuntimeError as error:
        raise UserError(f"{folder}: its SentencePiece model is damaged ({error})") from error


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
    proto = _model_message()
    for number, (piece, score) in enumerate(vocabulary):
        kind = _NORMAL
        if number == unknown:
            kind = _UNKNOWN
        elif piece in ("<pad>", "<s>", "</s>"):
            kind = _CONTROL
        proto.pieces.add(piece=piece, score=score, type=kind)
    ids = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    trainer = proto.trainer_spec
    trainer.model_type, trainer.vocab_size = 1, len(vocabulary)  # 1: unigrams
    trainer.unk_id, trainer.eos_id = unknown, ids.get("</s>", -1)
    trainer.pad_id, trainer.bos_id = ids.get("<pad>", -1), ids.get("<s>", -1)
    parts = [normalizer, *(normalizer.get("normalizers") or [])]
    tables = [p["precompiled_charsmap"] for p in parts if p.get("type") == "Precompiled"]
    proto.normalizer_spec.name = "precompiled" if tables else "identity"
    proto.normalizer_spec.precompiled_charsmap = base64.b64decode(tables[0]) if tables else b""
    return proto.SerializeToString()


_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
# The fields of sentencepiece_model.proto that are written: name, number, type.
_FIELDS = {
    "Piece": (("piece", 1, "STRING"), ("score", 2, "FLOAT"), ("type", 3, "INT32")),
    "Trainer": (
        ("model_type", 3, "INT32"),
        ("vocab_size", 4, "INT32"),
        ("unk_id", 40, "INT32"),
        ("bos_id", 41, "INT32"),
        ("eos_id", 42, "INT32"),
        ("pad_id", 43, "INT32"),
    ),
    "Normalizer": (("name", 1, "STRING"), ("precompiled_charsmap", 2, "BYTES")),
    "Model": (
        ("pieces", 1, "Piece"),
        ("trainer_spec", 2, "Trainer"),
        ("normalizer_spec", 3, "Normalizer"),
    ),
}


def _model_message() -> Any:
    """Returns an empty SentencePiece model.

    The module that sentencepiece brings for this fits one version of protobuf, which need not be
    the one that TensorFlow brings.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="biam_tf/pieces.proto", package="biam_tf")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _FIELDS.items():
        added = file.message_type.add(name=message)
        for name, number, kind in fields:
            field = added.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
            if kind in _FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".biam_tf.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind}")
            if name == "pieces":
                field.label = kinds.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("biam_tf.Model"))()
