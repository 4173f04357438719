"""Errors of requests, with the status codes and messages of TensorFlow Serving."""

import re

import grpc
import tensorflow as tf

# Details travel in HTTP/2 headers, of which gRPC takes 8 KB by default; TensorFlow Serving cuts
# at the same length.
MESSAGE_LIMIT = 1024

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_GRAPH_PREAMBLE = re.compile(
    r"\AGraph execution error:\s+(Detected at node.*?\n)?(<stack traces unavailable>\s+)?",
    re.DOTALL,
)
_FUNCTION = re.compile(r"\A\{\{function_node [^}]*\}\}\s*")
_PHOTOS = re.compile(r"images\[(\d+(?:, \d+)*)\]")
_NODES = re.compile(r"\s*(\[\[\{\{node|\[Op:).*\Z", re.DOTALL)


class RequestError(Exception):
    """Ends a request with a gRPC status code.

    Attributes:
        code: a `grpc.StatusCode`.
        message: what is wrong; longer ones are cut to `MESSAGE_LIMIT` characters and marked.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        if len(message) > MESSAGE_LIMIT:
            message = f"{message[:MESSAGE_LIMIT]}...TRUNCATED"
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> RequestError:
    """Returns the INVALID_ARGUMENT error of a malformed request."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(wanted: str) -> RequestError:
    """Returns the NOT_FOUND error of a model or version that this server does not have."""
    return RequestError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")


def from_tensorflow(error: tf.errors.OpError) -> RequestError:
    """Returns the error with the code of a TensorFlow error; node names leave its message."""
    message = error.message
    for pattern in (_FUNCTION, _GRAPH_PREAMBLE, _NODES):
        message = pattern.sub("", message)
    return RequestError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), message.strip())


def with_photos_from(start: int, error: RequestError) -> RequestError:
    """Returns an error about photos of a later step with their places in the whole request."""

    def shift(found: re.Match) -> str:
        places = [str(start + int(place)) for place in found[1].split(", ")]
        return f"images[{', '.join(places)}]"

    return RequestError(error.code, _PHOTOS.sub(shift, error.message)) if start else error
