"""Tokens and embeddings of any phrase in a graph, against `tokenizers` and `SentenceEncoder`."""

import random
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from small_encoder import WORDS, random_weights, write_encoder

from biam_tf.embeddings.names import readable
from biam_tf.embeddings.run_encoder import RunEncoder, encoder_of_run
from biam_tf.embeddings.sentence_encoder import SentenceEncoder, minilm_folder
from biam_tf.embeddings.sources import embed_names
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary
from serving.graph import name_rule
from serving.graph.name_table import Embeddings, NameTable
from serving.graph.phrase_encoder import PhraseEncoder
from serving.graph.wordpiece import WordPiece

# Integration tests for the time they take: most trace the graph of an encoder, or save one.
pytestmark = pytest.mark.integration

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789äé\u03c3ß\u0131øæ中国猫日!?.-'"
TOKENS = [
    *WORDS,
    *(letter for letter in LETTERS if letter not in WORDS),
    *(f"##{letter}" for letter in LETTERS if f"##{letter}" not in WORDS),
    *("##ing", "##ghtly", "unmistak", "한", "##ᄒ", "ᄒ", "##ᅡ", "##ᆫ", "〮", "##〮", "##᭄"),
]
# Two templates: the mean of two texts, one with the name twice.
TEMPLATES = ("a photo of {name}", "{name}, {name}!")
# Marks that stay where others go: they are put in order, unless a removed one is between.
MARKS = "\u302e\u1b44\u0941\U0001d16d\u034f\u08d4\U0001e94a\u0301\ufe0f"
ODD = [
    "",
    " ",
    "Dog",
    "a photo of black dogs",
    "caf\u00e9 CAF\u00c9 cafe\u0301",
    "\u0301",
    "a\u302e\u1b44b a\u302e\u0941\u1b44b a\u302e\u0001\u1b44b",
    "\U0001f43b dog\U0001f43b",
    "\u4e2d\u56fddog\u732b \uf900",
    "\ud55c\uad6d\uc5b4",
    "\u0130STANBUL stra\u00dfe \u03a3\u0391\u03a3",
    "a" * 100,
    "a" * 101,
    "photo " * 60,
    "\u4e2d" * 300,
    "\x00a\x01b\u200bc\ufffdd\ue000e\U000f0000f\U0010ffff",
    "a\tb\nc\x0bd\x85e\u00a0f\u3000g\u2028h",
    "[CLS][MASK] x[SEP]y [UNK]",
    "[CL\U000f0000S] [CL\x01S]",
    "red-car's_photo (\u00bfnew?) $5.00 \u20ac\u2014\u00ab\u00bb",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    write_encoder(folder, random_weights(np.random.default_rng(0), TOKENS), TOKENS)
    found = SentenceEncoder.load(folder)
    found.tokenizer.add_special_tokens(SPECIAL)
    return found


@pytest.fixture(scope="module")
def embed(encoder):
    graph = PhraseEncoder(RunEncoder(encoder, TEMPLATES, "small"))
    return lambda texts: graph(tf.constant(texts))[0].numpy()


def tokens_of(tokenizer):
    pieces = WordPiece(tokenizer)
    signature = [tf.TensorSpec((None,), tf.string)]
    divide = tf.function(lambda texts: pieces(texts)[0], signature, autograph=False)
    return lambda texts: divide(tf.constant([text.encode() for text in texts])).to_list()


def expected_tokens(tokenizer, texts):
    return [
        [number for number, used in zip(found.ids, found.attention_mask, strict=True) if used]
        for found in tokenizer.encode_batch(texts)
    ]


def odd_texts(count: int, tokens) -> list[str]:
    draw = random.Random(0)
    characters = [*map(chr, range(0x300))] * 20 + [*map(chr, range(0x3000))]
    characters += [chr(c) for c in range(0x3000, 0x1F000, 3) if not 0xD800 <= c < 0xE000]
    characters += [*MARKS] * 300 + [" "] * 8000 + ["[CLS]", "[SEP]"] * 60
    texts = ["".join(draw.choices(characters, k=draw.randint(0, 30))) for _ in range(count // 2)]
    texts += ["".join(draw.choices(characters, k=300)) for _ in range(count // 20)]
    texts += ["".join(draw.choices(tokens, k=draw.randint(1, 9))) for _ in range(count // 4)]
    texts += ["".join(draw.choices(MARKS + "ab", k=6)) for _ in range(count // 20)]
    more = [unicodedata.normalize(form, text) for text in texts for form in ("NFC", "NFD")]
    return ODD + texts + more[: count - len(ODD) - len(texts)]


def assert_same_tokens(tokenizer, texts):
    found, expected = tokens_of(tokenizer)(texts), expected_tokens(tokenizer, texts)
    wrong = [
        (text, own, right)
        for text, own, right in zip(texts, found, expected, strict=True)
        if own != right
    ]
    assert not wrong, f"{len(wrong)} texts, such as {wrong[0]}"


@pytest.mark.slow
def test_texts_are_divided_as_by_the_library_tokenizers(encoder):
    texts = odd_texts(3000, TOKENS)
    assert_same_tokens(encoder.tokenizer, texts)
    lengths = set(map(len, tokens_of(encoder.tokenizer)(texts)))
    assert max(lengths) == 16 and min(lengths) == 2  # some are cut, some are empty


def test_texts_have_the_embeddings_of_the_python_encoder(encoder, embed):
    python = RunEncoder(encoder, TEMPLATES, "small")
    # The small encoder's random weights are larger than real ones.
    texts = [text for text in ODD if encoder.reads(text)]
    found = embed([readable(text) for text in texts])
    np.testing.assert_allclose(found, python.embed(texts), atol=3e-4)


def test_a_text_has_the_same_embedding_in_any_request(embed):
    texts = [f"photo {'sea ' * (number % 9)}{number}" for number in range(80)]
    alone = np.concatenate([embed([text]) for text in texts[:5]])
    np.testing.assert_allclose(embed([*texts, *texts])[:5], alone, atol=1e-5)
    np.testing.assert_array_equal(embed([*texts, *texts])[80:], embed([*texts, *texts])[:80])


@pytest.fixture(scope="module")
def table(encoder, tmp_path_factory):
    """A run's two classes, one with another embedding than the encoder's, and the encoder."""
    own = Vocabulary(("dog", "Black Sea"), np.eye(2, 12), ("seen", "unseen"))
    embeddings = Embeddings(own, encoder=RunEncoder(encoder, TEMPLATES[:1], "small"))
    names = NameTable(embeddings, tmp_path_factory.mktemp("table"))
    signature = [tf.TensorSpec((None,), tf.string)]
    return tf.function(lambda class_names: names(class_names), signature, autograph=False)


def test_classes_of_the_run_come_first_and_other_names_are_encoded_as_text(table, encoder):
    names = ["photo", "DOG", "a_sea", "black-sea", "photo", "aSea (/m/0a1)", "cafe\u0301"]
    found = table(tf.constant(names)).numpy()
    np.testing.assert_array_equal(found[1], np.eye(12, dtype=np.float32)[0])
    np.testing.assert_array_equal(found[3], np.eye(12, dtype=np.float32)[1])
    others = [0, 2, 4, 5, 6]
    texts = [f"a photo of {text}" for text in ("photo", "a sea", "photo", "a Sea", "caf\u00e9")]
    np.testing.assert_allclose(found[others], encoder.encode(texts), atol=3e-4)
    np.testing.assert_array_equal(table(tf.constant(["Dog"])).numpy(), found[1:2])


@pytest.mark.parametrize("name", ["", "  ", "\u200b", "\u0301\u3000"])
def test_a_name_without_letters_is_refused(table, encoder, name):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        table(tf.constant(["dog", name]))
    assert "class_names[1]" in str(error.value) and "without letters or signs" in str(error.value)
    with pytest.raises(UserError, match="no class name"):
        RunEncoder(encoder, TEMPLATES, "small").embed([name])


def test_the_text_of_a_name_is_that_of_the_rule(encoder):
    names = [name for name in odd_texts(400, TOKENS) if "\x00" not in name]
    decompose = name_rule.Decomposition()
    found = name_rule.readable(name_rule.without_id(decompose(tf.constant(names)))).numpy()
    normalize = encoder.tokenizer.normalizer.normalize_str
    for name, text in zip(names, found, strict=True):
        assert normalize(text.decode()) == normalize(readable(name)), name


@pytest.mark.slow
def test_an_encoder_is_saved_and_loaded_without_this_project(encoder, tmp_path):
    module = tf.Module()
    module.encoder = PhraseEncoder(RunEncoder(encoder, TEMPLATES, "small"))
    spec = tf.TensorSpec((None,), tf.string, name="texts")
    function = tf.function(lambda texts: {"e": module.encoder(texts)[0]}, autograph=False)
    signatures = {"embed": function.get_concrete_function(spec)}
    tf.saved_model.save(module, tmp_path / "model", signatures=signatures)
    loaded = tf.saved_model.load(tmp_path / "model").signatures["embed"]
    texts = tf.constant(["a photo", "[CLS] \u732b", "", "sea"])
    np.testing.assert_allclose(loaded(texts=texts)["e"], module.encoder(texts)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t, n, p: setattr(t, "normalizer", n.Lowercase()), "its normalizer is Lowercase"),
        (
            lambda t, n, p: setattr(t, "normalizer", n.BertNormalizer(strip_accents=False)),
            "it keeps accents",
        ),
        (
            lambda t, n, p: setattr(t, "normalizer", n.BertNormalizer(clean_text=False)),
            "it keeps control characters",
        ),
        (lambda t, n, p: setattr(t, "pre_tokenizer", p.Whitespace()), "is Whitespace, not Bert"),
        (lambda t, n, p: t.add_tokens(["new york"]), "'new york' is matched by a rule of its own"),
    ],
)
def test_a_tokenizer_that_works_otherwise_is_refused(tmp_path, rng, change, problem):
    from tokenizers import normalizers, pre_tokenizers

    write_encoder(tmp_path, random_weights(rng))
    tokenizer = SentenceEncoder.load(tmp_path).tokenizer
    change(tokenizer, normalizers, pre_tokenizers)
    with pytest.raises(UserError, match=problem):
        WordPiece(tokenizer)


def embedded(source, names, templates=("a photo of {name}",)):
    rows = embed_names(str(source), names, templates).rows
    return Vocabulary(names, rows, ("seen",) * len(names))


def settings(word_vectors=None, **head):
    return {"vocabulary": {"word_vectors": word_vectors}, "head": head}


def test_the_encoder_of_a_run_is_the_one_that_made_its_embeddings(tmp_path, rng):
    write_encoder(tmp_path, random_weights(rng))
    names, templates = ("dog", "sea", "black photo"), ("{name}",)
    vocabulary = embedded(tmp_path, names, templates)
    recorded = settings(name_vectors=str(tmp_path), template=templates[0])
    found, reason = encoder_of_run(recorded, vocabulary)
    assert reason is None and found.templates == templates
    np.testing.assert_allclose(found.embed(names), vocabulary.embeddings, atol=1e-5)
    assert encoder_of_run(settings(), vocabulary) == (None, None)  # nothing says so
    other = Vocabulary(names, -vocabulary.embeddings, vocabulary.groups)
    with pytest.raises(UserError, match=r"did not make the run's embeddings: that of .* -1\.000"):
        encoder_of_run(settings(), other, str(tmp_path), templates)
    found, reason = encoder_of_run(recorded, other)
    assert found is None and "did not make the run's embeddings" in reason
    found, reason = encoder_of_run(settings(), vocabulary, str(tmp_path), templates)
    assert found.templates == templates
    with pytest.raises(UserError, match=r"has no \{name\}"):
        encoder_of_run(settings(), vocabulary, str(tmp_path), ["a photo"])
    with pytest.raises(UserError, match=r"have 12 numbers, the run was trained with 3"):
        encoder_of_run(settings(), Vocabulary(names, np.eye(3), ("seen",) * 3), str(tmp_path))


def test_an_encoder_that_is_gone_is_named(tmp_path, rng):
    vocabulary = Vocabulary(("dog",), np.eye(1, 12), ("seen",))
    gone = settings(name_vectors=str(tmp_path / "gone"))
    found, reason = encoder_of_run(gone, vocabulary)
    assert found is None and "gone/config.json: no such file" in reason
    with pytest.raises(UserError, match="gone: no folder of a sentence encoder"):
        encoder_of_run(settings(), vocabulary, str(tmp_path / "gone"))


def test_a_file_of_embeddings_says_what_made_it(tmp_path, rng):
    from training import embed_classes

    folder = tmp_path / "encoder"
    folder.mkdir()
    write_encoder(folder, random_weights(rng))
    (tmp_path / "names.txt").write_text("dog\nblack sea\n")
    out = tmp_path / "classes.npz"
    command = [str(tmp_path / "names.txt"), str(out), "--source", str(folder)]
    assert embed_classes.main([*command, "--template", "{name} photo"]) == 0
    found, _ = encoder_of_run(settings(str(out)), Vocabulary.load(out))
    assert found.source == str(folder) and found.templates == ("{name} photo",)
    assert embed_classes.main([*command, "--source", str(out)]) == 0
    found, reason = encoder_of_run(settings(str(out)), Vocabulary.load(out))
    assert found is None and "are those of 2 sources in one" in reason


def test_word_vectors_and_sentences_that_made_embeddings_together_embed_any_phrase(tmp_path, rng):
    from training import embed_classes

    folder, words = tmp_path / "encoder", tmp_path / "words.txt"
    folder.mkdir()
    write_encoder(folder, random_weights(rng))
    vectors = dict(zip(("dog", "black", "sea", "photo"), rng.normal(size=(4, 5)), strict=True))
    rows = (" ".join([word, *map(str, vector)]) for word, vector in vectors.items())
    words.write_text("".join(f"{row}\n" for row in rows))
    (tmp_path / "names.txt").write_text("dog\nblack sea\n")
    out = tmp_path / "classes.npz"
    command = [str(tmp_path / "names.txt"), str(out), "--source", str(words)]
    assert embed_classes.main([*command, "--source", str(folder)]) == 0
    own = Vocabulary.load(out)
    joined, reason = encoder_of_run(settings(str(out)), own)
    assert reason is None

    of_words = vectors["black"] + vectors["photo"]
    sentence = SentenceEncoder.load(folder).encode(["a photo of Black_photo".replace("_", " ")])[0]
    expected = np.concatenate([of_words / np.linalg.norm(of_words), sentence]) / np.sqrt(2)
    np.testing.assert_allclose(joined.embed(["Black_photo"])[0], expected, atol=1e-6)

    table = NameTable(Embeddings(own, encoder=joined), tmp_path)
    found = table(tf.constant(["Black_photo", "dog", "sea", "Black_photo"])).numpy()
    np.testing.assert_allclose(found[[0, 3]], [expected, expected], atol=3e-4)
    np.testing.assert_array_equal(found[1], own.embeddings[0])
    np.testing.assert_allclose(found[2], joined.embed(["sea"])[0], atol=3e-4)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        table(tf.constant(["dog", "black photos zzyzx"]))
    assert "class_names[1] black photos zzyzx (the word zzyzx): no word vector" in str(error.value)
    with pytest.raises(UserError, match="zzyzx"):
        joined.embed(["black photos zzyzx"])

    other = Vocabulary(own.names, own.embeddings[:, ::-1], own.groups)
    assert "did not make the run's embeddings" in encoder_of_run(settings(str(out)), other)[1]
    words.unlink()
    assert f"and {words} is not there" in encoder_of_run(settings(str(out)), own)[1]


@pytest.fixture(scope="module")
def minilm():
    try:
        return SentenceEncoder.load(minilm_folder())
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_minilm_in_a_graph_is_minilm(minilm):
    tokens = [token for token in minilm.tokenizer.get_vocab() if not token.startswith("##")]
    texts = odd_texts(10_000, sorted(tokens))
    assert_same_tokens(minilm.tokenizer, texts)
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert_same_tokens(minilm.tokenizer, [f"a{character}b" for character in every[:0x32000]])
    run = RunEncoder(minilm, ("a photo of {name}",), "minilm")
    names = [text for text in texts[:400:5] if minilm.reads(text)]
    found = PhraseEncoder(run)(tf.constant([readable(name) for name in names]))[0]
    np.testing.assert_allclose(found, run.embed(names), atol=1e-4)
