"""What every system owes to those who train, export and serve it, whatever is inside."""

import keras
import numpy as np
import pytest
from small_systems import small_head

from biam_tf.errors import UserError
from biam_tf.models.head import response_map_layer, with_response_maps
from biam_tf.models.systems import SYSTEMS, find_system

IMAGES, GRID, CHANNELS, SCENE, EMBEDDING, SEEN, UNSEEN = 3, 4, 16, 10, 6, 7, 4
VARIANTS = [(name, preset) for name, system in SYSTEMS.items() for preset in system.presets]


@pytest.fixture(params=VARIANTS, ids="-".join)
def variant(request):
    return request.param


@pytest.fixture
def classes(rng):
    """(seen and unseen, d_a) embeddings, the seen ones first."""
    return rng.normal(size=(SEEN + UNSEEN, EMBEDDING)).astype("float32")


@pytest.fixture
def sizes(variant):
    """Channels of regions and length of the scene feature."""
    joint = SYSTEMS[variant[0]].uses_joint_space  # one space of regions, scene and classes
    return (EMBEDDING, EMBEDDING) if joint else (CHANNELS, SCENE)


@pytest.fixture
def head(variant, classes, sizes):
    name, preset = variant
    channels, scene = sizes
    return small_head(name, (GRID, GRID, channels), scene, classes[:SEEN], preset)


@pytest.fixture
def known(variant, classes):
    """The classes that the system can score: all, or the seen ones alone."""
    return classes if SYSTEMS[variant[0]].open_vocabulary else classes[:SEEN]


@pytest.fixture
def features(rng, sizes):
    channels, scene = sizes
    regions = rng.normal(size=(IMAGES, GRID, GRID, channels)).astype("float32")
    return [np.maximum(regions, 0), rng.normal(size=(IMAGES, scene)).astype("float32")]


def scores_of(model, features, classes):
    return np.asarray(model([*features, classes], training=False))


def test_scores_are_finite_float32_of_every_class(head, features, known):
    scores = head([*features, known], training=False)
    assert scores.shape == (IMAGES, len(known)) and scores.dtype == "float32"
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
    assert head.output.shape == (None, None)


def test_another_order_of_classes_is_another_order_of_scores(head, features, known, rng):
    order = rng.permutation(len(known))
    expected = scores_of(head, features, known)[:, order]
    np.testing.assert_allclose(
        scores_of(head, features, known[order]), expected, rtol=1e-4, atol=1e-5
    )


def test_added_classes_and_photos_change_nobody_elses_score(head, features, known):
    alone = scores_of(head, [f[:1] for f in features], known[:3])
    among = scores_of(head, features, known)[:1, :3]
    np.testing.assert_allclose(among, alone, rtol=1e-4, atol=1e-5)


def test_a_saved_head_scores_as_before(head, features, known, tmp_path):
    head.save(tmp_path / "head.keras")
    again = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(
        scores_of(again, features, known), scores_of(head, features, known)
    )


def test_response_maps_lie_on_the_grid_of_the_regions(head, features, known):
    if response_map_layer(head) is None:
        with pytest.raises(ValueError, match="has no response maps"):
            with_response_maps(head)
        return
    outputs = with_response_maps(head)([*features, known], training=False)
    assert outputs["response_maps"].shape == (IMAGES, GRID, GRID, len(known))
    np.testing.assert_allclose(
        outputs["scores"], scores_of(head, features, known), rtol=1e-5, atol=1e-6
    )


def test_a_class_that_a_closed_vocabulary_lacks_is_refused(variant, head, features, classes):
    if SYSTEMS[variant[0]].open_vocabulary:
        return
    with pytest.raises(Exception, match="class_embeddings"):
        scores_of(head, features, classes)


def test_settings_are_refused_by_name(variant):
    system = SYSTEMS[variant[0]]
    with pytest.raises(UserError, match="'no_such_setting' is unknown"):
        system.settings(no_such_setting=1)
    with pytest.raises(UserError, match=r"preset 'papre'.*paper"):
        system.settings("papre")
    assert system.title and system.source


def test_a_misspelt_system_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"'biams' is unknown.*'biam'"):
        find_system("biams")
