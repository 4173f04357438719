"""A gRPC client whose methods are the signatures of an exported tagger."""

import logging
import os
import pathlib
import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import grpc
import numpy as np
import numpy.typing as npt

from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME

if TYPE_CHECKING:
    from tensorflow_serving.apis import predict_pb2

DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_MAX_MESSAGE_MB = 64

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_LOG = logging.getLogger(__name__)

Images = bytes | str | os.PathLike | Sequence[bytes | str | os.PathLike]


class TaggingError(Exception):
    """A call that failed, with the server's status code and message.

    Attributes:
        code: a `grpc.StatusCode`: INVALID_ARGUMENT for a broken photo or an unknown class name,
            NOT_FOUND for another model or version, UNAVAILABLE and DEADLINE_EXCEEDED for a
            server that can't be reached or takes too long.
        message: the server's message.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class TaggingClient:
    """A gRPC client whose methods are the signatures of an exported tagger; thread-safe.

    It uses only PredictionService, so it works with TensorFlow Serving and `serving.server`.
    A call that fails with UNAVAILABLE (the server is starting or being replaced) is retried
    after a pause that doubles from 0.1 s to at most 5 s, until its deadline; other failures are
    not retried. Close the client, or use it as a context manager.

    Importing this module takes 0.2 s. The first client imports TensorFlow (and Keras with it),
    which takes about 3 s and 550 MB of memory: the messages of `tensorflow_serving.apis` need
    those of the `tensorflow` package.

    Args:
        address: `host:port` of the gRPC server.
        model_name: name of the model on the server.
        version: version number to request; None for the server's newest.
        timeout_seconds: deadline of a call, retries included.
        retries: largest number of retries; None for no limit but the deadline.
        max_message_mb: largest request or response in MB; gRPC's default of 4 MB is too small
            for 7,586 embeddings of 300 numbers.
        tls: whether to encrypt the connection.
        root_certificates: PEM file of the certificates to trust, which implies `tls`; None for
            those of the system.

    Raises:
        UserError: the file of certificates can't be read, or tensorflow-serving-api is missing.
    """

    def __init__(
        self,
        address: str,
        *,
        model_name: str = DEFAULT_MODEL_NAME,
        version: int | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retries: int | None = None,
        max_message_mb: int = DEFAULT_MAX_MESSAGE_MB,
        tls: bool = False,
        root_certificates: str | os.PathLike | None = None,
    ) -> None:
        from serving.graph.warmup import require_protos

        require_protos()
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self._address = address
        self._model_name = model_name
        self._version = version
        self._timeout_seconds = timeout_seconds
        self._retries = retries
        options = [
            ("grpc.max_receive_message_length", max_message_mb * 2**20),
            ("grpc.max_send_message_length", max_message_mb * 2**20),
            # gRPC's own pauses between attempts to connect grow to two minutes, during which
            # retrying a call is pointless.
            ("grpc.max_reconnect_backoff_ms", round(_LONGEST_PAUSE_SECONDS * 1000)),
        ]
        if tls or root_certificates is not None:
            credentials = grpc.ssl_channel_credentials(_certificates(root_certificates))
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __enter__(self) -> "TaggingClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and cancels running calls."""
        self._channel.close()

    def tag(
        self,
        images: Images,
        class_names: Sequence[str] | None = None,
        class_embeddings: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores photos against classes.

        Args:
            images: one photo or a sequence of B: encoded bytes (JPEG, PNG, GIF, BMP) or file paths.
            class_names: C class names that the model can embed; or
            class_embeddings: (C, d_a), one row per class.

        Returns:
            (B, C) float32 scores; larger means likelier.

        Raises:
            TaggingError: the server returned an error.
            UserError: a file can't be read, or not exactly one of names and embeddings is given.
        """
        _require_one(class_names, class_embeddings)
        if class_names is not None:
            inputs = {"images": _photos(images), "class_names": _texts(class_names)}
            return self._predict("tag", inputs)["scores"]
        assert class_embeddings is not None
        inputs = {"images": _photos(images), "class_embeddings": _numbers(class_embeddings)}
        return self._predict("serving_default", inputs)["scores"]

    def tag_known(self, images: Images) -> list[list[tuple[str, float]]]:
        """Returns the best of the model's own classes for each photo as (name, score), best first.

        Their number is fixed at export. Raises as `tag` does.
        """
        outputs = self._predict("tag_known", {"images": _photos(images)})
        return [
            [(name.decode(), float(score)) for name, score in zip(*row, strict=True)]
            for row in zip(outputs["names"], outputs["scores"], strict=True)
        ]

    def explain(
        self,
        images: Images,
        class_names: Sequence[str] | None = None,
        class_embeddings: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores photos and returns response maps; takes the arguments of `tag` and raises as it.

        The signature `explain` takes only embeddings, so names are embedded first, with the
        signature `embed`: two requests within one deadline.

        Returns:
            (B, C) scores and (B, h, w, C) response maps; the mean of the k strongest responses
            of a class is its score.
        """
        _require_one(class_names, class_embeddings)
        inputs, deadline = {"images": _photos(images)}, self._deadline()
        while True:
            version = None
            if class_names is not None:
                texts = {"class_names": _texts(class_names)}
                embedded, version = self._request("embed", texts, deadline)
                class_embeddings = embedded["class_embeddings"]
            assert class_embeddings is not None
            inputs["class_embeddings"] = _numbers(class_embeddings)
            outputs, explained_by = self._request("explain", inputs, deadline)
            # A version that was loaded in between may embed names differently.
            if version in (None, explained_by):
                return outputs["scores"], outputs["response_maps"]

    def embed(self, class_names: Sequence[str]) -> np.ndarray:
        """Returns the model's embeddings (C, d_a) of C class names, for `rescore`."""
        return self._predict("embed", {"class_names": _texts(class_names)})["class_embeddings"]

    def features(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Returns region features (B, h, w, d) and scene feature (B, d_g) of B photos."""
        outputs = self._predict("features", {"images": _photos(images)})
        return outputs["region_features"], outputs["scene_feature"]

    def rescore(
        self,
        region_features: np.ndarray,
        scene_feature: np.ndarray,
        class_embeddings: np.ndarray,
    ) -> np.ndarray:
        """Returns scores (B, C) of the outputs of `features`, without the photos."""
        inputs = {
            "region_features": _numbers(region_features),
            "scene_feature": _numbers(scene_feature),
            "class_embeddings": _numbers(class_embeddings),
        }
        return self._predict("rescore", inputs)["scores"]

    def answers(self, timeout_seconds: float = 1.0) -> bool:
        """Returns whether the server responds and has the model loaded; does not retry."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._model_name
        try:
            self._stub.GetModelMetadata(request, timeout=timeout_seconds)
        except grpc.RpcError:
            return False
        return True

    def _predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._request(signature, inputs, self._deadline())[0]

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_seconds

    def _request(
        self, signature: str, inputs: Mapping[str, np.ndarray], deadline: float
    ) -> tuple[dict[str, np.ndarray], int]:
        """Returns the outputs of a signature and the version of the model that computed them."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model_name
        request.model_spec.signature_name = signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._send(request, deadline)
        outputs = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
        return outputs, response.model_spec.version.value

    def _send(
        self, request: "predict_pb2.PredictRequest", deadline: float
    ) -> "predict_pb2.PredictResponse":
        pause, retried = _FIRST_PAUSE_SECONDS, 0
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                return self._stub.Predict(request, timeout=left)
            except grpc.RpcError as error:
                # Half of the pause is random, so that clients don't all retry at the same time.
                wait = pause * random.uniform(0.5, 1.0)
                late = time.monotonic() + wait >= deadline or retried == self._retries
                if error.code() is not grpc.StatusCode.UNAVAILABLE or late:
                    raise TaggingError(error.code(), error.details()) from error
                if not retried:
                    seconds = deadline - time.monotonic()
                    _LOG.warning(
                        "%s is unavailable; waiting up to %.0f s for it", self._address, seconds
                    )
            time.sleep(wait)
            pause, retried = min(2 * pause, _LONGEST_PAUSE_SECONDS), retried + 1


def _require_one(class_names: object, class_embeddings: object) -> None:
    if (class_names is None) == (class_embeddings is None):
        raise UserError("give either class_names or class_embeddings")


def _photos(images: Images) -> np.ndarray:
    if isinstance(images, bytes | str | os.PathLike):
        images = [images]
    return np.array([_sent(image) for image in images], dtype=object)


def _sent(image: bytes | str | os.PathLike) -> bytes:
    """Returns a photo's contents, as a PNG where servers cannot decode its format."""
    from biam_tf.photos import PhotoError, as_sent

    contents = image if isinstance(image, bytes) else read_file(image)
    try:
        return as_sent(contents)
    except PhotoError as error:
        where = "" if isinstance(image, bytes) else f"{os.fspath(image)}: "
        raise UserError(f"{where}{error}") from error


def _texts(names: Sequence[str]) -> np.ndarray:
    if isinstance(names, str):
        raise UserError(f"class_names: {names!r} is one text; give a list of names")
    return np.array([name.encode() for name in names], dtype=object)


def _numbers(values: npt.ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float32)


def _certificates(path: str | os.PathLike | None) -> bytes | None:
    if path is None:
        return None
    contents = read_file(path)
    # gRPC would only report that it can't connect.
    if b"-----BEGIN CERTIFICATE-----" not in contents:
        raise UserError(f"{os.fspath(path)}: no certificate in PEM form in it")
    return contents


def read_file(path: str | os.PathLike) -> bytes:
    """Returns the contents of a file; raises a `UserError` if it can't be read."""
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: {error.strerror}") from error
