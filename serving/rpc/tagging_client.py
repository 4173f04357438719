"""A gRPC client whose methods are the signatures of an exported tagger."""

import contextlib
import logging
import os
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

try:
    import grpc
except ImportError as missing:
    raise ImportError(
        "the client needs the package grpcio; install it with pip install 'biam-tf[client]'"
    ) from missing
import numpy as np

from biam_tf.class_calibration import Selection, Tag
from biam_tf.errors import plain_message
from biam_tf.network import host_of, is_loopback
from serving import DEFAULT_MODEL_NAME
from serving.rpc.answers import Answer, Classes, read_calibration, read_known_tags
from serving.rpc.messages import (
    GET_MODEL_METADATA,
    PREDICT,
    message_classes,
    read_tensor,
    write_tensor,
)
from serving.rpc.request_inputs import (
    Images,
    numbers_input,
    photos_input,
    read_certificates,
    require_one,
    texts_input,
)
from serving.rpc.request_inputs import read_file as read_file  # used here by others

DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_MAX_MESSAGE_MB = 64

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
# Larger embeddings do not travel with each request; the model looks the names up again.
_LARGE = 2**22
_LOG = logging.getLogger(__name__)
# How an exported model begins its message about photos: the places of those that it refuses.
_ABOUT_PHOTOS = re.compile(r"images(?:\[([0-9, ]+)\])?: ")


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

    @property
    def refused_photos(self) -> list[int] | None:
        """The places of the refused photos in the request, counted from 0.

        Empty if photos are refused, but the message does not say which; None if the error is about
        something else.
        """
        found = _ABOUT_PHOTOS.match(plain_message(self.message))
        if self.code is not grpc.StatusCode.INVALID_ARGUMENT or found is None:
            return None
        return [int(place) for place in (found[1] or "").split(",") if place.strip()]

    @property
    def reason(self) -> str:
        """The message without TensorFlow's additions and without the places of photos."""
        return _ABOUT_PHOTOS.sub("", plain_message(self.message), count=1)


class TaggingClient:
    """A gRPC client whose methods are the signatures of an exported tagger; thread-safe.

    It uses only PredictionService, so it works with TensorFlow Serving and `serving.server`.
    A call that fails with UNAVAILABLE (the server is starting or being replaced) is retried
    after a pause that doubles from 0.1 s to at most 5 s, until its deadline; other failures are
    not retried. Close the client, or use it as a context manager.

    TensorFlow is not needed: the messages are made by protobuf and NumPy (`serving.rpc.messages`),
    and the extra [client] installs what this class imports. A server on this machine (`localhost`,
    127.0.0.1, ::1) is never asked through the proxy of `http_proxy`.

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
        UserError: the file of certificates can't be read.
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
        if is_loopback(host_of(address)):
            options.append(("grpc.enable_http_proxy", 0))
        if tls or root_certificates is not None:
            credentials = grpc.ssl_channel_credentials(read_certificates(root_certificates))
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        messages = message_classes()
        self._predict_call = self._channel.unary_unary(
            PREDICT,
            messages.PredictRequest.SerializeToString,
            messages.PredictResponse.FromString,
        )
        self._metadata_call = self._channel.unary_unary(
            GET_MODEL_METADATA,
            messages.GetModelMetadataRequest.SerializeToString,
            messages.GetModelMetadataResponse.FromString,
        )

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
            TaggingError: the server returned an error; photos given as paths are named by them.
            UserError: a file can't be read, or not exactly one of names and embeddings is given.
        """
        require_one(class_names, class_embeddings)
        if class_embeddings is not None:
            return self.answer(images, Classes.scored_only(class_embeddings)).scores
        assert class_names is not None
        inputs = {"images": photos_input(images), "class_names": texts_input(class_names)}
        with _named_by_file(images):
            return self._predict("tag", inputs)["scores"]

    def tag_known(self, images: Images) -> list[list[tuple[str, float]]]:
        """Returns the best of the model's own classes for each photo as (name, score), best first.

        Their number is fixed at export. Raises as `tag` does.
        """
        return [[(tag.name, tag.score) for tag in tags] for tags in self.known_tags(images)]

    def known_tags(self, images: Images, selection: Selection | None = None) -> list[list[Tag]]:
        """Returns the best of the model's own classes for each photo, best first.

        Raises as `tag` does, and a `UserError` if the selection needs thresholds that the model
        does not have.
        """
        with _named_by_file(images):
            outputs = self._predict("tag_known", {"images": photos_input(images)})
        return read_known_tags(outputs, selection or Selection())

    def classes(
        self,
        class_names: Sequence[str] | None = None,
        class_embeddings: np.ndarray | None = None,
    ) -> Classes:
        """Returns classes for `answer`, with their embeddings and calibration.

        Args:
            class_names: C class names that the model can embed; or
            class_embeddings: (C, d_a), one row per class, which are new to the model.

        Raises:
            TaggingError: the server returned an error.
            UserError: not exactly one of names and embeddings is given.
        """
        require_one(class_names, class_embeddings)
        return self._classes(class_names, class_embeddings, self._deadline())

    def answer(
        self, images: Images, classes: Classes | Sequence[str], *, response_maps: bool = False
    ) -> Answer:
        """Scores photos, with probabilities and tags by the calibration of the model.

        Args:
            images: one photo or several, as for `tag`.
            classes: C class names, or what `classes` returned. They are embedded again if the
                server has another version of the model by now.
            response_maps: whether to return these, too.

        Raises as `tag` does.
        """
        deadline, photos = self._deadline(), photos_input(images)
        if not isinstance(classes, Classes):
            classes = self._classes(classes, None, deadline)
        while True:
            signature = "explain" if response_maps else "serving_default"
            inputs = {"images": photos, "class_embeddings": classes.embeddings}
            if classes.names and not response_maps and classes.embeddings.nbytes > _LARGE:
                signature = "tag"
                inputs = {"images": photos, "class_names": texts_input(classes.names)}
            with _named_by_file(images):
                outputs, version = self._request(signature, inputs, deadline)
            # A version that was loaded in between may embed names differently.
            if classes.version in (None, version):
                return Answer(classes, outputs["scores"], outputs.get("response_maps"))
            embeddings = classes.embeddings if classes.names is None else None
            classes = self._classes(classes.names, embeddings, deadline)

    def _classes(
        self,
        class_names: Sequence[str] | None,
        class_embeddings: np.ndarray | None,
        deadline: float,
    ) -> Classes:
        if class_names is not None:
            texts = {"class_names": texts_input(class_names)}
            outputs, version = self._request("embed", texts, deadline)
            embeddings, calibration = outputs["class_embeddings"], read_calibration(outputs)
            return Classes(tuple(class_names), embeddings, calibration, version)
        assert class_embeddings is not None
        embeddings = numbers_input(class_embeddings)
        outputs, its_version = self._calibrate(embeddings, deadline)
        return Classes(None, embeddings, read_calibration(outputs), its_version)

    def _calibrate(
        self, embeddings: np.ndarray, deadline: float
    ) -> tuple[dict[str, np.ndarray], int | None]:
        try:
            return self._request("calibrate", {"class_embeddings": embeddings}, deadline)
        except TaggingError as error:
            if "signature key" not in error.message.lower():
                raise
        return {}, None  # an early export, or one of a run without thresholds

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
        require_one(class_names, class_embeddings)
        asked: Classes | Sequence[str] | None = class_names
        if class_embeddings is not None:
            asked = Classes.scored_only(class_embeddings)
        assert asked is not None
        answer = self.answer(images, asked, response_maps=True)
        assert answer.response_maps is not None
        return answer.scores, answer.response_maps

    def embed(self, class_names: Sequence[str]) -> np.ndarray:
        """Returns the model's embeddings (C, d_a) of C class names, for `rescore`."""
        return self._predict("embed", {"class_names": texts_input(class_names)})["class_embeddings"]

    def features(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Returns region features (B, h, w, d) and scene feature (B, d_g) of B photos."""
        with _named_by_file(images):
            outputs = self._predict("features", {"images": photos_input(images)})
        return outputs["region_features"], outputs["scene_feature"]

    def rescore(
        self,
        region_features: np.ndarray,
        scene_feature: np.ndarray,
        class_embeddings: np.ndarray,
    ) -> np.ndarray:
        """Returns scores (B, C) of the outputs of `features`, without the photos."""
        inputs = {
            "region_features": numbers_input(region_features),
            "scene_feature": numbers_input(scene_feature),
            "class_embeddings": numbers_input(class_embeddings),
        }
        return self._predict("rescore", inputs)["scores"]

    def answers(self, timeout_seconds: float = 1.0) -> bool:
        """Returns whether the server responds and has the model loaded; does not retry."""
        request = message_classes().GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._model_name
        try:
            self._metadata_call(request, timeout=timeout_seconds)
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
        request = message_classes().PredictRequest()
        request.model_spec.name = self._model_name
        request.model_spec.signature_name = signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        for name, value in inputs.items():
            write_tensor(request.inputs.add(key=name).value, value)
        response = self._send(request, deadline)
        outputs = {output.key: read_tensor(output.value) for output in response.outputs}
        return outputs, response.model_spec.version.value

    def _send(self, request: Any, deadline: float) -> Any:
        pause, retried = _FIRST_PAUSE_SECONDS, 0
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                return self._predict_call(request, timeout=left)
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


@contextlib.contextmanager
def _named_by_file(images: Images) -> Iterator[None]:
    """Names the photos that an error is about by their paths, where they were given as paths."""
    try:
        yield
    except TaggingError as error:
        given = [images] if isinstance(images, bytes | str | os.PathLike) else list(images)
        places = error.refused_photos or []
        named = [given[place] for place in places if place < len(given)]
        if not named or any(isinstance(photo, bytes) for photo in named):
            raise
        listed = ", ".join(str(photo) for photo in named)
        raise TaggingError(error.code, f"{listed}: {error.reason}") from error
