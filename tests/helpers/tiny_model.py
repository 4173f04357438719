"""A SavedModel with the signatures of an exported tagger, a few TensorFlow operations large."""

import functools
import pathlib

import numpy as np
import tensorflow as tf
from tensorflow.python.data.experimental.ops.testing import sleep

from serving.graph.warmup import FILE_NAME, write_warmup_requests

NAMES = ("dog", "red car", "beach", "cat")
EMBEDDING_SIZE = 4
BROKEN = b"broken"
WAITING, LONGEST_WAIT_SECONDS, POLL_MICROSECONDS = b"waiting for ", 60.0, 10_000

IMAGES = tf.TensorSpec((None,), tf.string, name="images")
EMBEDDINGS = tf.TensorSpec((None, EMBEDDING_SIZE), tf.float32, name="class_embeddings")
NAMES_SPEC = tf.TensorSpec((None,), tf.string, name="class_names")
REGIONS = tf.TensorSpec((None, 2, 2, EMBEDDING_SIZE), tf.float32, name="region_features")
SCENE = tf.TensorSpec((None, 3), tf.float32, name="scene_feature")


class Gate:
    """A photo at which the model waits until `open`; `reached` says that it is there."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.photo = WAITING + str(path).encode()

    def reached(self) -> bool:
        return self._path.with_name(self._path.name + ".reached").exists()

    def open(self) -> None:
        self._path.touch()


def expected_scores(images, class_embeddings, bias=0.0) -> np.ndarray:
    """What the model scores, computed by NumPy."""
    lengths = np.array([len(image) for image in images], np.float32)[:, None]
    return lengths * np.sum(class_embeddings, axis=1) + bias


class TinyTagger(tf.Module):
    """Scores are the length of the image's bytes times the sum of the embedding, and a bias.

    An image `BROKEN` is refused, and at that of a `Gate` the model waits.
    """

    def __init__(self, bias: float):
        super().__init__()
        self.bias = tf.Variable(bias, trainable=False)

    def features(self, images):
        lengths = tf.cast(tf.strings.length(images), tf.float32)
        whole = tf.debugging.Assert(
            tf.reduce_all(images != BROKEN) & (tf.size(images) > 0), ["images: not a whole photo"]
        )
        with tf.control_dependencies([whole, _wait_at_gates(images)]):
            regions = tf.tile(lengths[:, None, None, None], [1, 2, 2, EMBEDDING_SIZE])
            return {"region_features": regions, "scene_feature": tf.tile(lengths[:, None], [1, 3])}

    def rescore(self, region_features, scene_feature, class_embeddings):
        pooled = tf.reduce_mean(region_features, axis=(1, 2)) + 0.0 * scene_feature[:, :1]
        return {"scores": tf.matmul(pooled, class_embeddings, transpose_b=True) + self.bias}

    def serving_default(self, images, class_embeddings):
        return self.rescore(**self.features(images), class_embeddings=class_embeddings)

    def embed(self, class_names):
        rows = tf.argmax(class_names[:, None] == tf.constant(NAMES)[None], axis=1)
        known = tf.reduce_all(tf.reduce_any(class_names[:, None] == NAMES, axis=1))
        message = tf.strings.join(["class_names: unknown: ", tf.strings.reduce_join(class_names)])
        with tf.control_dependencies([tf.debugging.Assert(known, [message])]):
            return {"class_embeddings": tf.gather(tf.eye(EMBEDDING_SIZE), rows)}

    def tag(self, images, class_names):
        return self.serving_default(images, self.embed(class_names)["class_embeddings"])

    def tag_known(self, images):
        scores = self.tag(images, tf.constant(NAMES))["scores"]
        best, rows = tf.math.top_k(scores, 2)
        return {"names": tf.gather(tf.constant(NAMES), rows), "scores": best}

    def explain(self, images, class_embeddings):
        scores = self.serving_default(images, class_embeddings)["scores"]
        return {"scores": scores, "response_maps": tf.tile(scores[:, None, None], [1, 2, 2, 1])}


def _wait_at_gates(images) -> tf.Tensor:
    at_gate = tf.strings.substr(images, 0, len(WAITING)) == WAITING
    gates = tf.strings.substr(tf.boolean_mask(images, at_gate), len(WAITING), 4096)
    reached = tf.map_fn(_write_reached, gates, fn_output_signature=tf.bool)
    with tf.control_dependencies([reached]):
        end = tf.timestamp() + LONGEST_WAIT_SECONDS

    def closed(_):
        there = tf.size(tf.io.matching_files(gates))
        return (there < tf.size(gates)) & (tf.timestamp() < end)

    def pause(polls):  # leaves the processor to others
        after = tf.data.Dataset.from_tensors(polls + 1).apply(sleep(POLL_MICROSECONDS))
        return (after.get_single_element(),)

    return tf.while_loop(closed, pause, (0,))[0]


def _write_reached(gate) -> tf.Tensor:
    with tf.control_dependencies([tf.io.write_file(tf.strings.join([gate, ".reached"]), "")]):
        return tf.constant(True)


@functools.cache
def _traced() -> tuple[TinyTagger, dict]:
    """The model and its signatures, which take seconds to trace."""
    module = TinyTagger(0.0)
    inputs = {
        "serving_default": (IMAGES, EMBEDDINGS),
        "tag": (IMAGES, NAMES_SPEC),
        "tag_known": (IMAGES,),
        "explain": (IMAGES, EMBEDDINGS),
        "features": (IMAGES,),
        "rescore": (REGIONS, SCENE, EMBEDDINGS),
        "embed": (NAMES_SPEC,),
    }
    signatures = {
        name: tf.function(getattr(module, name), autograph=False).get_concrete_function(*specs)
        for name, specs in inputs.items()
    }
    return module, signatures


def write_tiny_model(model_dir: pathlib.Path, version: int, bias: float = 0.0, warmup=True) -> None:
    """Writes `model_dir/version`; as an export does, it gets its name when it is whole."""
    module, signatures = _traced()
    module.bias.assign(bias)
    aside = model_dir / f".partial-{version}"
    tf.saved_model.save(module, aside, signatures=signatures)
    if warmup:
        extra = aside / "assets.extra"
        extra.mkdir()
        photo = {"images": np.array([b"photo"], dtype=object)}
        write_warmup_requests(extra / FILE_NAME, [("tag_known", photo)])
    aside.rename(model_dir / str(version))
