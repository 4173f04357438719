"""ONNX files of the systems whose queries, norms or plans no other head has."""

import pathlib
import types

import numpy as np
import pytest
from small_systems import small_head

from biam_tf.models.head import response_map_layer
from biam_tf.vocabulary import Vocabulary
from serving.graph.onnx_file import export_onnx

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

GRID, CHANNELS, SCENE, EMBEDDING, SEEN = 3, 8, 5, 6, 4


def features_of(images, training):
    """Takes the place of a backbone, from which the export makes its own sample."""
    del training
    shape = np.shape(images)[0]
    numbers = np.random.default_rng(3).normal(size=(shape, GRID * GRID * CHANNELS + SCENE))
    regions, scene = np.split(numbers.astype(np.float32), [GRID * GRID * CHANNELS], axis=1)
    return {
        "region_features": regions.reshape(-1, GRID, GRID, CHANNELS),
        "scene_feature": scene,
    }


@pytest.mark.parametrize(
    "name", ["sdl", "ml_decoder", "query_sharing", "mkt", "dual_prompt", "ot_match"]
)
def test_onnx_runtime_gives_the_scores_of_the_head(name, tmp_path, rng):
    seen = rng.normal(size=(SEEN, EMBEDDING)).astype("float32")
    head = small_head(name, (GRID, GRID, CHANNELS), SCENE, seen)
    run = types.SimpleNamespace(
        head=head,
        vocabulary=Vocabulary(("a",), seen[:1], ("seen",)),
        open_vocabulary=True,
        image_size=GRID,
        backbone=features_of,
        folder=types.SimpleNamespace(path=pathlib.Path("small")),
    )
    file = tmp_path / "head.onnx"
    export_onnx(run, file, "head")  # compares with TensorFlow
    inputs = {
        "region_features": rng.normal(size=(2, GRID, GRID, CHANNELS)),
        "scene_feature": rng.normal(size=(2, SCENE)),
        "class_embeddings": rng.normal(size=(7, EMBEDDING)),
    }
    inputs = {key: value.astype(np.float32) for key, value in inputs.items()}
    session = onnxruntime.InferenceSession(str(file))
    given = {entry.name for entry in session.get_inputs()}
    outputs = [output.name for output in session.get_outputs()]
    values = session.run(None, {key: value for key, value in inputs.items() if key in given})
    found = dict(zip(outputs, values, strict=True))
    expected = head(list(inputs.values()), training=False).numpy()
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-4, atol=1e-4)
    assert ("response_maps" in found) == (response_map_layer(head) is not None)
