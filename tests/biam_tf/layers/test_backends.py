"""Heads and losses with the other backends of Keras, and which way to compute is chosen.

`.ci/run` runs `test_conformance.py` with the other backends.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from biam_tf import ways_to_compute
from biam_tf.layers import (
    ConvReluBatchNorm,
    NonLocalBlock,
    RegionContextBlock,
    TopKSpatialPooling,
    region_context,
)
from biam_tf.models import bind_vocabulary, build_head
from biam_tf.models.head import scores_alone
from biam_tf.ways_to_compute import (
    ANYWHERE,
    Plan,
    plan_of_build,
    planned,
    way_of_attention,
    way_of_responses,
)

ROOT = pathlib.Path(__file__).parents[3]
SHAPES = ((2, 5, 4, 16), (2, 12), (9, 7))
PRESETS = ("released", "recommended")

# Scores a head that TensorFlow saved, and its loss; saves the same head again.
OTHER_BACKEND = """
import sys
import keras
import numpy as np
from biam_tf.layers import RegionContextBlock
from biam_tf.losses import RankingLoss
from biam_tf.models.head import build_head, scores_alone
assert "tensorflow" not in sys.modules
folder = sys.argv[1]
arrays = dict(np.load(f"{folder}/inputs.npz"))
labels = arrays.pop("labels")
found = {}
for preset in sys.argv[2:]:
    head = keras.models.load_model(f"{folder}/{preset}.keras")
    scores = head(arrays)
    found[preset] = keras.ops.convert_to_numpy(scores)
    found[f"{preset} alone"] = keras.ops.convert_to_numpy(scores_alone(head)(arrays))
    for reduction in ("sum", "mean_of_violations"):
        loss = RankingLoss(reduction=reduction)(labels, scores)
        found[f"{preset} {reduction}"] = keras.ops.convert_to_numpy(loss)
    head.save(f"{folder}/{preset}_again.keras")
with np.load(f"{folder}/inputs.npz") as given:  # no layer changes its inputs
    assert all(np.array_equal(given[name], array) for name, array in arrays.items())
np.savez(f"{folder}/found.npz", **found)
"""


def in_other_process(backend: str, *arguments: str) -> str:
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


@pytest.fixture(params=["jax", "torch"])
def backend(request) -> str:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.mark.integration
@pytest.mark.rounding
def test_a_head_scores_the_same_with_every_backend(backend, rng, tmp_path):
    names = ("region_features", "scene_feature", "class_embeddings")
    arrays = {
        name: rng.normal(size=shape).astype("float32")
        for name, shape in zip(names, SHAPES, strict=True)
    }
    labels = rng.integers(-1, 2, size=(2, 9)).astype("int8")
    np.savez(tmp_path / "inputs.npz", labels=labels, **arrays)
    heads = {}
    for preset in PRESETS:
        heads[preset] = build_head(
            SHAPES[0][1:], 12, 7, preset, channels=16, num_heads=4, top_k=3,
            seen_embeddings=rng.normal(size=(4, 7)),
        )  # fmt: skip
        heads[preset].save(tmp_path / f"{preset}.keras")
    in_other_process(backend, "-c", OTHER_BACKEND, str(tmp_path), *PRESETS)

    from biam_tf.files import read_model
    from biam_tf.losses import RankingLoss

    with np.load(tmp_path / "found.npz") as found:
        for preset, head in heads.items():
            scores = np.asarray(head(arrays))
            np.testing.assert_allclose(found[preset], scores, atol=1e-5)
            np.testing.assert_allclose(found[f"{preset} alone"], scores, atol=1e-5)
            for reduction in ("sum", "mean_of_violations"):
                loss = RankingLoss(reduction=reduction)(labels, scores)
                np.testing.assert_allclose(found[f"{preset} {reduction}"], loss, rtol=1e-5)
            again = read_model(tmp_path / f"{preset}_again.keras", "")
            np.testing.assert_array_equal(again(arrays), scores)


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(ways_to_compute, "device_kind", lambda: "gpu")


@pytest.mark.unit
def test_a_cpu_computes_in_blocks_what_does_not_fit_its_caches():
    assert way_of_attention(8, (14, 14), training=True) == "blocks"  # 8·196² ≥ 2^17
    assert way_of_attention(8, (14, 14), training=False) == "whole"  # 8·196² < 2^20
    assert way_of_attention(8, (None, 14), training=False) == "blocks"
    assert way_of_responses(32, 196, 925, 1 << 23) == "whole"
    assert way_of_responses(None, 196, 925, 1 << 23) == "blocks"
    with planned(Plan(batch=32, compiled=True)):
        plan = plan_of_build()
    assert way_of_attention(8, (14, 14), True, plan) == "whole"
    assert plan_of_build() == ANYWHERE


@pytest.mark.unit
def test_a_gpu_computes_whole_arrays_while_they_fit(on_a_gpu):
    # 2^29 numbers: 8·196² in 1,746 images, 196·7,186 in 381.
    assert way_of_attention(8, (14, 14), True, Plan(1746)) == "whole"
    assert way_of_attention(8, (14, 14), True, Plan(1747)) == "blocks"
    assert way_of_responses(None, 196, 7186, 1 << 23, Plan(381)) == "whole"
    assert way_of_responses(None, 196, 7186, 1 << 23, Plan(382)) == "blocks"
    assert way_of_responses(382, 196, 7186, 1 << 23, Plan(1)) == "blocks"
    assert way_of_responses(2, 196, None, 1 << 23) == "blocks"


@pytest.mark.unit
def test_a_head_built_for_a_gpu_can_be_compiled_and_scores_alike(rng, monkeypatch):
    shape, classes = (14, 14, 16), rng.normal(size=(9, 7)).astype("float32")
    inputs = [rng.normal(size=(2, *size)).astype("float32") for size in (shape, (12,))]

    def built():
        head = build_head(shape, 12, 7, channels=16, num_heads=8)
        return bind_vocabulary(scores_alone(head), classes)

    on_cpu = built()
    monkeypatch.setattr(ways_to_compute, "device_kind", lambda: "gpu")
    on_gpu = built()
    jit = [[layer.supports_jit for layer in m._flatten_layers()] for m in (on_cpu, on_gpu)]
    assert not all(jit[0]) and all(jit[1])
    on_gpu.set_weights(on_cpu.get_weights())
    np.testing.assert_allclose(on_gpu(inputs), on_cpu(inputs), atol=1e-5)


@pytest.mark.unit
def test_fused_attention_is_the_formula(rng, monkeypatch):
    block = RegionContextBlock(num_heads=2, attention_dropout=0.1)
    x = rng.normal(size=(2, 4, 3, 8)).astype("float32")
    written_out = block(x)
    monkeypatch.setattr(region_context, "way_of_attention", lambda *_: "fused")
    assert block._way(x.shape, training=True) == "whole"  # it has no dropout
    np.testing.assert_allclose(block(x), written_out, atol=1e-5)


@pytest.mark.unit
def test_channels_first_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr("keras.config.image_data_format", lambda: "channels_first")
    for layer in (
        ConvReluBatchNorm(4),
        NonLocalBlock(),
        RegionContextBlock(2),
        TopKSpatialPooling(2),
    ):
        with pytest.raises(ValueError, match=f"^{type(layer).__name__} takes region features"):
            layer.build((None, 4, 3, 8))
    with pytest.raises(ValueError, match=r"^build_head takes .* Keras is set to channels_first"):
        build_head((4, 3, 8), 5, 6)
