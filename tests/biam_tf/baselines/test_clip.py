"""The system clip: scores of regions and scene against texts, by their definition."""

import numpy as np
import pytest
from small_systems import SPACE, small_head

from biam_tf.baselines.clip import ClipSettings, candidates
from biam_tf.baselines.image_text_systems import CLIP
from biam_tf.class_sides import load_class_side, save_class_side
from biam_tf.models.factors import factors_of
from biam_tf.models.head import scores_alone, with_response_maps
from biam_tf.models.systems import build_system_head

pytestmark = pytest.mark.unit
DIM = 5


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def arrays(rng):
    shapes = (3, 4, 4, DIM), (3, DIM), (6, DIM)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


@pytest.mark.parametrize(("top_k", "weight"), [(1, 0.0), (3, 0.25), (5, 1.0)])
def test_scores_are_those_of_the_definition_in_every_form(top_k, weight, arrays, tmp_path):
    regions, scene, classes = arrays
    settings = {"top_k": top_k, "region_weight": weight}
    head = small_head("clip", (4, 4, DIM), DIM, classes, **settings)
    f, g, t = unit(regions).reshape(3, 16, DIM), unit(scene), unit(classes)
    strongest = np.sort(f @ t.T, axis=1)[:, -top_k:].mean(axis=1)
    expected = SPACE.scale * (weight * strongest + (1 - weight) * g @ t.T) + SPACE.bias
    for model in (head, scores_alone(head)):
        np.testing.assert_allclose(model(arrays), expected, rtol=1e-5, atol=1e-5)
    maps = np.asarray(with_response_maps(head)(arrays)["response_maps"]).reshape(3, 16, 6)
    np.testing.assert_allclose(np.sort(maps, 1)[:, -top_k:].mean(1), expected, atol=1e-5)

    # As an index of photos stores and scores them.
    factors = factors_of(head, CLIP)
    save_class_side(factors.class_side, tmp_path / "side.npz")
    vectors = np.asarray(factors.region_vectors(regions, scene)).reshape(3, 16, -1)
    products = vectors @ load_class_side(tmp_path / "side.npz").vectors(classes).T
    np.testing.assert_allclose(np.sort(products, 1)[:, -top_k:].mean(1), expected, atol=1e-5)


def test_what_is_chosen_from_has_no_open_setting_and_nothing_twice():
    found = candidates(ClipSettings())
    assert len(found) == len(set(found)) == 1 + 4 * 3
    assert all(s.top_k is not None and s.region_weight is not None for s in found)
    assert candidates(ClipSettings(top_k=2, region_weight=0.5)) == [ClipSettings(2, 0.5)]


def test_features_that_are_in_no_space_of_texts_are_refused():
    with pytest.raises(ValueError, match="needs region features in the space of texts"):
        build_system_head("clip", (4, 4, DIM), DIM, DIM)
    with pytest.raises(ValueError, match="they have 5, 5 and 4 numbers"):
        build_system_head("clip", (4, 4, DIM), DIM, 4, joint_space=SPACE)
