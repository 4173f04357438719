"""The signatures of an exported tagger, as functions of TensorFlow operations.

Each request runs one of the methods of `TaggerGraph` below: photos are decoded
(`serving.graph.photo_decoding`), the backbone computes their features in batches that concurrent
requests share (`serving.graph.batching`), class names become embeddings
(`serving.graph.name_table`), the head scores features against embeddings, and scores become
probabilities and tags (`serving.graph.calibration`).
"""

import dataclasses
import uuid
from collections.abc import Callable

import keras
import tensorflow as tf

from biam_tf.backbones import fold_batch_norms
from biam_tf.class_sides import LinearClasses
from biam_tf.models.factors import Factors, factors_of
from biam_tf.models.head import region_classifier, scores_alone, with_response_maps
from biam_tf.models.systems import find_system
from biam_tf.photo_decoding.graph_formats import Reading, available_formats
from biam_tf.photos import MAX_PIXELS
from biam_tf.runs import TrainedRun
from serving.graph.batching import Batching
from serving.graph.calibration import COLUMNS, CalibrationTable, answers
from serving.graph.name_table import NameTable
from serving.graph.photo_decoding import photo_decoder
from serving.graph.request_limits import GraphSizes, RequestLimits, within_limits

IMAGES = tf.TensorSpec((None,), tf.string, name="images")
CLASS_NAMES = tf.TensorSpec((None,), tf.string, name="class_names")
# Sizes are unspecified and checked in the graph: TensorFlow Serving doesn't compare requests with
# the signature, and with a known shape the check would be optimized away.
CLASS_EMBEDDINGS = tf.TensorSpec((None, None), tf.float32, name="class_embeddings")
REGION_FEATURES = tf.TensorSpec((None, None, None, None), tf.float32, name="region_features")
SCENE_FEATURE = tf.TensorSpec((None, None), tf.float32, name="scene_feature")

Outputs = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class GraphSettings:
    """Settings fixed at export.

    Attributes:
        top_k: largest number of tags per photo of `tag_known`.
        max_pixels: photos with more pixels are refused.
        formats: formats of photos that are decoded, of `biam_tf.photos.GRAPH_FORMATS`; None: all
            that this version of TensorFlow can. WebP needs a server with TensorFlow 2.20 or later.
        batching: settings of batching; None for one call of the backbone per request.
        limits: what one request may ask for.
    """

    top_k: int = 5
    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] | None = None
    batching: Batching | None = None
    limits: RequestLimits = dataclasses.field(default_factory=RequestLimits)

    @property
    def decoded_formats(self) -> tuple[str, ...]:
        """The formats of photos that are decoded: the chosen ones, or all."""
        return self.formats or available_formats()


class TaggerGraph(tf.Module):
    """A trained run as a module for `tf.saved_model.save`, which any TensorFlow loads.

    Args:
        run: the trained run.
        names: looks up class names for `tag` and `embed`; None to leave these out.
        settings: settings fixed at export.
    """

    def __init__(self, run: TrainedRun, names: NameTable | None, settings: GraphSettings) -> None:
        super().__init__()
        self._names = names
        backbone = fold_batch_norms(run.backbone)
        # Keep the weights only: models would be saved as Keras objects.
        models = (backbone, run.head)
        self._weights = [weight.value for model in models for weight in model.variables]
        reading = Reading(run.orientation, settings.decoded_formats)
        decode = photo_decoder(run.image_size, settings.max_pixels, reading)
        self._decode = lambda images: decode(images)
        extract = tf.function(
            _feature_extractor(backbone, settings.batching),
            input_signature=[tf.TensorSpec((None, run.image_size, run.image_size, 3), tf.float32)],
            autograph=False,
        )
        # In lambdas, because saving would trace every attribute that is a tf.function once more.
        self._extract = lambda photos: extract(photos)
        head = scores_alone(run.head)
        self._score = lambda *inputs: head(list(inputs), training=False)
        self._shapes = {tensor.name: tensor.shape for tensor in run.head.inputs}
        self._explain = explainer(run)
        self._limits = settings.limits
        _, h, w, channels = run.backbone.output["region_features"].shape
        length = self._shapes["class_embeddings"][-1]
        self._sizes = GraphSizes((h or 1) * (w or 1), channels or 1, length)
        self._calibration = None
        if run.thresholds is not None and len(run.vocabulary):
            self._calibration = CalibrationTable(run.thresholds, run.vocabulary)
        factors = stored_factors(run)
        self._region_vectors = None if factors is None else factors.region_vectors
        self._known = _KnownClasses(run, settings.top_k) if len(run.vocabulary) else None

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns the signatures of this run by name.

        `explain` is missing for a head without a region classifier, `region_vectors` where they
        are not needed (`stored_factors`), `tag_known` for a run without a vocabulary, `tag` and
        `embed` without a name table, `calibrate` for a run without thresholds or vocabulary.
        """
        functions = {
            "serving_default": (self.serving_default, (IMAGES, CLASS_EMBEDDINGS)),
            "features": (self.features, (IMAGES,)),
            "rescore": (self.rescore, (REGION_FEATURES, SCENE_FEATURE, CLASS_EMBEDDINGS)),
        }
        if self._names is not None:
            functions["tag"] = (self.tag, (IMAGES, CLASS_NAMES))
            functions["embed"] = (self.embed, (CLASS_NAMES,))
        if self._calibration is not None:
            functions["calibrate"] = (self.calibrate, (CLASS_EMBEDDINGS,))
        if self._known is not None:
            functions["tag_known"] = (self.tag_known, (IMAGES,))
        if self._explain is not None:
            functions["explain"] = (self.explain, (IMAGES, CLASS_EMBEDDINGS))
        if self._region_vectors is not None:
            functions["region_vectors"] = (self.region_vectors, (IMAGES,))
        return {
            name: tf.function(function, autograph=False).get_concrete_function(*inputs)
            for name, (function, inputs) in functions.items()
        }

    def serving_default(self, images: tf.Tensor, class_embeddings: tf.Tensor) -> Outputs:
        """Returns `scores` (B, C) of photos (B,) and class embeddings (C, d_a)."""
        images, class_embeddings = self._within_limits(images, class_embeddings)
        class_embeddings = self._check_class_embeddings(class_embeddings)
        return {"scores": self._score(*self._features(images), class_embeddings)}

    def tag(self, images: tf.Tensor, class_names: tf.Tensor) -> Outputs:
        """Returns `scores` (B, C) of photos (B,) and class names (C,).

        With thresholds also `probabilities` (B, C), NaN for a class that is not calibrated, and
        `present` (B, C) bool: whether a class reaches its threshold.
        """
        images, class_names = self._within_limits(images, class_names)
        class_embeddings, calibration = self._embed(class_names)
        scores = self._score(*self._features(images), class_embeddings)
        return {"scores": scores} | _answers(scores, calibration)

    def tag_known(self, images: tf.Tensor) -> Outputs:
        """Returns `names` and `scores` (B, K) of the run's best classes for photos (B,).

        With thresholds also `probabilities` and `present` (B, K), as `tag` does.
        """
        assert self._known is not None
        images, _ = self._within_limits(images, None)
        return self._known(*self._features(images))

    def explain(self, images: tf.Tensor, class_embeddings: tf.Tensor) -> Outputs:
        """Returns `scores` as `serving_default`, and `response_maps` (B, h, w, C)."""
        assert self._explain is not None
        images, class_embeddings = self._within_limits(images, class_embeddings)
        class_embeddings = self._check_class_embeddings(class_embeddings)
        return self._explain(*self._features(images), class_embeddings)

    def features(self, images: tf.Tensor) -> Outputs:
        """Returns `region_features` (B, h, w, d) and `scene_feature` (B, d_g) of photos (B,)."""
        images, _ = self._within_limits(images, None)
        region_features, scene_feature = self._features(images)
        return {"region_features": region_features, "scene_feature": scene_feature}

    def region_vectors(self, images: tf.Tensor) -> Outputs:
        """Returns `region_vectors` (B, h, w, d) of photos (B,), which a photo index stores.

        Their products with the vectors of the classes (`assets.extra/class_side.npz`) are the
        response maps.
        """
        assert self._region_vectors is not None
        images, _ = self._within_limits(images, None)
        return {"region_vectors": self._region_vectors(*self._features(images))}

    def rescore(
        self, region_features: tf.Tensor, scene_feature: tf.Tensor, class_embeddings: tf.Tensor
    ) -> Outputs:
        """Returns `scores` (B, C) of outputs of `features` and class embeddings (C, d_a)."""
        region_features, class_embeddings = self._within_limits(region_features, class_embeddings)
        class_embeddings = self._check_class_embeddings(class_embeddings)
        region_features = self._check_features("region_features", region_features)
        scene_feature = self._check_features("scene_feature", scene_feature)
        regions, scenes = tf.shape(region_features)[0], tf.shape(scene_feature)[0]
        same = tf.debugging.Assert(
            tf.equal(regions, scenes),
            [_join("region_features of ", regions, " photos, scene_feature of ", scenes)],
        )
        with tf.control_dependencies([same]):
            region_features = tf.identity(region_features)
        return {"scores": self._score(region_features, scene_feature, class_embeddings)}

    def embed(self, class_names: tf.Tensor) -> Outputs:
        """Returns `class_embeddings` (C, d_a) of class names (C,), for `explain` and `rescore`.

        With thresholds also `slopes`, `offsets` and `cuts` (C,) float64: the probability of a class
        is 1 / (1 + exp(-(slope score + offset))), and it is present if its score reaches its cut.
        """
        _, class_names = self._within_limits(None, class_names)
        class_embeddings, calibration = self._embed(class_names)
        return {"class_embeddings": class_embeddings} | _columns(calibration)

    def calibrate(self, class_embeddings: tf.Tensor) -> Outputs:
        """Returns `slopes`, `offsets` and `cuts` (C,) of class embeddings (C, d_a) without names.

        As `embed` does; the classes are new to the model.
        """
        assert self._calibration is not None
        _, class_embeddings = self._within_limits(None, class_embeddings)
        class_embeddings = self._check_class_embeddings(class_embeddings)
        return _columns(self._calibration.of_new(class_embeddings))

    def _within_limits(
        self, photos: tf.Tensor | None, classes: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return within_limits(self._limits, self._sizes, photos, classes)

    def _embed(self, class_names: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        assert self._names is not None
        class_names = _require_some(class_names, "class_names: no classes")
        class_embeddings, rows = self._names.look_up(class_names)
        if self._calibration is None:
            return class_embeddings, None
        return class_embeddings, self._calibration.of_named(rows, class_embeddings)

    def _features(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = _require_some(images, "images: no photos")
        return self._extract(self._decode(images))

    def _check_class_embeddings(self, class_embeddings: tf.Tensor) -> tf.Tensor:
        length = self._shapes["class_embeddings"][-1]
        found = tf.shape(class_embeddings)[1]
        fits = tf.debugging.Assert(
            tf.equal(found, length),
            [
                _join(
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

    def _check_features(self, name: str, features: tf.Tensor) -> tf.Tensor:
        features = _require_some(features, f"{name}: no photos")
        shape = (None, *self._shapes[name][1:])
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        fits = tf.reduce_all(
            [
                tf.equal(tf.shape(features)[axis], size)
                for axis, size in enumerate(shape)
                if size is not None
            ]
        )
        found = tf.strings.reduce_join(tf.strings.as_string(tf.shape(features)), separator=", ")
        message = tf.strings.join([f"{name}: shape (", found, f"); expected ({expected})"])
        with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
            features = tf.identity(features)
        return tf.ensure_shape(_require_finite(features, name), shape)


class _KnownClasses(tf.Module):
    """The head on the run's classes, whose part of the region classifier is computed once."""

    def __init__(self, run: TrainedRun, top_k: int) -> None:
        super().__init__()
        self._names = tf.constant(run.vocabulary.names)
        self._calibration = None
        if run.thresholds is not None:
            own = run.vocabulary
            its = run.thresholds.for_classes(own.names, own.embeddings, own)
            self._calibration = tf.constant(its.columns)
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

    def __call__(self, region_features: tf.Tensor, scene_feature: tf.Tensor) -> Outputs:
        """Returns `names` and `scores` (B, K), best first, and with thresholds their answers."""
        best, rows = tf.math.top_k(self._score(region_features, scene_feature), self._top_k)
        calibration = None
        if self._calibration is not None:
            calibration = tf.gather(self._calibration, rows)
        found = {"names": tf.gather(self._names, rows), "scores": best}
        return found | _answers(best, calibration)


def _feature_extractor(
    backbone: keras.Model, batching: Batching | None
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Returns a function that computes region features and scene features of decoded photos."""
    outputs = backbone.output

    def extract(photos: tf.Tensor) -> tuple[tf.Tensor, ...]:
        features = backbone(photos, training=False)
        return tuple(
            tf.cast(features[name], tf.float32) for name in ("region_features", "scene_feature")
        )

    if batching is None:
        return extract
    batched = batching.decorate(extract, f"backbone-{uuid.uuid4().hex}")

    def extract_in_batches(photos: tf.Tensor) -> tuple[tf.Tensor, ...]:
        region_features, scene_feature = batched(photos)
        return (
            tf.ensure_shape(region_features, outputs["region_features"].shape),
            tf.ensure_shape(scene_feature, outputs["scene_feature"].shape),
        )

    return extract_in_batches


def stored_factors(run: TrainedRun) -> Factors | None:
    """Returns the factors of a run's scores, if an export has to tell them.

    Returns:
        None if the scores are no products, and if they are linear in the class embeddings: the
        vectors of regions are then the response maps of an identity matrix of classes.
    """
    factors = factors_of(run.head, find_system(run.system))
    if factors is None or isinstance(factors.class_side, LinearClasses):
        return None
    return factors


def explainer(run: TrainedRun) -> Callable[..., Outputs] | None:
    """Returns a function of the head's inputs to `scores` and `response_maps`.

    Returns:
        The function; None for a head without a region classifier.
    """
    try:
        head = with_response_maps(run.head)
    except ValueError:  # there is no region classifier
        return None

    def explain(*inputs: tf.Tensor) -> Outputs:
        outputs = head(list(inputs), training=False)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    return explain


def _answers(scores: tf.Tensor, calibration: tf.Tensor | None) -> Outputs:
    return {} if calibration is None else answers(scores, calibration)


def _columns(calibration: tf.Tensor | None) -> Outputs:
    if calibration is None:
        return {}
    return dict(zip(COLUMNS, tf.unstack(calibration, axis=1), strict=True))


def _require_some(values: tf.Tensor, problem: str) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.Assert(tf.shape(values)[0] > 0, [problem])]):
        return tf.identity(values)


def _require_finite(values: tf.Tensor, name: str) -> tf.Tensor:
    # Squares, because heads divide by lengths: a length of infinity would give scores of 0 or NaN.
    finite = tf.reduce_all(tf.math.is_finite(tf.reduce_sum(tf.square(values), axis=-1)))
    message = f"{name}: not all of the numbers are finite, or some are too large (1e18 is not)"
    with tf.control_dependencies([tf.debugging.Assert(finite, [message])]):
        return tf.identity(values)


def _join(*parts: str | tf.Tensor) -> tf.Tensor:
    """Returns the concatenation of texts and numbers."""
    return tf.strings.join(
        [part if isinstance(part, str) else tf.strings.as_string(part) for part in parts]
    )
