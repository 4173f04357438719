"""The signatures of an exported tagger as Python methods, over gRPC."""

import logging
import os
import pathlib
import random
import time
from collections.abc import Mapping, Sequence

import grpc
import numpy as np

from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME

DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_MAX_MESSAGE_MB = 64

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_LOG = logging.getLogger(__name__)

Images = bytes | str | os.PathLike | Sequence[bytes | str | os.PathLike]


class TaggingError(Exception):
    """What a server answered instead of tags.

    Attributes:
        code: a `grpc.StatusCode`: INVALID_ARGUMENT for a broken photo or an unknown class name,
            NOT_FOUND for another model or version, UNAVAILABLE and DEADLINE_EXCEEDED for a
            server that can't be reached or takes too long.
        message: what the server said.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class TaggingClient:
    """The signatures of an exported tagger as methods; may be shared by threads.

    Only PredictionService is used, so TensorFlow Serving and `serving.server` are alike to it.
    A call that meets UNAVAILABLE (a server that starts, or is being replaced) is sent again
    after a pause that doubles from 0.1 s to at most 5 s, never beyond its deadline; no other
    failure is. Close it, or use it as a context manager.

    Importing this module costs 0.2 s. Making the first client imports TensorFlow (and Keras with
    it), about 3 s and 550 MB of memory: the messages of `tensorflow_serving.apis` are built on
    those of the `tensorflow` package, which can't be had alone.

    Args:
        address: `host:port` of gRPC.
        model_name: what the server calls the model.
        version: number of the version to ask; None: the server's newest.
        timeout_seconds: deadline of a call with all of its repetitions.
        retries: repetitions at most; None: until the deadline.
        max_message_mb: largest request or answer; gRPC's own 4 MB hold no 7,586 embeddings of
            300 numbers.
        tls: True for an encrypted connection.
        root_certificates: PEM file of the certificates to trust, which switches TLS on; None:
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
            # gRPC's own pauses between attempts to connect grow to two minutes, in which
            # repeating a call is in vain.
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

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._channel.close()

    def tag(
        self,
        images: Images,
        class_names: Sequence[str] | None = None,
        class_embeddings: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores photos against classes.

        Args:
            images: a photo or several: encoded bytes (JPEG, PNG, GIF, BMP) or paths of files.
            class_names: C names, which the model has words for; or
            class_embeddings: (C, d_a), one row a class.

        Returns:
            (B, C) float32 scores; larger is likelier.

        Raises:
            TaggingError: the server's answer.
            UserError: a file can't be read, or not exactly one of names and embeddings is given.
        """
        _require_one(class_names, class_embeddings)
        if class_names is not None:
            inputs = {"images": _photos(images), "class_names": _texts(class_names)}
            return self._predict("tag", inputs)["scores"]
        inputs = {"images": _photos(images), "class_embeddings": _numbers(class_embeddings)}
        return self._predict("serving_default", inputs)["scores"]

    def tag_known(self, images: Images) -> list[list[tuple[str, float]]]:
        """Returns the best of the model's own classes for each photo: (name, score), best first.

        How many is fixed at export. Raises as `tag` does.
        """
        answer = self._predict("tag_known", {"images": _photos(images)})
        return [
            [(name.decode(), float(score)) for name, score in zip(*row, strict=True)]
            for row in zip(answer["names"], answer["scores"], strict=True)
        ]

    def explain(
        self,
        images: Images,
        class_names: Sequence[str] | None = None,
        class_embeddings: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores photos and shows where each class was found; arguments and errors as in `tag`.

        The signature `explain` takes embeddings alone, so names are looked up first, with the
        signature `embed`: two requests within one deadline.

        Returns:
            (B, C) scores, and (B, h, w, C) response maps, of which the k strongest regions of a
            class are its score.
        """
        _require_one(class_names, class_embeddings)
        inputs, deadline = {"images": _photos(images)}, self._deadline()
        while True:
            version = None
            if class_names is not None:
                known, version = self._ask("embed", {"class_names": _texts(class_names)}, deadline)
                class_embeddings = known["class_embeddings"]
            inputs["class_embeddings"] = _numbers(class_embeddings)
            answer, explained_by = self._ask("explain", inputs, deadline)
            # A new version that came in between may embed names otherwise.
            if version in (None, explained_by):
                return answer["scores"], answer["response_maps"]

    def embed(self, class_names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (C, d_a) that the model knows for names, for `rescore`."""
        return self._predict("embed", {"class_names": _texts(class_names)})["class_embeddings"]

    def features(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Returns region features (B, h, w, d) and scene feature (B, d_g) of photos."""
        answer = self._predict("features", {"images": _photos(images)})
        return answer["region_features"], answer["scene_feature"]

    def rescore(
        self,
        region_features: np.ndarray,
        scene_feature: np.ndarray,
        class_embeddings: np.ndarray,
    ) -> np.ndarray:
        """Scores (B, C) from what `features` gave, without the photos."""
        inputs = {
            "region_features": _numbers(region_features),
            "scene_feature": _numbers(scene_feature),
            "class_embeddings": _numbers(class_embeddings),
        }
        return self._predict("rescore", inputs)["scores"]

    def answers(self, timeout_seconds: float = 1.0) -> bool:
        """Returns whether the server has the model loaded and answers, asking once."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._model_name
        try:
            self._stub.GetModelMetadata(request, timeout=timeout_seconds)
        except grpc.RpcError:
            return False
        return True

    def _predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._ask(signature, inputs, self._deadline())[0]

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_seconds

    def _ask(
        self, signature: str, inputs: Mapping[str, np.ndarray], deadline: float
    ) -> tuple[dict[str, np.ndarray], int]:
        """Returns the outputs of a signature, and the version of the model that gave them."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model_name
        request.model_spec.signature_name = signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._answer(request, deadline)
        outputs = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
        return outputs, response.model_spec.version.value

    def _answer(self, request, deadline: float):
        pause, repeated = _FIRST_PAUSE_SECONDS, 0
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                return self._stub.Predict(request, timeout=left)
            except grpc.RpcError as error:
                # Half of a pause is left to chance, so that clients don't come back in step.
                wait = pause * random.uniform(0.5, 1.0)
                late = time.monotonic() + wait >= deadline or repeated == self._retries
                if error.code() is not grpc.StatusCode.UNAVAILABLE or late:
                    raise TaggingError(error.code(), error.details()) from error
                if not repeated:
                    seconds = deadline - time.monotonic()
                    _LOG.warning(
                        "%s is unavailable; waiting up to %.0f s for it", self._address, seconds
                    )
            time.sleep(wait)
            pause, repeated = min(2 * pause, _LONGEST_PAUSE_SECONDS), repeated + 1


def _require_one(class_names, class_embeddings) -> None:
    if (class_names is None) == (class_embeddings is None):
        raise UserError("give either class_names or class_embeddings")


def _photos(images: Images) -> np.ndarray:
    if isinstance(images, bytes | str | os.PathLike):
        images = [images]
    photos = [image if isinstance(image, bytes) else read_file(image) for image in images]
    return np.array(photos, dtype=object)


def _texts(names: Sequence[str]) -> np.ndarray:
    if isinstance(names, str):
        raise UserError(f"class_names: {names!r} is one text; give a list of names")
    return np.array([name.encode() for name in names], dtype=object)


def _numbers(values) -> np.ndarray:
    return np.asarray(values, np.float32)


def _certificates(path: str | os.PathLike | None) -> bytes | None:
    if path is None:
        return None
    contents = read_file(path)
    # gRPC would only find that it can't connect.
    if b"-----BEGIN CERTIFICATE-----" not in contents:
        raise UserError(f"{os.fspath(path)}: no certificate in PEM form in it")
    return contents


def read_file(path: str | os.PathLike) -> bytes:
    """Returns what is in a file; raises a `UserError` that names a file that can't be read."""
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: {error.strerror}") from error
