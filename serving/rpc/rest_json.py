"""Requests and answers of TensorFlow Serving's REST API, as JSON.

`inputs` are columns, `{"images": [{"b64": "…"}], "class_names": ["dog", "beach"]}`. `instances`
are rows, one for each photo: `[{"b64": "…"}, {"b64": "…"}]` or `[{"images": {"b64": "…"}}]`. A
value may stand alone if the signature has one input. Bytes are `{"b64": "base64 of them"}`.
"""

import base64
import binascii
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.rpc.limits import STRING_BYTES, fits, static_sizes
from serving.rpc.model_version import DEFAULT_SIGNATURE, ModelVersion, requested_outputs
from serving.rpc.status import invalid_argument

BYTES_PER_NUMBER = 14  # of a float32 in JSON, about
_AT_A_TIME = 4096  # numbers written between looks at whether others need the interpreter
_BASE64_AT_A_TIME = 2**20  # characters; a multiple of 4
_KEYS = ("signature_name", "inputs", "instances", "output_filter")
# Parsed JSON needs many times the memory of its text.
_MOST_VALUES, _MOST_PAIRS = 4_000_000, 65_536
_LISTED = 20  # names in an error message


@dataclasses.dataclass(frozen=True)
class RestRequest:
    """A request for a signature.

    Attributes:
        signature: its name.
        inputs: arrays with the dtypes of the signature; strings as arrays of bytes objects.
        outputs: the names of the outputs to return.
        rows: whether it came, and is answered, in row format.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]
    outputs: list[str]
    rows: bool


def read_request(body: bytes | bytearray, version: ModelVersion, max_bytes: int) -> RestRequest:
    """Reads the body of a `:predict` request.

    Args:
        body: JSON.
        version: the version that is asked.
        max_bytes: larger inputs are refused.

    Raises:
        RequestError: INVALID_ARGUMENT; the message says what was expected.
    """
    _require_simple(body)
    fields = _parse(body)
    name = fields.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(name, str):
        raise invalid_argument("signature_name: not a text")
    signature = version.signature(name)
    if ("inputs" in fields) == ("instances" in fields):
        raise invalid_argument(
            'give "inputs" (columns: {"images": […], "class_names": […]}) or "instances" '
            "(rows, one for each photo)"
        )
    rows = "instances" in fields
    read = _columns_of_rows if rows else _columns
    columns = read(fields["instances" if rows else "inputs"], [*signature.inputs])
    inputs = {
        key: _array(key, columns[key], info, max_bytes) for key, info in signature.inputs.items()
    }
    wanted = fields.get("output_filter", [])
    if not isinstance(wanted, list) or not all(isinstance(key, str) for key in wanted):
        raise invalid_argument("output_filter: not a list of names")
    outputs = requested_outputs(wanted, signature.outputs)
    return RestRequest(name, inputs, outputs, rows)


def write_answer(
    outputs: Mapping[str, np.ndarray],
    request: RestRequest,
    check: Callable[[], None] = lambda: None,
) -> list[bytes]:
    """Writes outputs as TensorFlow Serving does, `outputs` or `predictions`, in parts.

    Args:
        outputs: the outputs of the signature.
        request: the request.
        check: called now and then; may raise to end the request.

    Raises:
        RequestError: INVALID_ARGUMENT; an output has another number of rows than the request.
    """
    wanted = {key: outputs[key] for key in request.outputs}
    parts: list[bytes] = []
    if not request.rows:
        parts.append(b'{"outputs": ')
        _write_named(wanted, parts, check)
        return [*parts, b"}\n"]
    rows = max((len(array) for array in request.inputs.values() if array.ndim), default=0)
    for key, array in wanted.items():
        if array.ndim == 0 or len(array) != rows:
            raise invalid_argument(
                f'{key}: shape {array.shape} has no row for each of {rows} instances; use "inputs"'
            )
    parts.append(b'{"predictions": [')
    for row in range(rows):
        parts += [b", "] * (row > 0)
        _write_named({key: array[row] for key, array in wanted.items()}, parts, check)
    return [*parts, b"]}\n"]


def _require_simple(body: bytes | bytearray) -> None:
    """Refuses what needs far more memory and time than a request of its size.

    A list of one-digit numbers takes 20 times the memory of its text, an object 50 times.
    """
    numbers, pairs = body.count(b","), body.count(b":")
    if numbers > _MOST_VALUES or pairs > _MOST_PAIRS:
        raise invalid_argument(
            f"JSON of {numbers:,} commas and {pairs:,} colons; up to {_MOST_VALUES:,} and "
            f"{_MOST_PAIRS:,} are read. Send larger requests over gRPC"
        )


def _parse(body: bytes | bytearray) -> dict[str, Any]:
    try:
        # Functions in Python let other threads in while a long text is parsed.
        found = json.loads(
            body, parse_float=lambda text: float(text), parse_int=lambda text: int(text)
        )
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(found, dict):
        raise invalid_argument("JSON Parse error: the request is not an object")
    unknown = sorted(key for key in found if key not in _KEYS)
    if unknown:
        raise invalid_argument(f"{unknown[0][:100]!r} is not known; use {', '.join(_KEYS)}")
    return found


def _columns(value: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(value, dict) and not _is_bytes(value):
        _require_names({*value}, names)
        return value
    if len(names) != 1:
        raise invalid_argument(
            f"inputs: name them, as the signature has {', '.join(sorted(names))}"
        )
    return {names[0]: value}


def _columns_of_rows(value: Any, names: list[str]) -> dict[str, Any]:
    if not isinstance(value, list) or not value:
        raise invalid_argument("instances: not a list of at least one row")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in value:
        if isinstance(row, dict) and not _is_bytes(row):
            _require_names({*row}, names)
            for name in names:
                columns[name].append(row[name])
        elif len(names) == 1:
            columns[names[0]].append(row)
        else:
            raise invalid_argument(
                f"instances: name the inputs in each row, {', '.join(sorted(names))}"
            )
    return columns


def _require_names(found: set[str], names: list[str]) -> None:
    extra, missing = sorted(found - {*names}), sorted({*names} - found)
    if extra or missing:
        raise invalid_argument(
            f"inputs: sent extra: {{{_listed(extra)}}}; missing but required: "
            f"{{{_listed(missing)}}}"
        )


def _listed(names: list[str]) -> str:
    shown = [name[:100] for name in names[:_LISTED]]
    return ",".join(shown + ["…"] * (len(names) > _LISTED))


def _array(key: str, value: Any, info: meta_graph_pb2.TensorInfo, max_bytes: int) -> np.ndarray:
    dtype = tf.dtypes.as_dtype(info.dtype)
    if dtype == tf.string:
        array = _strings(key, value)
    else:
        array = _numbers(key, value, dtype.as_numpy_dtype)
    size = STRING_BYTES if dtype == tf.string else dtype.size
    if array.size * size > max_bytes:
        raise invalid_argument(f"{key}: larger than a message may be")
    sizes = static_sizes(info.tensor_shape)
    if not fits(array.shape, info.tensor_shape):
        expected = ", ".join("any" if size == -1 else str(size) for size in sizes)
        found = ", ".join(map(str, array.shape))
        raise invalid_argument(f"{key}: shape ({found}); expected ({expected})")
    return array


def _numbers(key: str, value: Any, dtype: Any) -> np.ndarray:
    allowed = {int} if np.issubdtype(dtype, np.integer) else {int, float}
    # Before NumPy reads them: it would make a text of each, as long as the longest.
    if not _types(value) <= allowed:
        raise invalid_argument(f"{key}: not all of the values are {np.dtype(dtype).name} numbers")
    try:
        array = _parts_joined(value) if value != [] else np.zeros((0,), dtype)
    except ValueError:
        raise invalid_argument(f"{key}: rows of different lengths") from None
    if array.dtype.kind not in "iuf" and array.size:
        raise invalid_argument(f"{key}: a number is too large")
    with np.errstate(over="ignore"):  # infinity is refused by the model
        return array.astype(dtype)


def _types(value: Any) -> set[type]:
    """Returns the types of a value, or of all that is in nested lists."""
    found, lists = set(), [[value]]
    while lists:
        items = lists.pop()
        for start in range(0, len(items), _AT_A_TIME):
            part = items[start : start + _AT_A_TIME]
            types = {*map(type, part)}
            if list in types:
                lists += [item for item in part if type(item) is list]
            found |= types
    return found - {list}


def _parts_joined(value: Any) -> np.ndarray:
    """Returns the array of a list, made in parts: NumPy lets no other thread in while it reads."""
    row = len(value[0]) if isinstance(value, list) and isinstance(value[0], list) else 1
    step = max(1, _AT_A_TIME // max(row, 1))
    if not isinstance(value, list) or len(value) <= step:
        return np.array(value)
    return np.concatenate(
        [np.array(value[start : start + step]) for start in range(0, len(value), step)]
    )


def _strings(key: str, value: Any) -> np.ndarray:
    if isinstance(value, list):
        items = [_string(key, item) for item in value]
        array = np.empty(len(items), object)
        array[:] = items
        return array
    return np.array(_string(key, value), object)


def _string(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise invalid_argument(f"{key}: a text with half of a UTF-16 pair") from None
    if not _is_bytes(value):
        raise invalid_argument(f'{key}: neither a text nor {{"b64": "…"}}')
    try:
        return _from_base64(value["b64"])
    except (binascii.Error, ValueError, TypeError, AttributeError) as error:
        raise invalid_argument(f"{key}: b64: {error}") from None


def _from_base64(text: str) -> bytes:
    """Decodes in parts, between which other threads are let in."""
    contents = text.encode("ascii")
    end = max(0, len(contents) - _BASE64_AT_A_TIME)
    whole = end - end % _BASE64_AT_A_TIME
    if 0 <= contents.find(b"=", 0, whole):
        raise ValueError("padding before the end")
    parts = [
        base64.b64decode(contents[start : start + _BASE64_AT_A_TIME], validate=True)
        for start in range(0, whole, _BASE64_AT_A_TIME)
    ]
    return b"".join([*parts, base64.b64decode(contents[whole:], validate=True)])


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _write_named(
    values: Mapping[str, np.ndarray], parts: list[bytes], check: Callable[[], None]
) -> None:
    if len(values) == 1:
        _write(next(iter(values.values())), parts, check)
        return
    for position, (key, array) in enumerate(values.items()):
        parts.append(("{" if position == 0 else ", ").encode() + f"{json.dumps(key)}: ".encode())
        _write(array, parts, check)
    parts.append(b"}")


def _write(array: Any, parts: list[bytes], check: Callable[[], None]) -> None:
    array = np.asarray(array)
    if array.ndim == 0:
        parts.append(_texts(array[None]))
    elif array.ndim > 1:
        parts.append(b"[")
        for row in range(len(array)):
            parts += [b", "] * (row > 0)
            _write(array[row], parts, check)
        parts.append(b"]")
    else:
        parts.append(b"[")
        for start in range(0, len(array), _AT_A_TIME):
            check()
            parts += [b", "] * (start > 0)
            parts.append(_texts(array[start : start + _AT_A_TIME]))
        parts.append(b"]")


def _texts(values: np.ndarray) -> bytes:
    if values.dtype == np.float32:
        return (
            ", ".join(map(_FLOAT32.__mod__, values.tolist()))
            .replace("nan", "NaN")
            .replace("inf", "Infinity")
            .encode()
        )
    if values.dtype == object:
        texts = [_text(value) for value in values.tolist()]
        return json.dumps(texts, ensure_ascii=False)[1:-1].encode()
    return json.dumps(values.tolist())[1:-1].encode()


_FLOAT32 = "%.9g"  # digits that tell every float32 from every other


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}
