"""Sizes and tokenizers of small image-text models, for `make_image_text_golden.py`."""

import io

SIZE, PATCH, DIM, JOINT = 32, 8, 8, 6
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


def sentence_pieces() -> bytes:
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
        normalization_rule_name="identity",  # the others bring a table of 200 KB
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return model.getvalue()
