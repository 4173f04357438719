import numpy as np
import pytest
import tensorflow as tf

from biam_tf.baselines import known_classes
from biam_tf.baselines.known_classes import DuplicateEmbeddings, KnownClasses

pytestmark = pytest.mark.unit

LEARNED, SIZE = 6, 5


@pytest.fixture
def embeddings(rng):
    rows = rng.normal(size=(LEARNED, SIZE)).astype("float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def scores(rng):
    return rng.normal(size=(3, LEARNED)).astype("float32")


@pytest.mark.parametrize(
    "columns", [range(LEARNED), [0, 1], [4, 2], [5, 5, 0, 1, 2, 3, 4], [3], []]
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_scores_of_any_list_of_learned_classes(embeddings, scores, columns, dtype, compiled):
    columns = np.array(columns, int)
    rounded = tf.cast(tf.cast(embeddings[columns], dtype), tf.float32)
    layer = KnownClasses(embeddings)
    call = tf.function(lambda *inputs: layer(list(inputs))) if compiled else layer
    inputs = (scores, rounded)
    found = call(*inputs) if compiled else call(list(inputs))
    np.testing.assert_array_equal(found, scores[:, columns])


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_that_are_no_learned_class_are_named(embeddings, scores, compiled):
    asked = embeddings[[3, 0, 1, 2]]
    asked[1] *= 1.02
    asked[3] = np.nan
    layer = KnownClasses(embeddings)
    call = tf.function(layer) if compiled else layer
    message = "class_embeddings: this model scores the 6 classes .* none of them is in row 1, 3"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call([scores, tf.constant(asked)])


def test_without_assertions_there_is_no_score_for_another_class(embeddings, scores, monkeypatch):
    monkeypatch.setattr(tf.debugging, "Assert", lambda condition, data: tf.no_op())
    asked = np.stack([embeddings[2], -embeddings[2]])
    found = KnownClasses(embeddings)([scores, asked]).numpy()
    np.testing.assert_array_equal(found[:, 0], scores[:, 2])
    assert np.isnan(found[:, 1]).all()


@pytest.mark.parametrize("columns", [range(LEARNED), [4, 1, 1]])
def test_gradients_reach_the_learned_scores_that_were_asked_for(embeddings, scores, columns):
    columns, scores = list(columns), tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        total = tf.reduce_sum(KnownClasses(embeddings)([scores, embeddings[columns]]))
    expected = np.tile(np.bincount(columns, minlength=LEARNED), (3, 1))
    np.testing.assert_array_equal(tape.gradient(total, scores), expected)


@pytest.mark.parametrize("block", [2, 1024])
@pytest.mark.parametrize("factor", [1.0, 1.004])
def test_two_classes_with_one_embedding_are_refused(embeddings, monkeypatch, block, factor):
    monkeypatch.setattr(known_classes, "_BLOCK", block)
    embeddings[5] = factor * embeddings[2]
    with pytest.raises(DuplicateEmbeddings, match="rows 2 and 5 are the same") as caught:
        KnownClasses(embeddings)
    assert caught.value.rows == (2, 5)


def test_inputs_that_do_not_fit_are_refused(embeddings, scores):
    with pytest.raises(ValueError, match=r"scores \(batch, 6\), class_embeddings"):
        KnownClasses(embeddings)([scores[:, :5], embeddings])
