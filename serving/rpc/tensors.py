"""Conversion between NumPy arrays and the tensors in TensorFlow Serving's messages."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2

from serving.rpc.limits import STRING_BYTES, fits, static_sizes
from serving.rpc.status import invalid_argument

# Equal values may be sent once. A few bytes could claim millions of them, which no client needs.
_LARGEST_REPEATED = 65_536


def require_tensor(
    name: str,
    proto: tensor_pb2.TensorProto,
    dtype: int,
    shape: tensor_shape_pb2.TensorShapeProto,
    max_bytes: int,
) -> None:
    """Checks an input of a request before anything is allocated.

    A few bytes can claim a tensor of any size, as one value may stand for all of them.

    Args:
        name: name of the input, for the error message.
        proto: the tensor that was sent.
        dtype: the signature's `DataType` of this input.
        shape: the signature's shape, with -1 for an unspecified size.
        max_bytes: larger tensors are refused.

    Raises:
        RequestError: INVALID_ARGUMENT; the message gives what was expected.
    """
    if proto.dtype != dtype:
        raise invalid_argument(f"{name}: dtype {_dtype(proto.dtype)}; expected {_dtype(dtype)}")
    sizes = static_sizes(proto.tensor_shape)
    if proto.tensor_shape.unknown_rank or not fits(sizes, shape):
        found = "unknown" if proto.tensor_shape.unknown_rank else f"({', '.join(map(str, sizes))})"
        raise invalid_argument(f"{name}: shape {found}; expected {_shape(static_sizes(shape))}")
    elements, tf_dtype = math.prod(sizes), tf.dtypes.as_dtype(dtype)
    size = STRING_BYTES if tf_dtype == tf.string else tf_dtype.size
    if elements * size > max_bytes:
        raise invalid_argument(f"{name}: shape {_shape(sizes)} is larger than a message may be")
    sent = len(proto.tensor_content)
    if sent and (tf_dtype == tf.string or sent != elements * size):
        raise invalid_argument(
            f"{name}: tensor_content of {sent} bytes is not of shape {_shape(sizes)}"
        )
    if not sent:
        _require_values(name, elements, _count_values(proto, tf_dtype), tf_dtype, _shape(sizes))


def to_array(name: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Reads an input of a request that `require_tensor` found sound.

    Raises:
        RequestError: INVALID_ARGUMENT.
    """
    try:
        return tf.io.parse_tensor(proto.SerializeToString(), proto.dtype).numpy()
    except tf.errors.OpError:
        raise invalid_argument(f"{name}: tensor parsing error") from None


def to_proto(value: np.ndarray, proto: tensor_pb2.TensorProto | None = None) -> Any:
    """Writes an output as TensorFlow Serving does, into the field of its dtype (`float_val`, …).

    `tf.make_tensor_proto` would write `tensor_content`, which clients that read `float_val`
    ignore.

    Args:
        value: the output.
        proto: an empty `TensorProto` to write into; None for a new one.

    Returns:
        The `TensorProto`.
    """
    proto = tensor_pb2.TensorProto() if proto is None else proto
    dtype = tf.dtypes.as_dtype(value.dtype)
    field = _FIELDS.get(dtype)
    if field is None:
        proto.CopyFrom(tf.make_tensor_proto(value))
        return proto
    proto.dtype = dtype.as_datatype_enum
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype in (tf.float32, tf.float64):
        # The bytes of the field itself: millions of Python floats would hold up other requests.
        number = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[field].number
        values = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        if values:
            proto.MergeFromString(bytes([number << 3 | 2]) + _varint(len(values)) + values)
    else:
        getattr(proto, field).extend(value.ravel().tolist())
    return proto


def _varint(number: int) -> bytes:
    """Returns a length as protobuf writes it: 7 bits per byte, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def _require_values(name: str, elements: int, values: int, dtype: tf.DType, shape: str) -> None:
    if elements and not values:
        raise invalid_argument(f"{name}: shape {shape}, but no values")
    repeats = dtype != tf.string and elements <= _LARGEST_REPEATED
    if values > elements or (values < elements and not repeats):
        raise invalid_argument(f"{name}: shape {shape}, but {values} values")


def _count_values(proto: tensor_pb2.TensorProto, dtype: tf.DType) -> int:
    field = _FIELDS.get(dtype)
    return len(getattr(proto, field)) if field else 1


def _shape(sizes: list[int]) -> str:
    return f"({', '.join('any' if size == -1 else str(size) for size in sizes)})"


def _dtype(dtype: int) -> str:
    return types_pb2.DataType.Name(dtype) if dtype in types_pb2.DataType.values() else str(dtype)
