import keras
import numpy as np
import pytest
from reference import relu
from region_attention_reference import (
    CLASSES,
    GRID,
    attention_of,
    embedded_regions,
    random_head,
    random_inputs,
)

from biam_tf.errors import UserError
from biam_tf.models.head import with_response_maps
from biam_tf.models.systems import SYSTEMS

pytestmark = pytest.mark.unit


def test_a_score_is_the_class_s_own_attended_feature_times_its_weights(rng):
    head = random_head("attention_per_label", rng, channels=4, joint_size=3)
    inputs = random_inputs(rng)
    outputs = with_response_maps(head)(inputs)
    bilinear, classifier = head.get_layer("attention_logits"), head.get_layer("region_responses")
    U, u = bilinear.region_projection.get_weights()
    V, v = bilinear.class_projection.get_weights()
    p, W = bilinear.p.numpy(), classifier.kernel.numpy()
    for i, photo in enumerate(inputs[0]):
        f = embedded_regions(head, photo)
        for c, a_c in enumerate(inputs[2].astype(np.float64)):
            meeting = relu(f @ U + u) * relu(a_c @ V + v)
            (weights,) = attention_of((meeting @ p)[:, None])
            attended = sum(weight * f_r for weight, f_r in zip(weights, f, strict=True))
            np.testing.assert_allclose(outputs["scores"][i, c], attended @ (a_c @ W), rtol=1e-4)
            expected = (weights * (f @ (a_c @ W))).reshape(GRID)
            found = outputs["response_maps"][i, ..., c]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_every_class_has_an_attention_of_its_own(rng):
    head = random_head("attention_per_label", rng, channels=4, joint_size=3)
    attention = keras.Model(head.inputs, head.get_layer("attention").output)(random_inputs(rng))
    np.testing.assert_allclose(np.sum(attention, axis=(1, 2)), np.ones((2, CLASSES)), rtol=1e-5)
    maps = np.reshape(attention[0], (-1, CLASSES)).T
    assert len(np.unique(maps.round(4), axis=0)) == CLASSES


@pytest.mark.parametrize(
    ("setting", "value"), [("joint_size", 0), ("channels", 0), ("dropout", 1.0)]
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting, value):
    with pytest.raises(UserError, match=f"{setting}: {value} is not valid; it must be at least"):
        SYSTEMS["attention_per_label"].settings(**{setting: value})
