"""The clients of `benchmarks.serving`, in a process of their own."""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.shared.random_inputs import class_matrix, noise_photo

CLIENTS = 16


@dataclasses.dataclass(frozen=True)
class Load:
    """Results of one measurement.

    Attributes:
        photos_per_second: Rate of all clients together.
        seconds: Latency of each request.
        first_answers: Scores of the first request of each client.
    """

    photos_per_second: float
    seconds: list[float]
    first_answers: list[np.ndarray]


@contextlib.contextmanager
def client_process() -> Iterator[Callable]:
    """Yields a function that runs another function in one separate process."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def make_requests(embedding_size: int, count: int):
    """Returns the requests of each client, with different class lists and photo sizes."""
    return [
        [
            (
                noise_photo(200 + 40 * client, 160 + 20 * number, client),
                class_matrix(5 + 61 * client, embedding_size),
            )
            for number in range(count)
        ]
        for client in range(CLIENTS)
    ]


def send_concurrently(address: str, requests) -> Load:
    """Sends the requests of each client one after the other, all clients concurrently."""
    from serving.client import TaggingClient

    def work(own):
        seconds, answers = [], []
        for photo, classes in own:
            start = time.perf_counter()
            answers.append(client.tag(photo, class_embeddings=classes))
            seconds.append(time.perf_counter() - start)
        return seconds, answers

    with (
        TaggingClient(address, timeout_seconds=300) as client,
        concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads,
    ):
        start = time.perf_counter()
        results = list(threads.map(work, requests))
        elapsed = time.perf_counter() - start
    seconds = [second for own, _ in results for second in own]
    return Load(len(seconds) / elapsed, seconds, [answers[0] for _, answers in results])


def send_first_alone(address: str, requests) -> list[np.ndarray]:
    """Sends the first request of each client, one at a time."""
    from serving.client import TaggingClient

    with TaggingClient(address, timeout_seconds=300) as client:
        return [client.tag(own[0][0], class_embeddings=own[0][1]) for own in requests]


def seconds_of_request(address: str, photo: bytes, classes: np.ndarray) -> float:
    """Returns the median seconds of a request to an idle server."""
    from serving.client import TaggingClient

    with TaggingClient(address) as client:
        return median_seconds(lambda: client.tag(photo, class_embeddings=classes))


def seconds_of_rescoring(
    address: str, photos: list[bytes], classes: np.ndarray
) -> tuple[float, float]:
    """Returns the seconds for 1,000 photos with full requests (20, times 50) and with rescoring."""
    from serving.client import TaggingClient

    with TaggingClient(address, timeout_seconds=300) as client:
        start = time.perf_counter()
        full = client.tag(photos, class_embeddings=classes)
        full_seconds = (time.perf_counter() - start) * 1000 / len(photos)
        stored = [np.tile(part, (2, *[1] * (part.ndim - 1))) for part in client.features(photos)]
        start = time.perf_counter()
        for _ in range(1000 // len(stored[0])):
            again = client.rescore(*stored, classes)
        rescore_seconds = time.perf_counter() - start
    np.testing.assert_allclose(again[: len(photos)], full, atol=1e-3)
    return full_seconds, rescore_seconds


def median_seconds(function, repeat: int = 20) -> float:
    seconds = []
    for _ in range(repeat + 2):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])
