"""The messages of TensorFlow Serving's Predict call, with protobuf and NumPy instead of TensorFlow.

The classes of `tensorflow_serving.apis` import TensorFlow, which takes seconds and half a gigabyte.
These are made from the field numbers of the same public protocol, in a pool of their own, so that
both can be used in one process. `tests/serving/rpc/test_messages.py` compares the two.
"""

import functools
import math
import types
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"

# Fields as "number type name", with + for repeated ones. Map fields are their entries; enums and
# fields that no tagger has are left out, as the format allows.
_MESSAGES = {
    "Dim": ("1 int64 size",),
    "TensorShape": ("2 Dim dim +", "3 bool unknown_rank"),
    "Tensor": (
        "1 int32 dtype",
        "2 TensorShape tensor_shape",
        "4 bytes tensor_content",
        "5 float float_val +",
        "6 double double_val +",
        "7 int32 int_val +",
        "8 bytes string_val +",
        "10 int64 int64_val +",
        "11 bool bool_val +",
        "13 int32 half_val +",
        "16 uint32 uint32_val +",
        "17 uint64 uint64_val +",
    ),
    "NamedTensor": ("1 string key", "2 Tensor value"),
    "Version": ("1 int64 value",),
    "ModelSpec": ("1 string name", "2 Version version", "3 string signature_name"),
    "PredictRequest": (
        "1 ModelSpec model_spec",
        "2 NamedTensor inputs +",
        "3 string output_filter +",
    ),
    "PredictResponse": ("1 NamedTensor outputs +", "2 ModelSpec model_spec"),
    "GetModelMetadataRequest": ("1 ModelSpec model_spec", "2 string metadata_field +"),
    "GetModelMetadataResponse": ("1 ModelSpec model_spec",),
}
# By number of a data type: its field, the type of NumPy, and that in which the field holds it.
_HALF, _STRING = 19, 7
_DTYPES: dict[int, tuple[str, Any]] = {
    1: ("float_val", np.float32),
    2: ("double_val", np.float64),
    3: ("int_val", np.int32),
    4: ("int_val", np.uint8),
    5: ("int_val", np.int16),
    6: ("int_val", np.int8),
    _STRING: ("string_val", object),
    9: ("int64_val", np.int64),
    10: ("bool_val", np.bool_),
    17: ("int_val", np.uint16),
    _HALF: ("half_val", np.float16),
    22: ("uint32_val", np.uint32),
    23: ("uint64_val", np.uint64),
}
_LARGEST_TENSOR = 2**31  # bytes
_NUMBERS = {np.dtype(dtype): number for number, (_, dtype) in _DTYPES.items()}


@functools.cache
def message_classes() -> types.SimpleNamespace:
    """Returns the classes of the messages as attributes, `PredictRequest` and others."""
    file = descriptor_pb2.FileDescriptorProto(
        name="predict_messages.proto", package="tagging", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return types.SimpleNamespace(
        **{
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tagging.{name}"))
            for name in _MESSAGES
        }
    )


def _add_field(
    message: descriptor_pb2.DescriptorProto, number: str, kind: str, name: str, repeated: str = ""
) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=int(number))
    field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
    if kind in _MESSAGES:
        field.type, field.type_name = kinds.TYPE_MESSAGE, f".tagging.{kind}"
    else:
        field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")


def write_tensor(proto: Any, array: np.ndarray) -> None:
    """Writes an array into an empty `Tensor`; an array of objects holds bytes.

    Raises:
        ValueError: the protocol has no such data type.
    """
    number = _NUMBERS.get(array.dtype)
    if number is None:
        raise ValueError(f"arrays of {array.dtype} can't be sent")
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if number == _STRING:
        proto.string_val.extend(array.ravel().tolist())
    else:
        proto.tensor_content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def read_tensor(proto: Any) -> np.ndarray:
    """Returns the array of a `Tensor`; strings as an array of bytes objects.

    Raises:
        ValueError: the data type is none of NumPy's, or values and shape do not fit.
    """
    if proto.dtype not in _DTYPES:
        raise ValueError(f"a tensor of data type {proto.dtype}, which NumPy lacks")
    field, dtype = _DTYPES[proto.dtype]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    size = math.prod(shape)
    if proto.tensor_content and proto.dtype != _STRING:
        values = np.frombuffer(proto.tensor_content, np.dtype(dtype).newbyteorder("<"))
        values = values.astype(dtype)  # its own memory, in this machine's byte order
    else:
        stored = np.uint16 if proto.dtype == _HALF else dtype
        values = np.array(getattr(proto, field), stored)
        values = values.view(np.float16) if proto.dtype == _HALF else values
    # Equal values at the end may be written once.
    if min(shape, default=0) < 0 or values.size > size or (size and not values.size):
        raise ValueError(f"a tensor of shape {shape} with {values.size} values")
    if size * values.itemsize > _LARGEST_TENSOR:
        raise ValueError(f"a tensor of shape {shape} is larger than 2 GB")
    if values.size < size:
        values = np.concatenate([values, np.repeat(values[-1:], size - values.size)])
    return values.reshape(shape)
