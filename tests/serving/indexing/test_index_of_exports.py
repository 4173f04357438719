"""Exports whose scores are not linear in the class embeddings: indexed, and scored as requested."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded
from small_systems import small_head
from unchecked_export import unchecked

from biam_tf.errors import UserError
from biam_tf.photos import decode_photo
from biam_tf.runs import load_run
from biam_tf.vocabulary import Vocabulary
from serving.graph.saved_model import export
from serving.graph.signatures import GraphSettings
from serving.indexing.build_index import index_photos
from serving.indexing.photo_index import PhotoIndex

PHOTOS = 20
# System, preset, kind of class side or features, start of what an export says of an index.
FORMS = {
    "recommended": ("biam", "recommended", "directions", "12x12 regions of "),
    "learned": ("logistic", "paper", "learned", ""),
    "attention": ("attention_per_label", "paper", "features", "keeps the features"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for seed in range(PHOTOS):
        (folder / f"{seed:02}.png").write_bytes(encoded("PNG", (60, 50), seed))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_an_index_scores_as_the_export_answers(form, finished, photos, tmp_path):
    system, preset, kind, says = FORMS[form]
    run = load_run(finished.path)
    shapes = {tensor.name: tensor.shape[1:] for tensor in run.head.inputs}
    own = run.vocabulary.embeddings
    head = small_head(system, shapes["region_features"], shapes["scene_feature"][0], own, preset)
    settings = {**run.settings, "head": {"system": system}}
    changed = dataclasses.replace(run, head=head, settings=settings, thresholds=None)
    if kind != "learned":  # without names there are fewer signatures, which take seconds each
        nameless = Vocabulary((), np.empty((0, own.shape[1]), np.float32), ())
        changed = dataclasses.replace(changed, vocabulary=nameless)
    with unchecked():  # compared below
        exported = export(changed, tmp_path / "model", GraphSettings(formats=("JPEG", "PNG")))
    assert exported.index.startswith(says) and " per photo" in exported.index
    assert ("region_vectors" in exported.signatures) == (kind != "features")

    index_photos(tmp_path / "model", photos, tmp_path / "index")
    index = PhotoIndex(tmp_path / "index")
    assert index.by_features == (kind == "features")
    assert kind in ("features", index.manifest.class_side)
    classes = own[::-1]
    contents = tf.constant([(photos / path).read_bytes() for path in index.photos])
    signature = tf.saved_model.load(exported.path).signatures["serving_default"]
    full = signature(images=contents, class_embeddings=tf.constant(classes))["scores"].numpy()
    pixels = tf.stack([decode_photo(photo, run.image_size) for photo in contents])
    features = run.backbone(pixels, training=False)
    parts = [features["region_features"], features["scene_feature"], tf.constant(classes)]
    by_keras = np.asarray(head(parts, training=False))
    np.testing.assert_allclose(full, by_keras, rtol=0, atol=1e-4 * max(1, abs(by_keras).max()))
    found = index.scores(classes)
    limit = 0.005 * np.ptp(full)
    np.testing.assert_allclose(found, full, rtol=0, atol=limit)
    for c in range(len(classes)):
        best, of_index = np.argsort(-full[:, c])[:10], np.argsort(-found[:, c])[:10]
        np.testing.assert_allclose(full[of_index, c], full[best, c], rtol=0, atol=limit / 5)
    if kind == "learned":
        with pytest.raises(UserError, match="none of them is in row 0"):
            index.scores(np.eye(len(own[0]), dtype=np.float32)[:1])
