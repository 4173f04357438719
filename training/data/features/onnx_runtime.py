"""A backbone computed by ONNX Runtime, which is faster than TensorFlow on many CPUs.

Its features differ from TensorFlow's by the rounding of sums in another order.
"""

import time
from collections.abc import Callable
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from biam_tf.backbones import fold_batch_norms
from biam_tf.errors import UserError
from biam_tf.threads import usable_cpus

Runtime = Literal["tensorflow", "onnx", "auto"]
Features = Callable[[tf.Tensor], tuple[np.ndarray, np.ndarray]]
NAMES = ("region_features", "scene_feature")
# Largest difference from TensorFlow's features, relative to the largest of them.
TOLERANCE = 1e-3
_OPSET, _PHOTOS, _ROUNDS = 18, 8, 3


def onnx_features(backbone: keras.Model) -> Features:
    """Returns a function of photos (B, S, S, 3) to float32 features, on the cores of this process.

    Raises:
        UserError: a package of [onnx] is missing, the backbone cannot be converted, or its
            features differ from TensorFlow's by more than a thousandth of the largest.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise UserError(
            f"backbone.runtime: onnx: the package {error.name} is missing; install it with pip "
            "install 'biam-tf[onnx]'"
        ) from None
    folded = fold_batch_norms(backbone)
    signature = [tf.TensorSpec([None, *backbone.inputs[0].shape[1:]], tf.float32, name="photos")]

    @tf.function(input_signature=signature, autograph=False)
    def features(photos: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = folded(photos, training=False)
        return {name: tf.identity(outputs[name], name) for name in NAMES}

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = usable_cpus(), 1
    try:
        model, _ = tf2onnx.convert.from_function(features, input_signature=signature, opset=_OPSET)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # each library has its own
        raise UserError(
            f"backbone.runtime: onnx: this backbone cannot be converted ({error}); set "
            "backbone.runtime: tensorflow"
        ) from error

    def run(photos: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        regions, scenes = session.run(list(NAMES), {"photos": photos.numpy()})
        return regions, scenes

    def by_tensorflow(photos: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        outputs = features(photos)
        return outputs[NAMES[0]].numpy(), outputs[NAMES[1]].numpy()

    _require_same(run, by_tensorflow, backbone)
    return run


def faster_runtime(backbone: keras.Model) -> tuple[str, Features | None]:
    """Returns which runtime computes a few photos faster and why, and the features if it is ONNX.

    Without the packages of [onnx], or for a backbone that cannot be converted, it is TensorFlow.
    """
    if tf.config.list_logical_devices("GPU"):
        return "TensorFlow, which uses the GPU", None
    try:
        ours = onnx_features(backbone)
    except UserError as error:
        return f"TensorFlow ({error})", None
    folded = fold_batch_norms(backbone)
    compiled = tf.function(lambda photos: folded(photos, training=False), autograph=False)
    photos = _noise(backbone)
    seconds = {"TensorFlow": compiled, "ONNX Runtime": ours}
    taken = {name: _fastest(function, photos) for name, function in seconds.items()}
    speeds = ", ".join(f"{name} {_PHOTOS / its:.0f} photos/s" for name, its in taken.items())
    if taken["ONNX Runtime"] < taken["TensorFlow"]:
        return f"ONNX Runtime ({speeds})", ours
    return f"TensorFlow ({speeds})", None


def _fastest(function: Callable, photos: tf.Tensor) -> float:
    """Seconds of the fastest of some calls, after one that does not count."""
    function(photos)
    taken = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        function(photos)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _require_same(found: Features, expected: Features, backbone: keras.Model) -> None:
    photos = _noise(backbone)
    for name, ours, theirs in zip(NAMES, found(photos), expected(photos), strict=True):
        apart = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))
        if not apart <= TOLERANCE:
            raise UserError(
                f"backbone.runtime: onnx: {name} differ from TensorFlow's by {apart:.1e} of the "
                "largest; set backbone.runtime: tensorflow"
            )


def _noise(backbone: keras.Model) -> tf.Tensor:
    shape = (_PHOTOS, *backbone.inputs[0].shape[1:])
    return tf.constant(np.random.default_rng(0).uniform(0, 255, shape), tf.float32)
