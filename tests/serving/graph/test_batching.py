"""Photos of several requests in one call of the backbone."""

import dataclasses
import functools
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded

from biam_tf.errors import UserError
from biam_tf.runs import load_run
from serving.graph.batching import Batching
from serving.graph.signatures import CLASS_EMBEDDINGS, IMAGES, GraphSettings, TaggerGraph

CLIENTS = 12


class SlowBackbone:
    """A backbone that notes the size of each batch and takes a while, whatever the size."""

    def __init__(self, backbone, seconds=0.05):
        self.output, self.variables = backbone.output, backbone.variables
        self.input_shape = backbone.input_shape
        self.sizes = []
        self._backbone, self._seconds = backbone, seconds

    def __call__(self, photos, training):
        def note(size):
            self.sizes.append(int(size))
            time.sleep(self._seconds)
            return size

        noted = tf.numpy_function(note, [tf.shape(photos)[0]], tf.int32)
        with tf.control_dependencies([noted]):
            return self._backbone(tf.identity(photos), training=training)


@pytest.fixture(scope="module")
def run(finished):
    run = load_run(finished.path)
    return dataclasses.replace(run, backbone=SlowBackbone(run.backbone))


@pytest.fixture(scope="module")
def score(run):
    """Returns a function that makes the signature `serving_default` with some batching.

    It makes another one of the same settings only for another `number`: each takes seconds.
    """
    graphs = []  # a function does not keep alive what it was made from

    @functools.cache
    def made(batching, number):
        graphs.append(TaggerGraph(run, None, GraphSettings(batching=batching)))
        function = tf.function(graphs[-1].serving_default, autograph=False)
        return function.get_concrete_function(IMAGES, CLASS_EMBEDDINGS)

    def make(batching, number=1):
        signature = made(batching, number)
        run.backbone.sizes.clear()
        return lambda images, classes: signature(
            images=tf.constant(images), class_embeddings=tf.constant(classes)
        )["scores"].numpy()

    return make


@pytest.fixture(scope="module")
def requests(run):
    """Photos of other sizes and a class list of another length for each client."""
    rng = np.random.default_rng(0)
    length = run.vocabulary.embedding_size
    return [
        (
            [encoded("JPEG", (50 + 3 * client, 60 + client), seed=client)],
            rng.normal(size=(1 + 5 * client, length)).astype(np.float32),
        )
        for client in range(CLIENTS)
    ]


@pytest.fixture(scope="module")
def alone(score, requests):
    """The answers to each request on its own, without batches."""
    ask = score(None)
    return [ask(*request) for request in requests]


def ask_together(score, requests) -> list:
    """The answers, or errors, to requests that are sent at the same time."""
    answers = [None] * len(requests)

    def ask(client):
        try:
            answers[client] = score(*requests[client])
        except tf.errors.OpError as error:
            answers[client] = error

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.slow
def test_requests_with_other_class_lists_share_a_batch_and_keep_their_answers(
    score, run, requests, alone
):
    together = ask_together(score(Batching(CLIENTS, 10_000.0, 1)), requests)
    assert run.backbone.sizes == [CLIENTS]  # as soon as it is full, long before the timeout
    for answer, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_photos_that_come_in_while_the_backbone_is_busy_share_the_next_batch(score, run, requests):
    ask = score(Batching(16, 0.0, 1))
    ask(*requests[0])  # the first call is slow, and only few photos would be ready together
    run.backbone.sizes.clear()
    ask_together(ask, requests)
    assert sum(run.backbone.sizes) == CLIENTS and len(run.backbone.sizes) <= CLIENTS / 2


@pytest.mark.slow
def test_a_bad_request_leaves_those_beside_it_unharmed(score, run, requests, alone):
    classes = requests[0][1]
    bad = [
        ([b"no photo"], classes),
        ([], classes),
        (requests[0][0], classes[:, :3]),
        (requests[0][0], classes * np.nan),
    ]
    mixed = [request for pair in zip(requests[:4], bad, strict=True) for request in pair]
    answers = ask_together(score(Batching(4, 10_000.0, 1)), mixed)
    assert run.backbone.sizes == [4]  # the bad ones never get into a batch
    for answer, expected in zip(answers[::2], alone, strict=False):
        np.testing.assert_allclose(answer, expected, atol=1e-5)
    for answer in answers[1::2]:
        assert isinstance(answer, tf.errors.InvalidArgumentError)


def test_a_request_larger_than_a_batch_is_split(score, run, requests):
    photos = [photo for images, _ in requests for photo in images]
    classes = requests[3][1]
    expected = score(None)(photos, classes)
    found = score(Batching(5, 0.0, 1))(photos, classes)
    assert max(run.backbone.sizes) <= 5 and sum(run.backbone.sizes) == CLIENTS
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_lone_request_waits_no_longer_than_the_timeout(score, requests):
    # The batch is never filled, so an answer shows that the wait ended, with and without a timeout.
    expected = score(None)(*requests[0])
    for timeout in (300.0, 0.0):
        found = score(Batching(16, timeout, 1))(*requests[0])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_two_models_in_one_process_keep_their_photos_apart(score, run, requests):
    first, second = (score(Batching(2, 400.0, 1), number) for number in (1, 2))
    threads = [threading.Thread(target=ask, args=requests[0]) for ask in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.backbone.sizes == [1, 1]


def test_batches_are_filled_up_to_powers_of_two_where_that_helps(score, run, requests):
    assert Batching(6, 0.0, 1, whole_powers=True).batch_sizes == [1, 2, 4, 6]
    photos = [photo for images, _ in requests[:3] for photo in images]
    expected = score(None)(photos, requests[0][1])
    found = score(Batching(8, 0.0, 1, whole_powers=True))(photos, requests[0][1])
    assert run.backbone.sizes == [4]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 0.0, 1), "max_batch_size: 0"),
        ((1, 0.0, 0), "threads: 0"),
        ((1, -1.0, 1), "timeout_ms: -1"),
        ((1, float("nan"), 1), "timeout_ms: nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Batching(*settings)
