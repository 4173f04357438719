"""The signatures of an exported tagger: functions of TensorFlow operations alone."""

import dataclasses
import uuid
from collections.abc import Callable

import tensorflow as tf

from biam_tf.backbones import fold_batch_norms
from biam_tf.models.head import region_classifier, scores_alone, with_response_maps
from biam_tf.runs import TrainedRun
from serving.graph.batching import Batching
from serving.graph.name_table import NameTable
from serving.graph.photo_decoding import DEFAULT_MAX_PIXELS, photo_decoder

IMAGES = tf.TensorSpec((None,), tf.string, name="images")
CLASS_NAMES = tf.TensorSpec((None,), tf.string, name="class_names")
# Lengths are left open and checked in the graph: TensorFlow Serving doesn't compare a request
# with the signature, and only an open shape keeps the check from being optimized away.
CLASS_EMBEDDINGS = tf.TensorSpec((None, None), tf.float32, name="class_embeddings")
REGION_FEATURES = tf.TensorSpec((None, None, None, None), tf.float32, name="region_features")
SCENE_FEATURE = tf.TensorSpec((None, None), tf.float32, name="scene_feature")


@dataclasses.dataclass(frozen=True)
class GraphSettings:
    """What is fixed at export.

    Attributes:
        top_k: tags that `tag_known` gives a photo, at most.
        max_pixels: larger photos are refused.
        batching: how photos of several requests share the backbone; `None`: they don't.
    """

    top_k: int = 5
    max_pixels: int = DEFAULT_MAX_PIXELS
    batching: Batching | None = None


class TaggerGraph(tf.Module):
    """A trained run as a module that `tf.saved_model.save` writes and any TensorFlow reads.

    Args:
        run: the run.
        names: what `tag` looks class names up in; `None`: there are none, and no `tag`.
        settings: what is fixed at export.
    """

    def __init__(self, run: TrainedRun, names: NameTable | None, settings: GraphSettings):
        super().__init__()
        self._names = names
        backbone = fold_batch_norms(run.backbone)
        # The weights are kept, not the models: those would be saved as objects of Keras.
        models = (backbone, run.head)
        self._weights = [weight.value for model in models for weight in model.variables]
        decode = photo_decoder(run.image_size, settings.max_pixels)
        self._decode = lambda images: decode(images)
        extract = tf.function(
            _feature_extractor(backbone, settings.batching),
            input_signature=[tf.TensorSpec((None, run.image_size, run.image_size, 3), tf.float32)],
            autograph=False,
        )
        # Saving traces again every tf.function that it sees, beside what the signatures hold.
        self._extract = lambda photos: extract(photos)
        head = scores_alone(run.head)
        self._score = lambda *inputs: head(list(inputs), training=False)
        self._shapes = {tensor.name: tensor.shape for tensor in run.head.inputs}
        self._explain = explainer(run)
        self._known = None
        if len(run.vocabulary):
            self._known = _KnownClasses(run, settings.top_k)

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns every signature that this run can answer, by name.

        `explain` is missing for a head that classifies no regions, `tag_known` for a run
        without a vocabulary, `tag` and `embed` where there is nothing to look names up in.
        """
        functions = {
            "serving_default": (self.serving_default, (IMAGES, CLASS_EMBEDDINGS)),
            "features": (self.features, (IMAGES,)),
            "rescore": (self.rescore, (REGION_FEATURES, SCENE_FEATURE, CLASS_EMBEDDINGS)),
        }
        if self._names is not None:
            functions["tag"] = (self.tag, (IMAGES, CLASS_NAMES))
            functions["embed"] = (self.embed, (CLASS_NAMES,))
        if self._known is not None:
            functions["tag_known"] = (self.tag_known, (IMAGES,))
        if self._explain is not None:
            functions["explain"] = (self.explain, (IMAGES, CLASS_EMBEDDINGS))
        return {
            name: tf.function(function, autograph=False).get_concrete_function(*inputs)
            for name, (function, inputs) in functions.items()
        }

    def serving_default(self, images, class_embeddings):
        """Photos (B,), class embeddings (C, d_a) to `scores` (B, C)."""
        class_embeddings = self._check_class_embeddings(class_embeddings)
        return {"scores": self._score(*self._features(images), class_embeddings)}

    def tag(self, images, class_names):
        """Photos (B,), class names (C,) to `scores` (B, C)."""
        class_embeddings = self._embed(class_names)
        return {"scores": self._score(*self._features(images), class_embeddings)}

    def tag_known(self, images):
        """Photos (B,) to the best classes of the run: `names`, `scores` (B, K), best first."""
        names, scores = self._known(*self._features(images))
        return {"names": names, "scores": scores}

    def explain(self, images, class_embeddings):
        """As `serving_default`, with `response_maps` (B, h, w, C)."""
        class_embeddings = self._check_class_embeddings(class_embeddings)
        return self._explain(*self._features(images), class_embeddings)

    def features(self, images):
        """Photos (B,) to `region_features` (B, h, w, d) and `scene_feature` (B, d_g)."""
        region_features, scene_feature = self._features(images)
        return {"region_features": region_features, "scene_feature": scene_feature}

    def rescore(self, region_features, scene_feature, class_embeddings):
        """Features of `features` and class embeddings (C, d_a) to `scores` (B, C)."""
        class_embeddings = self._check_class_embeddings(class_embeddings)
        region_features = self._check_features("region_features", region_features)
        scene_feature = self._check_features("scene_feature", scene_feature)
        regions, scenes = tf.shape(region_features)[0], tf.shape(scene_feature)[0]
        same = tf.debugging.Assert(
            tf.equal(regions, scenes),
            [_said("region_features of ", regions, " photos, scene_feature of ", scenes)],
        )
        with tf.control_dependencies([same]):
            region_features = tf.identity(region_features)
        return {"scores": self._score(region_features, scene_feature, class_embeddings)}

    def embed(self, class_names):
        """Class names (C,) to `class_embeddings` (C, d_a), for `explain` and `rescore`."""
        return {"class_embeddings": self._embed(class_names)}

    def _embed(self, class_names):
        return self._names(_require_some(class_names, "class_names: no classes"))

    def _features(self, images):
        images = _require_some(images, "images: no photos")
        return self._extract(self._decode(images))

    def _check_class_embeddings(self, class_embeddings):
        length = self._shapes["class_embeddings"][-1]
        found = tf.shape(class_embeddings)[1]
        fits = tf.debugging.Assert(
            tf.equal(found, length),
            [
                _said(
                    "class_embeddings: the rows have ",
                    found,
                    f" numbers; this model was trained with embeddings of {length}",
                )
            ],
        )
        with tf.control_dependencies([fits]):
            class_embeddings = _require_some(class_embeddings, "class_embeddings: no classes")
        finite = _require_finite(class_embeddings, "class_embeddings")
        return tf.ensure_shape(finite, (None, length))

    def _check_features(self, name, features):
        features = _require_some(features, f"{name}: no photos")
        shape = (None, *self._shapes[name][1:])
        said = ", ".join("any" if size is None else str(size) for size in shape)
        fits = tf.reduce_all(
            [
                tf.equal(tf.shape(features)[axis], size)
                for axis, size in enumerate(shape)
                if size is not None
            ]
        )
        found = tf.strings.reduce_join(tf.strings.as_string(tf.shape(features)), separator=", ")
        message = tf.strings.join([f"{name}: shape (", found, f"); expected ({said})"])
        with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
            features = tf.identity(features)
        return tf.ensure_shape(_require_finite(features, name), shape)


class _KnownClasses(tf.Module):
    """The head on a fixed list of classes, whose side of BiAM's classifier is computed once."""

    def __init__(self, run: TrainedRun, top_k: int):
        super().__init__()
        import keras

        self._names = tf.constant(run.vocabulary.names)
        self._top_k = min(top_k, len(run.vocabulary))
        classifier = region_classifier(run.head)
        if classifier is None:
            self._constant = tf.Variable(run.vocabulary.embeddings, trainable=False)
            self._score = lambda *features: run.head(
                [*features, tf.convert_to_tensor(self._constant)], training=False
            )
            return
        e_f = keras.Model(run.head.inputs[:2], classifier.input[0])
        pool = run.head.get_layer("scores")
        self._constant = tf.Variable(
            classifier.class_weights(run.vocabulary.embeddings), trainable=False
        )
        self._score = lambda *features: pool(
            classifier.responses(
                e_f(list(features), training=False), tf.convert_to_tensor(self._constant)
            )
        )

    def __call__(self, region_features, scene_feature):
        scores = self._score(region_features, scene_feature)
        best, rows = tf.math.top_k(scores, self._top_k)
        return tf.gather(self._names, rows), best


def _feature_extractor(backbone, batching: Batching | None) -> Callable:
    """Returns a function of photos to region features and scene feature, batched or not."""
    outputs = backbone.output

    def extract(photos):
        features = backbone(photos, training=False)
        return tuple(
            tf.cast(features[name], tf.float32) for name in ("region_features", "scene_feature")
        )

    if batching is None:
        return extract
    batched = batching.decorate(extract, f"backbone-{uuid.uuid4().hex}")

    def extract_in_batches(photos):
        region_features, scene_feature = batched(photos)
        return (
            tf.ensure_shape(region_features, outputs["region_features"].shape),
            tf.ensure_shape(scene_feature, outputs["scene_feature"].shape),
        )

    return extract_in_batches


def explainer(run: TrainedRun) -> Callable | None:
    """Returns the head's inputs to `scores` and `response_maps`; None where there are no maps."""
    try:
        head = with_response_maps(run.head)
    except ValueError:  # it classifies no regions
        return None

    def explain(*inputs):
        outputs = head(list(inputs), training=False)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    return explain


def _require_some(values, problem: str):
    with tf.control_dependencies([tf.debugging.Assert(tf.shape(values)[0] > 0, [problem])]):
        return tf.identity(values)


def _require_finite(values, name: str):
    finite = tf.reduce_all(tf.math.is_finite(values))
    message = f"{name}: not all of the numbers are finite"
    with tf.control_dependencies([tf.debugging.Assert(finite, [message])]):
        return tf.identity(values)


def _said(*parts) -> tf.Tensor:
    return tf.strings.join(
        [part if isinstance(part, str) else tf.strings.as_string(part) for part in parts]
    )
