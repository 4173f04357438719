"""Good and bad requests, what a server may answer to each, and the two ways to send them."""

import base64
import dataclasses
import functools
import http.client
import json
import time
from collections.abc import Callable

import grpc
import numpy as np

from benchmarks.shared.load_model import LENGTHS, known_scores, length_of, plain_photo
from serving.rpc.messages import PREDICT, message_classes, read_tensor, write_tensor

MAX_CLASSES, MAX_PHOTOS, MAX_ANSWER_MB = 1000, 64, 8
LEFT = "left"  # the client went before the answer came
_TIMEOUT_SECONDS = 60.0
_HTTP_CODES = {200: "OK", 400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}


@dataclasses.dataclass(frozen=True)
class Request:
    """A request and what may be answered.

    Attributes:
        images: contents of the photos.
        class_embeddings: (classes, length), or a wrong shape.
        scores: what a good answer has, (photos, classes); None if none is right.
        refusals: each code that may come instead, with a part of its message.
        signature: the signature.
        model: name of the model.
        version: version asked for; None for the newest.
        patience: seconds after which the client leaves; None for long.
    """

    images: list[bytes]
    class_embeddings: np.ndarray
    scores: np.ndarray | None = None
    refusals: tuple[tuple[str, str], ...] = ()
    signature: str = "serving_default"
    model: str = "tagger"
    version: int | None = None
    patience: float | None = None


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came: a code, the message of a refusal, the scores and, by gRPC, the version."""

    code: str
    message: str = ""
    scores: np.ndarray | None = None
    version: int | None = None


def make_request(kind: str, random: np.random.Generator) -> Request:
    """Returns a random request of one of `KINDS`."""
    length = int(random.choice(LENGTHS))
    brightness = random.integers(0, 256, random.integers(1, 5))
    embeddings = random.normal(size=(random.integers(1, 60), length)).astype(np.float32)
    good = Request(
        [_photo(int(light)) for light in brightness],
        embeddings,
        known_scores(brightness, embeddings),
        # Right while the version in use takes the other length.
        (_other_length(length),),
    )
    return KINDS[kind](good, random)


def _refused(
    good: Request, *parts: str, code: str = "INVALID_ARGUMENT", either: bool = True, **changes
) -> Request:
    """Returns a bad request; `either` says that the length may be what is refused."""
    refusals = tuple((code, part) for part in parts) + good.refusals * either
    return dataclasses.replace(good, scores=None, refusals=refusals, **changes)


def _broken_photo(good: Request, random: np.random.Generator) -> Request:
    whole = good.images[-1]
    broken = [b"no photo", whole[: len(whole) // 2], b""][random.integers(3)]
    return _refused(good, "", images=[*good.images, broken])


def _wrong_shape(good: Request, random: np.random.Generator) -> Request:
    rows = good.class_embeddings
    wrong = [rows[0], rows[:, :3], rows[None], np.hstack([rows, rows])][random.integers(4)]
    return _refused(good, "class_embeddings: shape (", either=False, class_embeddings=wrong)


def _too_many_classes(good: Request, random: np.random.Generator) -> Request:
    rows = np.ones((MAX_CLASSES + 1, good.class_embeddings.shape[1]), np.float32)
    return _refused(good, "--max-classes", class_embeddings=rows)


def _too_many_photos(good: Request, random: np.random.Generator) -> Request:
    return _refused(good, "--max-photos", images=good.images[:1] * (MAX_PHOTOS + 1))


def _too_large_answer(good: Request, random: np.random.Generator) -> Request:
    rows = np.ones((MAX_CLASSES, good.class_embeddings.shape[1]), np.float32)
    images = good.images[:1] * MAX_PHOTOS
    changes = {"images": images, "class_embeddings": rows, "signature": "explain"}
    return _refused(good, "--max-answer-mb", **changes)


def _not_finite(good: Request, random: np.random.Generator) -> Request:
    rows = good.class_embeddings.copy()
    rows[-1, -1] = [np.nan, np.inf][random.integers(2)]
    return _refused(good, "finite", class_embeddings=rows)


def _not_there(good: Request, random: np.random.Generator) -> Request:
    changes = [{"model": "another"}, {"version": 10**9}][random.integers(2)]
    return _refused(good, "not found", code="NOT_FOUND", either=False, **changes)


def _no_signature(good: Request, random: np.random.Generator) -> Request:
    return _refused(good, 'key "nothing" not found', either=False, signature="nothing")


def _impatient(good: Request, random: np.random.Generator) -> Request:
    refusals = (("DEADLINE_EXCEEDED", ""), (LEFT, ""), *good.refusals)
    return dataclasses.replace(good, refusals=refusals, patience=float(random.uniform(5e-4, 5e-3)))


KINDS: dict[str, Callable[[Request, np.random.Generator], Request]] = {
    "good": lambda good, random: good,
    "broken photo": _broken_photo,
    "wrong shape": _wrong_shape,
    "too many classes": _too_many_classes,
    "too many photos": _too_many_photos,
    "too large an answer": _too_large_answer,
    "numbers not finite": _not_finite,
    "no such model or version": _not_there,
    "no such signature": _no_signature,
    "tiny deadline": _impatient,
}


def fault_of(request: Request, reply: Reply) -> str:
    """Returns what is wrong with a reply to a request; empty if nothing is."""
    if reply.code != "OK":
        if any(reply.code == code and part in reply.message for code, part in request.refusals):
            return ""
        return f"code {reply.code}: {reply.message}"
    if request.scores is None:
        return "code OK"
    assert reply.scores is not None
    if reply.scores.shape != request.scores.shape:
        return f"scores of shape {reply.scores.shape} instead of {request.scores.shape}"
    length = request.class_embeddings.shape[1]
    if reply.version is not None and length_of(reply.version) != length:
        return f"version {reply.version} answered to embeddings of length {length}"
    worst = np.abs(reply.scores - request.scores).max()
    return "" if worst < 1e-4 else f"scores differ by {worst:.1e}"


class GrpcSender:
    """Sends requests over gRPC, through a connection of its own."""

    def __init__(self, server: tuple[str, int]):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(server[0], options)
        messages = message_classes()
        self._make = messages.PredictRequest
        self._predict = self._channel.unary_unary(
            PREDICT, self._make.SerializeToString, messages.PredictResponse.FromString
        )

    def send(self, request: Request) -> Reply:
        """Returns the reply."""
        message = self._make()
        message.model_spec.name = request.model
        message.model_spec.signature_name = request.signature
        if request.version is not None:
            message.model_spec.version.value = request.version
        images = np.empty(len(request.images), object)
        images[:] = request.images
        for name, array in (
            ("images", images),
            ("class_embeddings", request.class_embeddings),
        ):
            write_tensor(message.inputs.add(key=name).value, array)
        try:
            answer = self._predict(message, timeout=request.patience or _TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return Reply(error.code().name, error.details() or "")
        (scores,) = (item.value for item in answer.outputs if item.key == "scores")
        return Reply("OK", "", read_tensor(scores), answer.model_spec.version.value)

    def close(self) -> None:
        self._channel.close()


class RestSender:
    """Sends requests through REST, over a connection that is kept open."""

    def __init__(self, server: tuple[str, int]):
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", server[1], timeout=_TIMEOUT_SECONDS
        )

    def send(self, request: Request) -> Reply:
        """Returns the reply. An impatient client closes the connection before it comes."""
        body = json.dumps(
            {
                "signature_name": request.signature,
                "inputs": {
                    "images": [
                        {"b64": base64.b64encode(image).decode()} for image in request.images
                    ],
                    "class_embeddings": request.class_embeddings.tolist(),
                },
            }
        ).encode()
        version = "" if request.version is None else f"/versions/{request.version}"
        path = f"/v1/models/{request.model}{version}:predict"
        try:
            if request.patience is not None:
                return self._leave(path, body, request.patience)
            self._connection.request("POST", path, body)
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            return Reply(f"no answer: {type(error).__name__}", str(error))
        code = _HTTP_CODES.get(response.status, f"HTTP {response.status}")
        if code != "OK":
            return Reply(code, answer["error"])
        outputs = answer["outputs"]
        return Reply(
            code, "", np.array(outputs["scores"] if isinstance(outputs, dict) else outputs)
        )

    def _leave(self, path: str, body: bytes, patience: float) -> Reply:
        """Sends the whole body, or in every second case half of it, and goes."""
        self._connection.putrequest("POST", path)
        self._connection.putheader("Content-Length", str(len(body)))
        self._connection.endheaders()
        self._connection.send(body if body[-1 - len(body) % 7] % 2 else body[: len(body) // 2])
        time.sleep(patience)
        self._connection.close()
        return Reply(LEFT)

    def close(self) -> None:
        self._connection.close()


SENDERS: dict[str, Callable[[tuple[str, int]], GrpcSender | RestSender]] = {
    "gRPC": GrpcSender,
    "REST": RestSender,
}


def _other_length(length: int) -> tuple[str, str]:
    (other,) = {*LENGTHS} - {length}
    return "INVALID_ARGUMENT", f"expected (any, {other})"


@functools.cache
def _photo(brightness: int) -> bytes:
    return plain_photo(brightness)
