"""Makes the golden vectors of `tests/data/image_text` with transformers on PyTorch.

    pip install torch transformers sentencepiece tokenizers safetensors
    python tests/helpers/make_image_text_golden.py tests/data/image_text

For each architecture it writes a folder as Hugging Face publishes models, with random weights, and
`golden.npz`: pictures, texts and what the implementation in transformers makes of them. Regions
are not a part of that implementation: they are computed here from its layers, by the equations of
MaskCLIP and of attention pooling.
"""

import json
import pathlib
import sys

import numpy as np
import sentencepiece
import torch
import transformers
from small_image_text import CONTEXT, DIM, JOINT, PATCH, SIZE, bpe_vocabulary, sentence_pieces
from torch.nn import functional

SIZES = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 16}
TEXTS = ["a photo of a dog", "Two RED cars, 2024!", "ein Hund am Meer", "caf\u00e9 \u00c9COLE"]
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.5, 0.2]


def randomize(model: torch.nn.Module) -> None:
    """Sets every weight, so that none is zero or one; sizes as after a training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.4, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter += 1
        model.logit_scale.fill_(1.7)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(-3.0)


def pictures() -> tuple[np.ndarray, torch.Tensor]:
    """Returns pictures (2, S, S, 3) as they are stored, and as the models take them."""
    stored = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    scaled = (stored / 255.0 - np.array(MEAN)) / np.array(STD)
    return stored, torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32)


def make_clip(folder: pathlib.Path) -> dict[str, np.ndarray]:
    vocabulary, merges = bpe_vocabulary()
    tokenizer = transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges]
    )
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    ends = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    text = {**SIZES, "vocab_size": len(vocabulary), "max_position_embeddings": CONTEXT["clip"]}
    vision = {**SIZES, "image_size": SIZE, "patch_size": PATCH}
    config = transformers.CLIPConfig(
        text_config=text | ends, vision_config=vision, projection_dim=JOINT
    )
    model = transformers.CLIPModel(config).eval()
    randomize(model)
    tokens = tokenizer(
        TEXTS, padding=True, truncation=True, max_length=CONTEXT["clip"], return_tensors="pt"
    )
    stored, scaled = pictures()
    with torch.no_grad():
        outputs = model(**tokens, pixel_values=scaled)
        regions = value_regions(model, scaled)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return collected(stored, regions, outputs)


def make_metaclip_2(folder: pathlib.Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    pieces = folder / "sentencepiece.bpe.model"
    pieces.write_bytes(sentence_pieces())
    reader = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    longest = CONTEXT["metaclip_2"]
    # As XLM-RoBERTa numbers pieces: <s>, <pad>, </s>, <unk>, and one more for each of the others.
    read = [[i + 1 if i else 3 for i in reader.encode(text)][: longest - 2] for text in TEXTS]
    rows = [[0, *ids, 2] for ids in read]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    text = {**SIZES, "vocab_size": len(reader) + 1, "max_position_embeddings": longest}
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    vision = {**SIZES, "image_size": SIZE, "patch_size": PATCH}
    config = transformers.MetaClip2Config(
        text_config=text | ends, vision_config=vision, projection_dim=JOINT
    )
    model = transformers.MetaClip2Model(config).eval()
    randomize(model)
    stored, scaled = pictures()
    with torch.no_grad():
        outputs = model(input_ids=tokens, pixel_values=scaled, attention_mask=(tokens != 1).long())
        regions = value_regions(model, scaled)
    model.save_pretrained(folder)
    return collected(stored, regions, outputs)


def value_regions(model: torch.nn.Module, scaled: torch.Tensor) -> torch.Tensor:
    """Regions as in MaskCLIP, from the layers of CLIP or MetaCLIP 2."""
    vision_model = model.vision_model
    hidden = vision_model(scaled, output_hidden_states=True).hidden_states
    x, last = hidden[-2], vision_model.encoder.layers[-1]
    attention = last.self_attn
    x = x + attention.out_proj(attention.v_proj(last.layer_norm1(x)))
    x = x + last.mlp(last.layer_norm2(x))
    return model.visual_projection(vision_model.post_layernorm(x[:, 1:]))


def make_siglip(folder: pathlib.Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(sentence_pieces())
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"))
    text = {**SIZES, "vocab_size": 60, "max_position_embeddings": CONTEXT["siglip"]}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    vision = {**SIZES, "image_size": SIZE, "patch_size": PATCH}
    config = transformers.SiglipConfig(text_config=text | ends, vision_config=vision)
    model = transformers.SiglipModel(config).eval()
    randomize(model)
    longest = CONTEXT["siglip"]
    tokens = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
    )
    stored, scaled = pictures()
    with torch.no_grad():
        outputs = model(input_ids=tokens["input_ids"], pixel_values=scaled)
        vision_model = model.vision_model
        x, head = vision_model(scaled).last_hidden_state, vision_model.head
        attention = head.attention
        value = slice(2 * DIM, 3 * DIM)
        x = functional.linear(x, attention.in_proj_weight[value], attention.in_proj_bias[value])
        x = attention.out_proj(x)
        regions = x + head.mlp(head.layernorm(x))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return collected(stored, regions, outputs)


def collected(stored: np.ndarray, regions: torch.Tensor, outputs) -> dict[str, np.ndarray]:
    side = SIZE // PATCH
    return {
        "pictures": stored,
        "texts": np.array(TEXTS),
        "region_features": regions.reshape(len(stored), side, side, -1).numpy(),
        "image_embeddings": outputs.image_embeds.numpy(),
        "text_embeddings": outputs.text_embeds.numpy(),
        "logits": outputs.logits_per_image.numpy(),
    }


MAKERS = {"clip": make_clip, "metaclip_2": make_metaclip_2, "siglip": make_siglip}

if __name__ == "__main__":
    for name, make in MAKERS.items():
        target = pathlib.Path(sys.argv[1]) / name
        np.savez(target / "golden.npz", **make(target))
        scaling = {"image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 255}
        (target / "preprocessor_config.json").write_text(json.dumps(scaling))
