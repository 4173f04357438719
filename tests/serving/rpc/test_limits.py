"""Limits of requests are checked from their shapes, before anything runs."""

import types

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.rpc.limits import Limits
from serving.rpc.model_version import ModelVersion
from serving.rpc.status import RequestError, invalid_argument, with_photos_from
from serving.rpc.tensors import require_tensor, to_array, to_proto

pytestmark = pytest.mark.unit

INVALID = grpc.StatusCode.INVALID_ARGUMENT
REGIONS = (144, 128)  # 12 x 12 regions of 128 channels


def output(*sizes, dtype=tf.float32):
    return meta_graph_pb2.TensorInfo(
        dtype=dtype.as_datatype_enum, tensor_shape=tf.TensorShape(sizes).as_proto()
    )


EXPLAIN = {"scores": output(None, None), "response_maps": output(None, 12, 12, None)}


def explained(photos, classes, **limits):
    shapes = {"images": (photos,), "class_embeddings": (classes, 14)}
    return Limits(**limits).require(shapes, EXPLAIN, REGIONS)


def test_photos_classes_answers_and_work_are_bounded():
    for photos, classes, limits, option in [
        (9, 1, {"max_photos": 8}, "--max-photos"),
        (1, 9, {"max_classes": 8}, "--max-classes"),
        (1, 400_000, {}, "--max-answer-mb"),
        (1, 400_000, {"max_answer_bytes": 2**40}, "--max-work-mb"),
    ]:
        with pytest.raises(RequestError, match=option) as error:
            explained(photos, classes, **limits)
        assert error.value.code == INVALID
    # 2 photos, 10 classes: 2 x 10 scores, 2 x 144 x 10 responses of 4 bytes
    assert explained(2, 10, max_answer_bytes=4 * (20 + 2880)) == 32
    with pytest.raises(RequestError, match="--max-answer-mb"):
        explained(2, 10, max_answer_bytes=4 * (20 + 2880) - 1)


def test_many_classes_are_scored_with_fewer_photos_at_a_time():
    classes = 50_000
    first, each = 4 * classes * (14 + 128 + 144), 4 * classes * 144
    open_answer = {"max_answer_bytes": 2**40}
    assert explained(40, classes, max_work_bytes=first + 2 * each, **open_answer) == 3
    assert explained(40, classes, max_work_bytes=first, **open_answer) == 1


def sent(values, *sizes):
    proto = tf.make_tensor_proto(values)
    proto.tensor_shape.CopyFrom(tf.TensorShape(sizes).as_proto())
    if proto.dtype == tf.float32.as_datatype_enum:
        proto.ClearField("tensor_content")
        proto.float_val[:] = values
    return proto


@pytest.mark.parametrize(
    "proto", [sent([b"x"], 3), sent([b"x", b"y"], 1), sent([0.5], 300_000, 14), sent([1.0, 2.0], 1)]
)
def test_values_that_do_not_fill_the_shape_are_refused(proto):
    shape = tf.TensorShape([None] * len(proto.tensor_shape.dim)).as_proto()
    with pytest.raises(RequestError, match="values"):
        require_tensor("x", proto, proto.dtype, shape, 2**30)


@pytest.mark.parametrize(
    "value",
    [
        np.linspace(-3, 7, 300_000, dtype=np.float32).reshape(3, 4, -1),
        np.float64([[np.pi, -0.0]]),
        np.zeros((2, 0), np.float32),
        np.array([[True, False]]),
        np.array([b"a", b""], object),
        np.int64([-1, 2**62]),
    ],
)
def test_outputs_are_written_in_the_field_of_their_dtype(value):
    proto = to_proto(value)
    assert not proto.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(proto), value)
    if value.dtype != object:
        np.testing.assert_array_equal(to_array("x", proto), value)


def test_photos_of_a_later_step_are_named_by_their_place_in_the_request():
    error = with_photos_from(64, invalid_argument("[images[0, 3]: not whole]"))
    assert error.message == "[images[64, 67]: not whole]"


def test_a_name_that_looks_like_a_place_is_a_name(tmp_path):
    reason = "no such class; this model knows only its own names"
    error = invalid_argument(f"[class_names[0] class_names[7] x: {reason}]")
    names = {"class_names": np.array([b"class_names[7] x"], object)}
    version = types.SimpleNamespace(path=tmp_path)
    assert ModelVersion._with_nearest(version, names, error).message == error.message
    assert ModelVersion._with_nearest(version, {"images": names}, error) is error
