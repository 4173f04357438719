"""Asks a server, TensorFlow Serving or ours, for tags: `python -m serving.client`."""

import argparse
import csv
import dataclasses
import json
import os
import pathlib
import random
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

import grpc
import numpy as np

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME

DESCRIPTION = """\
Sends photos to a server (TensorFlow Serving, or `python -m serving.server`) and prints how well
each class fits each photo. The classes are yours: any that the exported model has words for.
Without --classes it prints the best of the classes that the model was trained with.
"""

EXAMPLES = """\
examples:
  python -m serving.client --server localhost:8500 --classes "dog, red car, beach" photo.jpg
  python -m serving.client --classes "dog, beach" --explain evidence.png *.jpg
  python -m serving.client --classes-file classes.txt --format csv *.jpg > tags.csv
"""

DEFAULT_SERVER = "localhost:8500"
DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_MAX_MESSAGE_MB = 64

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_PHOTOS_A_REQUEST = 8

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

    A call that meets UNAVAILABLE (a server that starts, or is being replaced) is sent again
    after a pause that doubles from 0.1 s to at most 5 s, until its deadline; no other failure
    is. Close it, or use it as a context manager.

    Args:
        address: `host:port` of gRPC.
        model_name: what the server calls the model.
        version: number of the version to ask; None: the server's newest.
        timeout_seconds: deadline of a call with all of its repetitions.
        max_message_mb: largest request or answer; gRPC's own 4 MB hold no 7,586 embeddings of
            300 numbers.
        tls: True for an encrypted connection.
        root_certificates: PEM file of the certificates to trust, which switches TLS on; None:
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
        max_message_mb: int = DEFAULT_MAX_MESSAGE_MB,
        tls: bool = False,
        root_certificates: str | os.PathLike | None = None,
    ) -> None:
        from serving.warmup import require_protos

        require_protos()
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self._model_name = model_name
        self._version = version
        self._timeout_seconds = timeout_seconds
        options = [
            ("grpc.max_receive_message_length", max_message_mb * 2**20),
            ("grpc.max_send_message_length", max_message_mb * 2**20),
        ]
        if tls or root_certificates is not None:
            roots = None if root_certificates is None else _read(root_certificates)
            credentials = grpc.ssl_channel_credentials(roots)
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

        Returns:
            (B, C) scores, and (B, h, w, C) response maps, of which the k strongest regions of a
            class are its score.
        """
        _require_one(class_names, class_embeddings)
        if class_names is not None:
            class_embeddings = self.embed(class_names)
        inputs = {"images": _photos(images), "class_embeddings": _numbers(class_embeddings)}
        answer = self._predict("explain", inputs)
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

    def _predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model_name
        request.model_spec.signature_name = signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._answer(request)
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    def _answer(self, request):
        deadline = time.monotonic() + self._timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                return self._stub.Predict(request, timeout=left)
            except grpc.RpcError as error:
                # Half of a pause is left to chance, so that clients don't come back in step.
                wait = pause * random.uniform(0.5, 1.0)
                late = time.monotonic() + wait >= deadline
                if error.code() is not grpc.StatusCode.UNAVAILABLE or late:
                    raise TaggingError(error.code(), error.details()) from error
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _require_one(class_names, class_embeddings) -> None:
    if (class_names is None) == (class_embeddings is None):
        raise UserError("give either class_names or class_embeddings")


def _photos(images: Images) -> np.ndarray:
    if isinstance(images, bytes | str | os.PathLike):
        images = [images]
    photos = [image if isinstance(image, bytes) else _read(image) for image in images]
    return np.array(photos, dtype=object)


def _texts(names: Sequence[str]) -> np.ndarray:
    if isinstance(names, str):
        raise UserError(f"class_names: {names!r} is one text; give a list of names")
    return np.array([name.encode() for name in names], dtype=object)


def _numbers(values) -> np.ndarray:
    return np.asarray(values, np.float32)


def _read(path: str | os.PathLike) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: {error.strerror}") from error


@dataclasses.dataclass(frozen=True)
class _Tagged:
    """One photo's tags, best first."""

    photo: str
    tags: list[tuple[str, float]]


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="JPEG, PNG, GIF or BMP")
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=DEFAULT_SERVER,
        help=f"default: {DEFAULT_SERVER}",
    )
    add_class_options(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="tags a photo (default: 5)")
    parser.add_argument(
        "--explain",
        type=pathlib.Path,
        metavar="OUT.png",
        help="draw the photos, their tags and where each tag was found; needs --classes",
    )
    parser.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="default: table"
    )
    parser.add_argument(
        "--model-name", default=DEFAULT_MODEL_NAME, help=f"default: {DEFAULT_MODEL_NAME}"
    )
    parser.add_argument(
        "--version", type=int, metavar="N", help="of the model (default: the newest)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="for each request of up to 8 photos, waiting for the server included (default: 60)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="encrypt, trusting the certificates of this system"
    )
    parser.add_argument(
        "--tls-root", metavar="FILE", help="encrypt, trusting the certificates of this PEM file"
    )
    return run_command(parser, _command, argv)


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--classes` and `--classes-file`, of which `named_classes` makes a list."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--classes", metavar="NAMES", help='separated by commas: "dog, red car"')
    group.add_argument("--classes-file", metavar="FILE", help="one name a line")


def named_classes(arguments: argparse.Namespace) -> list[str] | None:
    """Returns the classes that a command line names, each once; None where it names none.

    Raises:
        UserError: the file can't be read, or no name is left.
    """
    if arguments.classes is not None:
        where, names = "--classes", arguments.classes.split(",")
    elif arguments.classes_file is not None:
        where = arguments.classes_file
        try:
            names = _read(where).decode().splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error})") from error
    else:
        return None
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not names:
        raise UserError(f"{where}: no class is named")
    return names


def _command(arguments: argparse.Namespace) -> None:
    names = named_classes(arguments)
    if arguments.top < 1 or arguments.timeout <= 0:
        raise UserError("--top and --timeout: use positive numbers")
    if arguments.explain is not None and names is None:
        raise UserError("--explain draws the evidence for classes you name; add --classes")
    client = TaggingClient(
        arguments.server,
        model_name=arguments.model_name,
        version=arguments.version,
        timeout_seconds=arguments.timeout,
        tls=arguments.tls,
        root_certificates=arguments.tls_root,
    )
    photos = [(path, _read(path)) for path in arguments.photos]
    try:
        with client:
            if names is None:
                tagged = _tag_known(client, photos, arguments.top)
            else:
                tagged = _tag(client, photos, names, arguments)
    except TaggingError as error:
        raise UserError(f"{arguments.server} answered {error}") from error
    {"table": _print_table, "csv": _print_csv, "json": _print_json}[arguments.format](tagged)


def _tag_known(client: TaggingClient, photos, top: int) -> list[_Tagged]:
    tagged = []
    for some in _chunks(photos):
        answers = client.tag_known([contents for _, contents in some])
        tagged += [_Tagged(path, tags[:top]) for (path, _), tags in zip(some, answers, strict=True)]
    return tagged


def _tag(client: TaggingClient, photos, names: list[str], arguments) -> list[_Tagged]:
    scores, response_maps = [], []
    for some in _chunks(photos):
        contents = [photo for _, photo in some]
        if arguments.explain is None:
            scores.append(client.tag(contents, names))
        else:
            some_scores, some_maps = client.explain(contents, names)
            scores.append(some_scores)
            response_maps.append(some_maps)
    scores = np.concatenate(scores)
    if arguments.explain is not None:
        _draw(arguments.explain, photos, names, scores, np.concatenate(response_maps))
    tagged = []
    for (path, _), row in zip(photos, scores, strict=True):
        best = np.argsort(-row, kind="stable")[: arguments.top]
        tagged.append(_Tagged(path, [(names[c], float(row[c])) for c in best]))
    return tagged


def _chunks(photos: Sequence) -> Iterable[Sequence]:
    from biam_tf.progress import progress

    starts = range(0, len(photos), _PHOTOS_A_REQUEST)
    if len(starts) == 1:
        yield photos
        return
    with progress(len(photos), "Tagging", "photo") as bar:
        for start in starts:
            some = photos[start : start + _PHOTOS_A_REQUEST]
            yield some
            bar.update(len(some))


def _draw(path: pathlib.Path, photos, names, scores, response_maps) -> None:
    import io

    from PIL import Image

    from biam_tf.contact_sheet import draw_contact_sheet

    pixels = [np.asarray(Image.open(io.BytesIO(contents)).convert("RGB")) for _, contents in photos]
    try:
        draw_contact_sheet(
            path,
            pixels,
            names,
            ["seen"] * len(names),  # a server doesn't tell; nothing is marked
            scores,
            response_maps=response_maps,
            title="Tags, and where each was found",
        )
    except OSError as error:
        raise UserError(f"--explain {path}: {error.strerror or error}") from error


def _print_table(tagged: list[_Tagged]) -> None:
    for number, photo in enumerate(tagged):
        print(("\n" if number else "") + photo.photo)
        for name, score in photo.tags:
            print(f"  {score:8.3f}  {name}")


def _print_csv(tagged: list[_Tagged]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["photo", "tag", "score"])
    for photo in tagged:
        writer.writerows((photo.photo, name, f"{score:.6g}") for name, score in photo.tags)


def _print_json(tagged: list[_Tagged]) -> None:
    rows = [
        {"photo": photo.photo, "tags": [{"name": n, "score": s} for n, s in photo.tags]}
        for photo in tagged
    ]
    print(json.dumps(rows, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
