"""Files of models of Hugging Face: what is read, and what is refused with one clear error."""

import json
import pathlib
import shutil
import struct

import numpy as np
import pytest

from biam_tf.errors import UserError

pytest.importorskip("keras_hub", reason="keras-hub is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

import sentencepiece
from safetensors.numpy import load_file, save_file

from biam_tf.backbones.hugging_face import convert
from biam_tf.backbones.hugging_face_tokenizers import sentence_pieces, siglip_tokenizer
from biam_tf.backbones.hugging_face_weights import INDEX, WEIGHTS, as_floats, read_arrays

pytestmark = pytest.mark.unit

PUBLISHED = pathlib.Path(__file__).parents[2] / "data" / "image_text"


def write_raw(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_shards(folder, places, **shards):
    for name, arrays in shards.items():
        save_file(arrays, folder / f"{name}.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_shards_and_16_bit_floats_are_read(tmp_path):
    numbers = np.array([1.5, -2.25, 3.0], np.float16)
    write_shards(
        tmp_path,
        {"a": "one.safetensors", "b": "two.safetensors"},
        one={"a": numbers},
        two={"b": np.ones((2, 2), np.float32)},
    )
    arrays, named = read_arrays(tmp_path)
    assert named == tmp_path / INDEX
    np.testing.assert_array_equal(as_floats(arrays["a"]), [1.5, -2.25, 3.0])
    assert arrays["b"].shape == (2, 2)
    # The upper half of a float32 is a bfloat16.
    upper = (np.array([1.5, -2.25], np.float32).view(np.uint32) >> 16).astype("<u2")
    write_raw(
        tmp_path / WEIGHTS,
        {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}},
        upper.tobytes(),
    )
    np.testing.assert_array_equal(as_floats(read_arrays(tmp_path)[0]["a"]), [1.5, -2.25])


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"a": "../one.safetensors"}, "is not the name of a file in the same folder"),
        ({"a": "/etc/passwd"}, "is not the name of a file in the same folder"),
        ({"a": "..\\one.safetensors"}, "is not the name of a file in the same folder"),
        ({"a": 3}, "is not the name of a file in the same folder"),
        ({"a": "two.safetensors"}, "lists two.safetensors, which is not there"),
        ({"b": "one.safetensors"}, "'b' is not in one.safetensors"),
        ({}, "weight_map lists no arrays"),
        ([], "weight_map lists no arrays"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, places, message):
    (tmp_path / "model").mkdir()
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "one.safetensors")
    write_shards(tmp_path / "model", places, one={"a": np.zeros(2, np.float32)})
    with pytest.raises(UserError, match=message.replace("\\", "\\\\")):
        read_arrays(tmp_path / "model")


def test_damaged_weights_are_refused(tmp_path):
    path = tmp_path / WEIGHTS
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    for contents in (
        b"",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"{]",
        (PUBLISHED / "clip" / WEIGHTS).read_bytes()[:-100],
    ):
        path.write_bytes(contents)
        with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
            read_arrays(tmp_path)
    for header in (
        {"a": entry},  # without data
        {"a": entry | {"shape": [2**62]}},
        {"a": entry | {"data_offsets": [16, 0]}},
        {"a": entry | {"dtype": "F7"}},
    ):
        write_raw(path, header)
        with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
            read_arrays(tmp_path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match="is a pointer of Git LFS"):
        read_arrays(tmp_path)
    path.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no model.safetensors .*pytorch_model.bin is not rea"):
        read_arrays(tmp_path)


def test_numbers_that_are_no_finite_floats_are_refused():
    with pytest.raises(ValueError, match="its numbers are int8, not floats; quantized weights"):
        as_floats(np.zeros(2, np.int8))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            as_floats(np.array([1, bad], np.float16))


@pytest.fixture
def published(tmp_path):
    """Copies a published model, changes it, and returns the error of its conversion."""

    def error_of(case, config=None, arrays=None, files=None):
        folder = shutil.copytree(PUBLISHED / case, tmp_path / "model", dirs_exist_ok=True)
        if config is not None:
            settings = json.loads((folder / "config.json").read_text())
            config(settings)
            (folder / "config.json").write_text(json.dumps(settings))
        if arrays is not None:
            found = load_file(folder / WEIGHTS)
            arrays(found)
            save_file(found, folder / WEIGHTS)
        for name, text in (files or {}).items():
            (folder / name).write_bytes(text)
        with pytest.raises(UserError) as caught:
            convert(folder, tmp_path / "preset")
        assert not (tmp_path / "preset").exists()
        return str(caught.value)

    return error_of


def test_arrays_that_are_missing_or_left_over_are_named(published):
    name = "text_model.final_layer_norm.weight"
    error = published("clip", arrays=lambda found: found.pop(name))
    assert f"has no array '{name}', which the model of config.json needs" in error
    error = published("clip", arrays=lambda found: found.update({"x.lora_A": np.zeros(1)}))
    assert "1 arrays have no place in the model of config.json, such as x.lora_A" in error
    error = published("clip", arrays=lambda found: found.update({name: np.full(8, np.nan)}))
    assert f"{name!r} does not fit config.json: it has numbers that are not finite" in error


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("clip", lambda c: c["text_config"].update(layer_norm_eps=1e-3), "has 1e-05 alone"),
        ("siglip", lambda c: c["vision_config"].update(layer_norm_eps=1e-5), "has 1e-06 alone"),
        ("metaclip_2", lambda c: c["text_config"].update(eos_token_id=5), "eos_token_id is 5"),
        ("clip", lambda c: c["text_config"].update(eos_token_id=5), "eos_token_id is not 522"),
        ("clip", lambda c: c["vision_config"].update(image_size=[32, 32]), "image_size is "),
        ("clip", lambda c: c["vision_config"].update(patch_size="8"), "patch_size is '8'"),
        ("clip", lambda c: c.update(projection_dim=True), "projection_dim is True"),
        ("clip", lambda c: c.update(text_config=[1]), "text_config is not a table of settings"),
        ("clip", lambda c: c["text_config"].update(hidden_act="swoosh"), "no model can be built"),
        ("clip", lambda c: c["text_config"].update(num_attention_heads=3), "no model can be built"),
        ("clip", lambda c: c["text_config"].update(num_hidden_layers=3), "has no array"),
    ],
)
def test_settings_that_kerashubs_model_cannot_have_are_refused(published, case, change, message):
    assert message in published(case, config=change)


def test_tokenizers_of_other_models_are_refused(published):
    bpe = json.loads((PUBLISHED / "clip" / "tokenizer.json").read_text())
    bpe["model"]["vocab"]["later"] = 10_000
    error = published("clip", files={"tokenizer.json": json.dumps(bpe).encode()})
    assert "<|endoftext|> is not its last token" in error
    error = published("clip", files={"tokenizer.json": b'{"model": {"type": "WordPiece"}}'})
    assert "not the tokenizer of a CLIP model" in error
    error = published("siglip", files={"spiece.model": b"no model"})
    assert "its SentencePiece model is damaged" in error
    error = published("siglip", files={"preprocessor_config.json": b'{"image_std": [0, 1, 1]}'})
    assert "preprocessor_config.json: cannot be read" in error


def test_merges_may_be_pairs_or_strings(tmp_path):
    from biam_tf.backbones.hugging_face_tokenizers import clip_tokenizer

    read = json.loads((PUBLISHED / "clip" / "tokenizer.json").read_text())
    pairs = [m if isinstance(m, list) else m.split(" ") for m in read["model"]["merges"]]
    tokens = []
    for merges in (pairs, [" ".join(pair) for pair in pairs]):
        read["model"]["merges"] = merges
        (tmp_path / "tokenizer.json").write_text(json.dumps(read))
        tokens.append(clip_tokenizer(tmp_path, {})("a photo of a red dog").tolist())
    assert tokens[0] == tokens[1]


def trained_pieces(**settings):
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a photo of a dog", "two red cars </s>"] * 5),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return model.getvalue()


def test_siglip_2_ends_texts_as_gemma_does_although_its_vocabulary_has_siglips_end(tmp_path):
    gemma = trained_pieces(
        vocab_size=60,
        model_type="bpe",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=["</s>"],
    )
    (tmp_path / "tokenizer.model").write_bytes(gemma)
    tokenizer = siglip_tokenizer(tmp_path)
    assert (tokenizer.end_token_id, tokenizer.pad_token_id) == (1, 0)
    (tmp_path / "tokenizer.model").write_bytes(trained_pieces(vocab_size=40, eos_id=-1))
    with pytest.raises(UserError, match=r"neither SigLIP's .* nor SigLIP 2's"):
        siglip_tokenizer(tmp_path)


def test_unigrams_of_a_tokenizer_json_become_the_same_pieces(tmp_path):
    original = (PUBLISHED / "siglip" / "spiece.model").read_bytes()
    expected = sentencepiece.SentencePieceProcessor(model_proto=original)
    vocabulary = [[expected.id_to_piece(i), expected.get_score(i)] for i in range(len(expected))]
    model = {"type": "Unigram", "unk_id": expected.unk_id(), "vocab": vocabulary}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    found = sentencepiece.SentencePieceProcessor(model_proto=sentence_pieces(tmp_path))
    for text in ("a photo of a dog", "two red cars, 7", "ein Hund am Meer"):
        assert found.encode(text) == expected.encode(text)
    assert siglip_tokenizer(tmp_path).end_token_id == expected.eos_id()
