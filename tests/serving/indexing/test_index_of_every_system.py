"""What an index stores of every system, and that it scores photos as a full request does."""

import numpy as np
import pytest
from small_systems import small_head

from biam_tf.class_sides import LearnedClasses, save_class_side
from biam_tf.errors import UserError
from biam_tf.models.factors import factors_of
from biam_tf.models.systems import SYSTEMS
from biam_tf.vocabulary import Vocabulary
from serving.indexing.manifest import (
    CLASS_SIDE,
    VOCABULARY,
    IndexedPhoto,
    IndexManifest,
    write_shard,
)
from serving.indexing.photo_index import PhotoIndex

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

PHOTOS, SHARD, GRID, CHANNELS, SCENE, EMBEDDING, SEEN = 40, 16, 4, 16, 10, 6, 7
# Their scores have another last step than the mean of the strongest products.
BY_FEATURES = {"attention_per_label", "attention_per_cluster", "lesa", "sdl", "ml_decoder"}
BY_FEATURES |= {"query_sharing", "dual_prompt", "ot_match"}
VARIANTS = [(name, preset, {}) for name, system in SYSTEMS.items() for preset in system.presets]
VARIANTS += [
    ("biam", preset, {"classify": "pooled_features"}) for preset in ("paper", "recommended")
]
VARIANTS += [("biam", "recommended", {"anchor_weight": 0.0, "scene_scores": False})]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join([*variant[:2], *variant[2]]))
def variant(request):
    return request.param


def write_index(folder, head, system, features, classes) -> PhotoIndex:
    """An index of photos of which the features are known."""
    factors = factors_of(head, system)
    facts = {"photo_folder": "photos", "model": str(folder / "model"), "fingerprint": "0"}
    if factors is None:
        stored = np.concatenate([each.reshape(PHOTOS, -1) for each in features], axis=1)[:, None]
        rule = {"grid": (1, 1), "has_bias": False, "pooled": 1}
        rule["region_shape"] = (GRID, GRID, CHANNELS)
    else:
        vectors = np.asarray(factors.region_vectors(*features))
        stored = vectors.reshape(PHOTOS, -1, vectors.shape[-1])
        side = factors.class_side
        rule = {"grid": factors.grid, "pooled": factors.pooled, "class_side": side.kind}
        rule["has_bias"] = bool(getattr(side, "has_bias", False))
        save_class_side(side, folder / CLASS_SIDE)
    Vocabulary(("a",), classes[:1], ("seen",)).save(folder / VOCABULARY)
    IndexManifest(**facts, **rule, embedding_size=EMBEDDING).write(folder)
    for start in range(0, PHOTOS, SHARD):
        rows = stored[start : start + SHARD].astype(np.float16)
        photos = [IndexedPhoto(f"{start + row}.jpg", 1, 2) for row in range(len(rows))]
        write_shard(folder, photos, rows)
    index = PhotoIndex(folder)
    if factors is None:  # the export's signature `rescore`, without an export
        index.__dict__["_head"] = lambda *inputs: np.asarray(head(list(inputs), training=False))
    return index


def test_an_index_scores_as_a_full_request(variant, tmp_path, rng):
    name, preset, changes = variant
    system = SYSTEMS[name]
    classes = rng.normal(size=(11, EMBEDDING)).astype("float32")
    # Of a space of images and texts, all are of one length.
    channels, scene = (EMBEDDING, EMBEDDING) if system.uses_joint_space else (CHANNELS, SCENE)
    head = small_head(name, (GRID, GRID, channels), scene, classes[:SEEN], preset, **changes)
    regions = np.maximum(rng.normal(size=(PHOTOS, GRID, GRID, channels)), 0).astype("float32")
    features = [regions, rng.normal(size=(PHOTOS, scene)).astype("float32")]
    known = classes if system.open_vocabulary else classes[:SEEN]

    index = write_index(tmp_path, head, system, features, classes)
    assert index.by_features == (name in BY_FEATURES) == (system.classifier is None)
    full = np.asarray(head([*features, known], training=False))
    found = index.scores(known)
    limit = 0.005 * np.ptp(full)
    np.testing.assert_allclose(found, full, rtol=0, atol=limit)
    for c in range(len(known)):
        best, best_of_index = np.argsort(-full[:, c])[:10], np.argsort(-found[:, c])[:10]
        # Photos may change places whose scores 16 bits cannot tell apart, and no others.
        np.testing.assert_allclose(full[best_of_index, c], full[best, c], rtol=0, atol=limit / 5)

    maps = index.response_maps(17, known)
    assert maps.shape[:2] == index.manifest.grid
    strongest = np.sort(maps.reshape(-1, len(known)), axis=0)[-index.manifest.pooled :]
    np.testing.assert_allclose(strongest.mean(axis=0), found[17], rtol=1e-4, atol=1e-5)


def test_classes_that_were_not_learned_are_refused_by_their_rows(rng):
    learned = rng.normal(size=(5, EMBEDDING)).astype("float32")
    side = LearnedClasses(learned)
    np.testing.assert_array_equal(side.vectors(learned[[3, 1]]), np.eye(5)[[3, 1]])
    near = learned[2] * (1 + 1e-3)  # as rounding to 16 bits moves it
    np.testing.assert_array_equal(side.vectors(near[None]), np.eye(5)[[2]])
    with pytest.raises(UserError, match="none of them is in row 1"):
        side.vectors(np.stack([learned[0], learned[0] + learned[1]]))
