"""Limits that an exported graph checks itself, before it decodes a photo or embeds a class."""

import numpy as np
import pytest
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.runs import load_run
from serving.graph.request_limits import GraphSizes, RequestLimits, within_limits
from serving.graph.signatures import GraphSettings, TaggerGraph


@pytest.fixture(scope="module")
def signatures(finished):
    """Those of a graph that takes 3 photos, 20 classes and 1 MB of work."""
    limits = RequestLimits(max_photos=3, max_classes=20, max_work_mb=1)
    return TaggerGraph(load_run(finished.path), None, GraphSettings(limits=limits)).signatures()


@pytest.mark.parametrize(
    ("name", "photos", "classes", "message"),
    [
        ("serving_default", 4, 1, "4 photos; this model takes up to 3 per request"),
        ("serving_default", 1, 21, "21 classes; this model takes up to 20 per request"),
        ("explain", 4, 1, "4 photos; this model takes up to 3"),
        ("features", 4, None, "4 photos; this model takes up to 3"),
        ("tag_known", 4, None, "4 photos; this model takes up to 3"),
        ("calibrate", None, 21, "21 classes; this model takes up to 20"),
    ],
)
def test_a_request_beyond_a_limit_is_refused_before_its_photos_are_decoded(
    signatures, name, photos, classes, message
):
    if name not in signatures:
        pytest.skip("this run has no such signature")
    inputs = {}
    if photos is not None:
        inputs["images"] = tf.constant([b"no photo"] * photos)
    if classes is not None:
        inputs["class_embeddings"] = tf.zeros((classes, 14))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures[name](**inputs)


def test_the_memory_of_scoring_is_bounded_and_nothing_else_changes():
    sizes = GraphSizes(regions=49, channels=320, embedding=100)
    # 4 bytes x 1000 classes x (100 + 320 + 5 photos x 49) = 2.54 MB
    classes, photos = tf.zeros((1000, 100)), tf.constant([b""] * 5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="5 photos and 1000 classes need") as e:
        within_limits(RequestLimits(max_work_mb=2), sizes, photos, classes)
    assert "about 3 MB; this model uses up to 2 MB" in str(e.value)
    given = within_limits(RequestLimits(max_work_mb=3), sizes, photos, classes)
    np.testing.assert_array_equal(given[0], photos)
    np.testing.assert_array_equal(given[1], classes)
    assert within_limits(RequestLimits(), sizes, photos, None)[1] is None


def test_limits_below_the_export_s_own_requests_are_refused():
    with pytest.raises(UserError, match="--max-photos 0: use at least 1"):
        RequestLimits(max_photos=0)
    with pytest.raises(UserError, match=r"--max-classes 5: .* use at least 9"):
        RequestLimits(max_classes=5).require_room_for(2, 9)
