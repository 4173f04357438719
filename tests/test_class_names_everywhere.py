"""One table of class names, looked up by everything that reads class names."""

import functools
import types
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary, missing_word, names_without_embedding
from serving.demo_page.class_list import KnownClasses
from serving.graph.name_table import Embeddings, NameTable
from serving.indexing.photo_index import VOCABULARY, IndexManifest, PhotoIndex
from training import embed_classes
from training.scoring.evaluation import evaluation_vocabulary

SIZE = 16
WORDS = "drum dogs polar bear cafe émile New_York new red t-shirt u.s. flag -".split()
# Names of a table are whole. Two differ in their id alone.
ROWS = (
    "drum",
    "Polar bear",
    "dogs",
    "Café",
    "New York",
    "Bow (/m/0a1)",
    "Bow (/m/0b2)",
    "Ox (/g/1)",
)


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


# A name, the words of `WORDS` that it is the mean of, the row of `ROWS` that it is.
NAMES = [
    ("drum", "drum", "drum"),
    ("Drum (/m/026t6)", "drum", "drum"),
    ("polar bear", "polar bear", "Polar bear"),
    ("polar_bear", "polar bear", "Polar bear"),
    ("Polar-Bear", "polar bear", "Polar bear"),
    ("PolarBear", "polar bear", "Polar bear"),
    ("POLAR BEAR", "polar bear", "Polar bear"),
    ("polarbear", None, None),
    ("dog", "dogs", None),
    ("DOG", "dogs", None),
    ("Dogs", "dogs", "dogs"),
    ("bears", "bear", None),
    ("café", "cafe", "Café"),
    (decomposed("café"), "cafe", "Café"),
    ("Cafe", "cafe", None),
    ("Émile", "émile", None),
    (decomposed("Émile"), "émile", None),
    ("emile", None, None),
    ("New York", "New_York", "New York"),
    ("NewYork", "New_York", "New York"),
    ("new york", None, "New York"),
    ("new bear", "new bear", None),
    ("bear's drum", "bear drum", None),
    ("the drum of bears", "drum bear", None),
    ("drum and", "drum", None),
    ("of the", None, None),
    ("polar zebra", None, None),
    ("zebra (/m/0898b)", None, None),
    ("drum (polar)", "drum polar", None),
    ("drum (instrument)", None, None),
    ("t-shirt", "t-shirt", None),
    ("red-drum", "red drum", None),
    ("U.S. flag", "u.s. flag", None),
    ("red, new & polar", "red new polar", None),
    ("red - bear", "red - bear", None),
    ("Bow", None, None),
    ("Bow (/m/0b2)", None, "Bow (/m/0b2)"),
    ("bow (/m/0c3)", None, None),
    ("ox", None, "Ox (/g/1)"),
    ("\U0001f43b", None, None),
]
BLANK = ("", " ")
# Vectors that differ for every choice of words.
VECTORS = dict(zip(WORDS, np.random.default_rng(0).normal(size=(len(WORDS), SIZE)), strict=True))
ROW_VECTORS = dict(zip(ROWS, np.random.default_rng(1).normal(size=(len(ROWS), SIZE)), strict=True))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The words as a text, the rows as an .npz file and as a table."""
    folder = tmp_path_factory.mktemp("embeddings")
    lines = [" ".join([word, *map(repr, map(float, v))]) for word, v in VECTORS.items()]
    (folder / "e.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = np.array(list(ROW_VECTORS.values()))
    np.savez(folder / "e.npz", names=[decomposed(row) for row in ROWS], embeddings=rows)
    lines = [",".join([decomposed(r), *map(repr, map(float, v))]) for r, v in ROW_VECTORS.items()]
    header = ",".join(["name", *(f"x{i}" for i in range(SIZE))])
    (folder / "e.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


def expected(name: str, words: str | None, row: str | None, ending: str) -> np.ndarray | None:
    if ending == "txt":
        vector = None if words is None else np.mean([VECTORS[w] for w in words.split(" ")], axis=0)
    else:
        vector = None if row is None else ROW_VECTORS[row]
    return None if vector is None else unit(vector)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def or_none(embed, name):
    try:
        return embed(name)
    except (UserError, tf.errors.InvalidArgumentError):
        return None


# Doors: each takes a file and a folder to write to, and returns a function of a name to its
# embedding, None where the name is refused.


def vocabulary(file, folder):
    def embed(name):
        refused = names_without_embedding(file, [name]) == (name,)
        found = or_none(lambda name: Vocabulary.from_file(file, [name]).embeddings[0], name)
        assert refused == (found is None)
        return found

    return embed


def embed_command(file, folder):
    names = [name for name, _, _ in NAMES]
    (folder / "names.txt").write_text("\n".join(dict.fromkeys(map(composed, names))))
    arguments = [str(folder / "names.txt"), str(folder / "out.npz"), "--source", str(file)]
    assert embed_classes.main([*arguments, "--skip-missing"]) == 0
    written = Vocabulary.load(folder / "out.npz")
    rows = dict(zip(written.names, written.embeddings, strict=True))
    return lambda name: rows.get(composed(name))


def evaluation(file, folder):
    run = types.SimpleNamespace(
        system="biam",
        open_vocabulary=True,
        vocabulary=own_class(),
        word_vectors=None,
        settings={"vocabulary": {}},
    )

    def embed(name):
        dataset = types.SimpleNamespace(names=(name,), groups=("unseen",), directory=folder)
        return evaluation_vocabulary(run, dataset, str(file)).embeddings[0]

    return functools.partial(or_none, embed)


def exported_graph(file, folder):
    module = tf.Module()
    module.names = NameTable(Embeddings.read(own_class(), file), folder)
    spec = tf.TensorSpec((None,), tf.string, name="class_names")
    embed = tf.function(lambda class_names: {"e": module.names(class_names)}, autograph=False)
    signatures = {"embed": embed.get_concrete_function(spec)}
    tf.saved_model.save(module, folder / "model", signatures=signatures)
    loaded = tf.saved_model.load(folder / "model").signatures["embed"]
    return functools.partial(
        or_none, lambda name: loaded(class_names=tf.constant([name]))["e"].numpy()[0]
    )


def photo_index(file, folder):
    own_class().save(folder / VOCABULARY)
    IndexManifest("photos", "model", "", (1, 1), SIZE, False, 1).write(folder)
    index = PhotoIndex(folder)
    return functools.partial(or_none, lambda name: index.embed([name], file)[0])


def own_class() -> Vocabulary:
    return Vocabulary(("own class",), np.eye(1, SIZE), ("seen",))


@pytest.mark.parametrize("ending", ["txt", "npz", "csv"])
@pytest.mark.parametrize(
    "door", [vocabulary, embed_command, evaluation, exported_graph, photo_index]
)
def test_a_name_has_the_same_embedding_everywhere(door, ending, files, tmp_path):
    embed = door(files / f"e.{ending}", tmp_path)
    wrong = []
    for name, words, row in NAMES:
        found, target = embed(name), expected(name, words, row, ending)
        if (found is None) != (target is None):
            wrong.append((name, "refused" if found is None else "found"))
        elif found is not None and not np.allclose(found, target, atol=1e-6):
            wrong.append((name, "another embedding"))
    assert not wrong
    if door is not embed_command:  # whose list of names leaves out blank lines
        assert [embed(name) for name in BLANK] == [None, None]


def test_the_page_marks_the_names_that_the_model_refuses():
    known = KnownClasses(("own class",), frozenset(WORDS))
    table = KnownClasses(ROWS)
    for name, words, row in NAMES:
        assert bool(known.unknown([name])) == (words is None), name
        assert bool(table.unknown([name])) == (row is None), name
        assert (missing_word(name, frozenset(WORDS)) is None) == (words is not None), name


def test_a_suggestion_is_a_name_that_the_model_scores():
    known = KnownClasses((), frozenset(WORDS))
    for name, suggestion in (("PolarBaer", "Polar bear"), ("reds drom", "reds drum")):
        (unknown,) = known.unknown([name])
        assert suggestion in known.suggestions(unknown)
        assert not known.unknown(known.suggestions(unknown))


def test_classes_of_a_run_come_before_words_that_are_written_alike(files, tmp_path):
    vectors = np.random.default_rng(2).normal(size=(3, SIZE))
    own = Vocabulary(("Drum (/m/026t6)", "red bear", "Dogs"), vectors, ("seen",) * 3)
    expected = {
        "Drum (/m/026t6)": own.embeddings[0],
        "Red_Bear": own.embeddings[1],
        "Dogs": own.embeddings[2],
        "DOGS": unit(VECTORS["dogs"]),  # in lower case it is a word
        "drum": unit(VECTORS["drum"]),
        "RedBears": unit(VECTORS["red"] + VECTORS["bear"]),
    }
    own.save(tmp_path / VOCABULARY)
    IndexManifest("photos", "model", "", (1, 1), SIZE, False, 1).write(tmp_path)
    table = NameTable(Embeddings.read(own, files / "e.txt"), tmp_path)
    rows = list(expected.values())
    np.testing.assert_allclose(table(tf.constant(list(expected))), rows, atol=1e-6)
    found = PhotoIndex(tmp_path).embed(list(expected), files / "e.txt")
    np.testing.assert_allclose(found, rows, atol=1e-6)
