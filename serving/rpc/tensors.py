"""Conversion between NumPy arrays and the tensors in TensorFlow Serving's messages."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2

from serving.rpc.status import invalid_argument

_STRING_BYTES = 24  # memory of a string in TensorFlow besides its characters


def to_array(
    name: str,
    proto: tensor_pb2.TensorProto,
    dtype: int,
    shape: tensor_shape_pb2.TensorShapeProto,
    max_bytes: int,
) -> np.ndarray:
    """Reads an input of a request.

    A few bytes can claim a tensor of any size (one value may stand for all of them), so the size
    is checked before anything is allocated.

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
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or not _fits(sizes, shape):
        found = "unknown" if proto.tensor_shape.unknown_rank else _shape(sizes)
        expected = _shape([dim.size for dim in shape.dim])
        raise invalid_argument(f"{name}: shape {found}; expected {expected}")
    elements, tf_dtype = math.prod(sizes), tf.dtypes.as_dtype(dtype)
    size = _STRING_BYTES if tf_dtype == tf.string else tf_dtype.size
    if elements * size > max_bytes:
        raise invalid_argument(f"{name}: shape {_shape(sizes)} is larger than a message may be")
    sent = len(proto.tensor_content)
    if sent and (tf_dtype == tf.string or sent != elements * size):
        raise invalid_argument(
            f"{name}: tensor_content of {sent} bytes is not of shape {_shape(sizes)}"
        )
    if elements and not sent and not _count_values(proto, tf_dtype):
        raise invalid_argument(f"{name}: shape {_shape(sizes)}, but no values")
    try:
        return tf.io.parse_tensor(proto.SerializeToString(), tf_dtype).numpy()
    except tf.errors.OpError:
        raise invalid_argument(f"{name}: tensor parsing error") from None


def to_proto(value: np.ndarray) -> tensor_pb2.TensorProto:
    """Writes an output as TensorFlow Serving does, into the field of its dtype (`float_val`, …).

    `tf.make_tensor_proto` would write `tensor_content`, which clients that read `float_val`
    ignore.
    """
    dtype = tf.dtypes.as_dtype(value.dtype)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    field = _FIELDS.get(dtype)
    if field is None:
        return tf.make_tensor_proto(value)
    getattr(proto, field).extend(value.ravel().tolist())
    return proto


_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def _count_values(proto: tensor_pb2.TensorProto, dtype: tf.DType) -> int:
    field = _FIELDS.get(dtype)
    return len(getattr(proto, field)) if field else 1


def _fits(sizes: list[int], shape: tensor_shape_pb2.TensorShapeProto) -> bool:
    if any(size < 0 for size in sizes):
        return False
    if shape.unknown_rank:
        return True
    return len(sizes) == len(shape.dim) and all(
        dim.size in (-1, size) for dim, size in zip(shape.dim, sizes, strict=True)
    )


def _shape(sizes: list[int]) -> str:
    return f"({', '.join('any' if size == -1 else str(size) for size in sizes)})"


def _dtype(dtype: int) -> str:
    return types_pb2.DataType.Name(dtype) if dtype in types_pb2.DataType.values() else str(dtype)
