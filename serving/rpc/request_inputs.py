"""What callers give to the client, as the arrays and bytes that it sends."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from biam_tf.errors import UserError

Images = bytes | str | os.PathLike | Sequence[bytes | str | os.PathLike]


def require_one(class_names: object, class_embeddings: object) -> None:
    if (class_names is None) == (class_embeddings is None):
        raise UserError("give either class_names or class_embeddings")


def photos_input(images: Images) -> np.ndarray:
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


def texts_input(names: Sequence[str]) -> np.ndarray:
    if isinstance(names, str):
        raise UserError(f"class_names: {names!r} is one text; give a list of names")
    return np.array([name.encode() for name in names], dtype=object)


def numbers_input(values: npt.ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float32)


def read_certificates(path: str | os.PathLike | None) -> bytes | None:
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
