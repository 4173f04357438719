"""Messages of many small parts, which take many times their memory when protobuf reads them.

64 MB of empty dimensions of a shape are 2 GB of objects, and hold up everything while they are
made. The walk below sees the parts of a `PredictRequest` without reading them.
"""

from collections.abc import Iterator

from serving.rpc.status import RequestError, invalid_argument

CHECKED_BYTES = 2**18  # smaller messages can't do harm
_MOST_INPUTS, _MOST_OUTPUTS = 64, 1024
_MOST_SHAPE_BYTES, _MOST_SPEC_BYTES = 4096, 2**16
_MOST_VARINT_BYTES = 2**20  # integers of one byte, which become eight
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Fields of PredictRequest, of an entry of its map of inputs, and of TensorProto.
_SPEC, _INPUTS, _OUTPUT_FILTER = 1, 2, 3
_VALUE = 2
_SHAPE, _RESOURCES, _VARIANTS = 2, 14, 15
_VARINT_FIELDS = (7, 10, 11, 13, 16, 17)


def require_simple(message: bytes, most_values: int) -> None:
    """Refuses a `PredictRequest` that would take many times its size.

    Args:
        message: as it came.
        most_values: largest number of strings, and of numbers that are sent one by one.

    Raises:
        RequestError: INVALID_ARGUMENT.
    """
    walk = _Walk(most_values)
    inputs = outputs = 0
    for number, value in walk.fields(memoryview(message)):
        if number == _SPEC and len(value) > _MOST_SPEC_BYTES:
            raise invalid_argument(f"model_spec of {len(value)} bytes")
        outputs += number == _OUTPUT_FILTER
        if number == _INPUTS:
            inputs += 1
            _require_simple_input(walk, value)
        if inputs > _MOST_INPUTS or outputs > _MOST_OUTPUTS:
            raise invalid_argument(f"more than {_MOST_INPUTS} inputs or {_MOST_OUTPUTS} outputs")


def _require_simple_input(walk: "_Walk", entry: memoryview) -> None:
    shape = integers = 0
    for number, tensor in walk.fields(entry):
        for field, value in walk.fields(tensor) if number == _VALUE else ():
            if field in (_RESOURCES, _VARIANTS):
                raise invalid_argument("tensors of resources and variants are no inputs")
            shape += len(value) * (field == _SHAPE)
            integers += len(value) * (field in _VARINT_FIELDS)
            if shape > _MOST_SHAPE_BYTES:
                raise invalid_argument("a shape of more than 254 dimensions")
            if integers > _MOST_VARINT_BYTES:
                raise invalid_argument(
                    f"integers of more than {_MOST_VARINT_BYTES} bytes; no input takes them"
                )


class _Walk:
    """Goes through the fields of messages, up to a number of them together."""

    def __init__(self, most: int):
        self._most = self._left = most

    def fields(self, message: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yields the number of each field, and its contents."""
        position = 0
        while position < len(message):
            self._left -= 1
            if self._left < 0:
                raise invalid_argument(f"more than {self._most} values in one message")
            tag, start = _varint(message, position)
            kind = tag & 7
            if kind == _VARINT:
                _, position = _varint(message, start)
            elif kind == _FIXED64:
                position = start + 8
            elif kind == _FIXED32:
                position = start + 4
            elif kind == _BYTES:
                size, start = _varint(message, start)
                position = start + size
            else:
                raise broken()
            if position > len(message):
                raise broken()
            yield tag >> 3, message[start:position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Returns a number of up to 64 bits, and the place behind it."""
    found = shift = 0
    while shift < 70 and position < len(message):
        byte = message[position]
        position += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, position
        shift += 7
    raise broken()


def broken() -> RequestError:
    """Returns the error of bytes that are no message."""
    return invalid_argument("these bytes are no message of this method")
