"""The messages made without TensorFlow, against those of TensorFlow Serving's own packages."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.descriptor import FieldDescriptor
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from serving.rpc.messages import message_classes, read_tensor, write_tensor

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(-1.5, np.float32),
    np.zeros((0, 4), np.float32),
    np.array([1.5, -2.0, np.inf], np.float16),
    np.array([2**40, -1], np.int64),
    np.array([-1, 2], np.int32),
    np.array([1, 255], np.uint8),
    np.array([-1, 127], np.int8),
    np.array([True, False]),
    np.array([1e300, -0.0]),
    np.array([2**63 + 1], np.uint64),
    np.array([[b"a", b""], [b"\xff\x00", "é".encode()]], object),
]


@pytest.mark.unit
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_tensors_are_tensorflows(array):
    ours = message_classes().Tensor()
    write_tensor(ours, array)
    theirs = tensor_pb2.TensorProto.FromString(ours.SerializeToString())
    read = tf.make_ndarray(theirs)
    assert read.dtype == array.dtype and read.shape == array.shape
    np.testing.assert_array_equal(read, array)

    content = tf.make_tensor_proto(array)
    in_fields = tensor_pb2.TensorProto.FromString(tf.io.serialize_tensor(array).numpy())
    for proto in (content, in_fields):
        back = read_tensor(message_classes().Tensor.FromString(proto.SerializeToString()))
        assert back.dtype == array.dtype and back.shape == array.shape
        np.testing.assert_array_equal(back, array)


@pytest.mark.unit
def test_values_in_the_fields_of_their_types():
    # As TensorFlow Serving answers; the last value may stand for all that follow.
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0, 2.0])
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    read = read_tensor(message_classes().Tensor.FromString(proto.SerializeToString()))
    np.testing.assert_array_equal(read, [[1, 2], [2, 2]])


@pytest.mark.unit
def test_tensors_that_claim_too_much_are_refused():
    for sizes, values, problem in (
        ([2, 2], [], "shape (2, 2) with 0 values"),
        ([1], [1.0, 2.0], "shape (1,) with 2 values"),
        ([-1], [1.0], "shape (-1,)"),
        ([1 << 40], [1.0], "larger than 2 GB"),
    ):
        proto = message_classes().Tensor(dtype=1, float_val=values)
        for size in sizes:
            proto.tensor_shape.dim.add(size=size)
        with pytest.raises(ValueError) as error:
            read_tensor(proto)
        assert problem in str(error.value)
    with pytest.raises(ValueError, match="data type 14"):
        read_tensor(message_classes().Tensor(dtype=14))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("PredictRequest", predict_pb2.PredictRequest),
        ("PredictResponse", predict_pb2.PredictResponse),
        ("GetModelMetadataRequest", get_model_metadata_pb2.GetModelMetadataRequest),
        ("GetModelMetadataResponse", get_model_metadata_pb2.GetModelMetadataResponse),
    ],
)
def test_fields_are_those_of_the_protocol(name, theirs):
    def repeated(field):
        if hasattr(field, "is_repeated"):
            return field.is_repeated
        return field.label == FieldDescriptor.LABEL_REPEATED  # before protobuf 6.30

    def compare(ours, theirs):
        for field in ours.fields:
            other = theirs.fields_by_name[field.name]
            assert field.number == other.number
            assert repeated(field) == repeated(other)
            if field.message_type is not None:
                compare(field.message_type, other.message_type)
            elif other.type == FieldDescriptor.TYPE_ENUM:
                assert field.type == FieldDescriptor.TYPE_INT32
            else:
                assert field.type == other.type

    compare(getattr(message_classes(), name).DESCRIPTOR, theirs.DESCRIPTOR)


ALONE = """
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_serving"] = sys.modules["keras"] = None
from serving.client import TaggingClient, TaggingError, main
with TaggingClient(sys.argv[1]) as client:
    assert client.answers(10.0)
    assert client.tag([b"one", b"three"], ["dog", "beach"]).tolist() == [[3, 3], [5, 5]]
    assert client.tag_known(b"one") == [[("dog", 3.0), ("red car", 3.0)]]
    regions, scene = client.features(b"one")
    assert client.rescore(regions, scene, client.embed(["cat"])).tolist() == [[3]]
    assert client.explain(b"one", ["cat"])[1].shape == (1, 2, 2, 1)
    try:
        client.tag(b"broken", ["dog"])
    except TaggingError as error:
        assert error.refused_photos == []
status = main(["--server", sys.argv[1], "--classes", "dog", "--csv", sys.argv[2]])
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(status, int(peak[0].split()[1]) // 1024)
"""


def test_a_client_needs_no_tensorflow(server, photos):
    # The modules are blocked, so that an import of them is an error.
    command = [sys.executable, "-c", ALONE, server.address, str(photos[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    status, megabytes = map(int, last.split())
    assert status == 0 and table == [
        "photo,tag,score",
        f"{photos[0]},dog,{photos[0].stat().st_size}",
    ]
    assert megabytes < 200  # about 70 MB; TensorFlow alone takes 400 MB and more
