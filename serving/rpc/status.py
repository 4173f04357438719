"""Failures of a request, with the status codes and the wording of TensorFlow Serving."""

import re

import grpc

# Details travel in HTTP/2 headers, of which gRPC takes 8 KB by default; TensorFlow Serving cuts
# at the same length.
MESSAGE_LIMIT = 1024

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_GRAPH_PREAMBLE = re.compile(
    r"\AGraph execution error:\s+(Detected at node.*?\n)?(<stack traces unavailable>\s+)?",
    re.DOTALL,
)
_FUNCTION = re.compile(r"\A\{\{function_node [^}]*\}\}\s*")
_NODES = re.compile(r"\s*(\[\[\{\{node|\[Op:).*\Z", re.DOTALL)


class RequestError(Exception):
    """A request that can't be answered.

    Attributes:
        code: a `grpc.StatusCode`.
        message: what is wrong, at most `MESSAGE_LIMIT` characters and a mark of the cut.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        if len(message) > MESSAGE_LIMIT:
            message = f"{message[:MESSAGE_LIMIT]}...TRUNCATED"
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> RequestError:
    """Returns the `RequestError` of a request that is wrong in itself."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def from_tensorflow(error) -> RequestError:
    """Turns a `tf.errors.OpError` into the same code; the message loses the names of nodes."""
    message = error.message
    for noise in (_FUNCTION, _GRAPH_PREAMBLE, _NODES):
        message = noise.sub("", message)
    return RequestError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), message.strip())
