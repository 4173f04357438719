import numpy as np
import pytest
from query_decoder_reference import dense
from small_systems import small_head

from biam_tf.baselines.image_text_systems import MKT
from biam_tf.baselines.mkt import make_losses
from biam_tf.errors import UserError
from biam_tf.losses import pairwise_ranking_loss
from biam_tf.models.head import with_response_maps

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

GRID, CHANNELS, SCENE, EMBEDDING, SEEN, K = (2, 3), 5, 4, 6, 5, 2


def streams(head, regions, scene):
    """Vectors of regions (n, d_a) and of the photo (d_a,)."""
    u, g = (
        dense(head.get_layer(f"{of}_vectors"), np.tanh(dense(head.get_layer(f"{of}_hidden"), x)))
        for of, x in (("region", regions), ("scene", scene))
    )
    return u, g


def test_the_two_streams_are_normalized_over_the_seen_classes_whatever_is_asked_for(rng):
    seen = rng.normal(size=(SEEN, EMBEDDING)).astype("float32")
    head = small_head("mkt", (*GRID, CHANNELS), SCENE, seen, top_k=K, channels=4)
    asked = np.concatenate([seen[1:3], rng.normal(size=(3, EMBEDDING))]).astype("float32")
    inputs = [
        rng.normal(size=(2, *GRID, CHANNELS)).astype("float32"),
        rng.normal(size=(2, SCENE)).astype("float32"),
        asked,
    ]
    outputs = with_response_maps(head)(inputs)
    for i in range(2):
        u, g = streams(head, inputs[0][i].reshape(-1, CHANNELS), inputs[1][i])

        def local(classes, u=u):
            return np.sort(u @ classes.T, axis=0)[-K:].mean(axis=0)

        n_local, n_global = np.linalg.norm(local(seen)), np.linalg.norm(seen @ g)
        expected = (local(asked) / n_local + asked @ g / n_global) / 2
        np.testing.assert_allclose(outputs["scores"][i], expected, rtol=1e-4, atol=1e-5)
        maps = (u @ asked.T / n_local + asked @ g / n_global) / 2
        found = np.reshape(outputs["response_maps"][i], (-1, len(asked)))
        np.testing.assert_allclose(found, maps, rtol=1e-4, atol=1e-5)
    # Over the seen classes themselves, each stream has the length 1/2, as in the paper.
    of_seen = head([*inputs[:2], seen])
    assert (np.linalg.norm(of_seen, axis=1) <= 1 + 1e-5).all()


def test_the_loss_is_the_ranking_loss_of_the_released_code(rng):
    labels = rng.choice([-1, 0, 1], size=(3, 6))
    scores = rng.normal(size=(3, 6)).astype("float32")
    found = make_losses(None, MKT.settings(margin=0.5))(labels, {"scores": scores})
    np.testing.assert_array_equal(found, pairwise_ranking_loss(labels, scores, 0.5, True))


@pytest.mark.parametrize(
    ("setting", "value"), [("top_k", 0), ("channels", 0), ("dropout", 1.0), ("margin", 0.0)]
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting, value):
    with pytest.raises(UserError, match=f"{setting}: {value} is not valid; it must be "):
        MKT.settings(**{setting: value})


def test_more_strongest_regions_than_there_are_is_refused(rng):
    seen = rng.normal(size=(SEEN, EMBEDDING)).astype("float32")
    with pytest.raises(ValueError, match="k=7 is larger than the 6 regions"):
        small_head("mkt", (*GRID, CHANNELS), SCENE, seen, top_k=7)
