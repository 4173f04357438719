"""ONNX files of heads with few and many regions: from 12 x 12 on, attention has blocks."""

import pathlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from biam_tf.layers import RegionContextBlock
from biam_tf.models import build_head
from biam_tf.models.head import with_response_maps
from biam_tf.vocabulary import Vocabulary
from biam_tf.ways_to_compute import RELATIONS
from serving.graph.onnx_file import export_onnx

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

CHANNELS, EMBEDDING = 8, 6


def small_run(side: int | None, **settings) -> types.SimpleNamespace:
    """A run with a backbone of one convolution, so that a region is a pixel."""
    images = keras.Input((side, side, 3))
    regions = keras.layers.Conv2D(CHANNELS, 1, name="regions")(images / 255.0)
    scene = keras.layers.GlobalAveragePooling2D()(regions)
    outputs = {"region_features": regions, "scene_feature": scene}
    head = build_head((side, side, CHANNELS), CHANNELS, EMBEDDING, num_heads=8, **settings)
    rng = np.random.default_rng(1)
    for weight in head.weights:
        if weight.dtype == "float32" and "variance" not in weight.path:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    vocabulary = Vocabulary(("a", "b"), np.eye(2, EMBEDDING), ("seen", "unseen"))
    return types.SimpleNamespace(
        head=head,
        backbone=keras.Model(images, outputs),
        image_size=side,
        vocabulary=vocabulary,
        open_vocabulary=True,
        folder=types.SimpleNamespace(path=pathlib.Path("small")),
    )


@pytest.mark.parametrize("side", [7, 32])
def test_a_head_of_any_number_of_regions_is_converted(side, tmp_path):
    assert (8 * side**4 >= RELATIONS) == (side == 32)  # the last has attention in blocks
    keras.utils.set_random_seed(3)
    run = small_run(side, top_k=4)
    file = tmp_path / "head.onnx"
    assert max(export_onnx(run, file, "head").values()) < 1e-4
    rng = np.random.default_rng(2)
    inputs = {
        "region_features": rng.normal(size=(2, side, side, CHANNELS)),
        "scene_feature": rng.normal(size=(2, CHANNELS)),
        "class_embeddings": rng.normal(size=(5, EMBEDDING)),
    }
    inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
    session = onnxruntime.InferenceSession(str(file))
    found = dict(
        zip((o.name for o in session.get_outputs()), session.run(None, inputs), strict=True)
    )
    expected = with_response_maps(run.head)(list(inputs.values()), training=False)
    assert found["response_maps"].shape == (2, side, side, 5)
    for name, value in expected.items():
        scale = float(tf.reduce_max(tf.abs(value)))
        assert scale > 0.1
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 * scale)


@pytest.mark.rounding
def test_attention_without_blocks_is_the_formula(rng, monkeypatch):
    from biam_tf.layers.blockwise_attention import attend
    from biam_tf.ways_to_compute import without_blocks

    q, k, v = (rng.normal(size=(6, 9, 4)).astype(np.float32) for _ in range(3))
    block = RegionContextBlock(num_heads=2)
    scores = np.einsum("hqd,hkd->hqk", q / 2, k)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)

    @tf.function
    def traced():
        return attend(tf.constant(q), tf.constant(k), tf.constant(v), block._relation_scores)

    with without_blocks():
        graph = traced.get_concrete_function().graph
    assert not any(op.type.endswith("While") for op in graph.get_operations())
    np.testing.assert_allclose(traced(), weights @ v, rtol=1e-5, atol=1e-6)
    in_blocks = attend(*map(tf.constant, (q, k, v)), block._relation_scores, scores_at_a_time=81)
    np.testing.assert_allclose(in_blocks, weights @ v, rtol=1e-5, atol=1e-6)
