"""ONNX Runtime computes the features that TensorFlow computes."""

import numpy as np
import pytest

from biam_tf.errors import UserError
from training.data.features import onnx_runtime
from training.data.features.extraction import PartExtraction
from training.data.features.shard_extraction import describe_job
from training.data.features.store import FeatureStore

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


@pytest.mark.parametrize("runtime", ["onnx", "auto"])
def test_stored_features_are_those_of_tensorflow(
    runtime, backbone, shared_photos, shared_store, tmp_path, monkeypatch, capfd
):
    calls = iter([2.0, 1.0])
    monkeypatch.setattr(onnx_runtime, "_fastest", lambda function, photos: next(calls))
    (tmp_path / "store").mkdir()
    job = describe_job(backbone, "tiny", shared_photos[1], 5)
    extract = PartExtraction(backbone, str(shared_photos[0]), batch_size=4, runtime=runtime)
    extract(str(tmp_path / "store"), job, shared_photos[1], 26)
    if runtime == "auto":
        assert (
            "features are computed by ONNX Runtime (TensorFlow 4 photos" in capfd.readouterr().out
        )
    store = FeatureStore.open(tmp_path / "store")
    for found, expected in zip(
        store.read(shared_photos[1]), shared_store.read(shared_photos[1]), strict=True
    ):
        largest = np.abs(expected.astype(np.float32)).max()
        apart = np.abs(found.astype(np.float32) - expected.astype(np.float32)).max()
        assert found.std() > 0 and apart <= 1e-3 * largest


def test_other_features_are_refused(backbone, monkeypatch):
    monkeypatch.setattr(onnx_runtime, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="region_features differ from TensorFlow's by"):
        onnx_runtime.onnx_features(backbone)
    assert onnx_runtime.faster_runtime(backbone)[1] is None
