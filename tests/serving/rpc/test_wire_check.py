"""Messages that take many times their size are refused before they are read."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving.rpc.status import RequestError
from serving.rpc.wire_check import require_simple

pytestmark = pytest.mark.unit

MOST = 2000


def request(**inputs) -> predict_pb2.PredictRequest:
    found = predict_pb2.PredictRequest(output_filter=["scores"])
    found.model_spec.name = "tagger"
    found.model_spec.version.value = 2**62
    for name, value in inputs.items():
        found.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return found


def test_requests_of_clients_pass():
    photos = [bytes(size) for size in (0, 1, 127, 128, 70_000)]
    embeddings = np.zeros((300, 4), np.float32)
    good = request(images=photos, class_embeddings=embeddings, class_names=["a"] * 1900)
    require_simple(good.SerializeToString(), MOST)
    in_fields = request(images=photos)
    in_fields.inputs["class_embeddings"].float_val.extend(range(100_000))  # packed
    require_simple(in_fields.SerializeToString(), MOST)
    require_simple(b"", MOST)


def many_dimensions(found):
    for _ in range(5000):
        found.inputs["images"].tensor_shape.dim.add()


def many_inputs(found):
    for number in range(65):
        found.inputs[str(number)].dtype = 1


def many_strings(found):
    found.inputs["images"].string_val.extend([b""] * (MOST + 1))


def many_strings_of_several_inputs(found):
    for number in range(10):
        found.inputs[str(number)].string_val.extend([b""] * (MOST // 9))


def many_outputs(found):
    found.output_filter.extend(["a"] * 1100)


def small_integers(found):
    found.inputs["images"].int64_val.extend([1] * (2**20 + 1))


def variants(found):
    found.inputs["images"].variant_val.add().tensors.add()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (many_dimensions, "254 dimensions"),
        (many_inputs, "64 inputs"),
        (many_strings, f"{MOST} values"),
        (many_strings_of_several_inputs, f"{MOST} values"),
        (many_outputs, "1024 outputs"),
        (small_integers, "integers"),
        (variants, "variants"),
        (lambda found: setattr(found.model_spec, "name", "a" * 70_000), "model_spec"),
    ],
)
def test_many_small_parts_are_refused(spoil, reason):
    found = request(class_names=["a"])
    spoil(found)
    with pytest.raises(RequestError, match=reason):
        require_simple(found.SerializeToString(), MOST)


def test_bytes_that_are_no_message_are_refused():
    whole = request(images=[b"photo" * 100]).SerializeToString()
    # Cut, a group, a length of 2^63, a number without an end, a tag at the end.
    for broken in (
        whole[:-1],
        b"\x0b\x0c",
        b"\x0a" + b"\xff" * 9 + b"\x7f",
        b"\x08" + b"\xff" * 99,
        b"\x0d",
    ):
        with pytest.raises(RequestError, match="no message"):
            require_simple(broken, MOST)
