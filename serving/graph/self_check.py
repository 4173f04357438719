"""A request for every signature of an export, and comparison of the outputs with Keras."""

import io
import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from biam_tf.class_calibration import ClassCalibration
from biam_tf.embeddings.run_encoder import JoinedSources
from biam_tf.models.factors import Factors, factors_of
from biam_tf.models.head import with_response_maps
from biam_tf.models.systems import find_system
from biam_tf.photos import decode_photo, format_of
from biam_tf.runs import TrainedRun
from serving.graph.batching import Batching
from serving.graph.name_table import Embeddings

# Rounding of another order of summation, relative to the largest number (or to 1); 16-bit layers
# round every sum.
TOLERANCE = 1e-4
TOLERANCE_16_BIT = 2e-2

_CLASSES = 5
# What the sentence encoder of an export is tried with, beside the run's classes.
_PHRASES = ("red car", "Caf\u00e9_Z\u00fcrich, at night", "\u732b \U0001f43b zzyzx")

ANSWERS = {"probabilities", "present", "slopes", "offsets", "cuts"}

Requests = Mapping[str, Mapping[str, np.ndarray]]


def sample_requests(
    run: TrainedRun,
    embeddings: Embeddings,
    signatures: Collection[str],
    formats: Sequence[str],
) -> Requests:
    """Returns the inputs of a request for each signature: two photos and a few classes.

    Args:
        run: the exported run.
        embeddings: the embeddings that `tag` looks up.
        signatures: the names of the signatures.
        formats: the formats of photos that the model decodes.
    """
    images = np.array(sample_photos(2, formats), dtype=object)
    class_embeddings = _own_classes(run)
    features = _features(run, images)
    requests = {
        "serving_default": {"images": images, "class_embeddings": class_embeddings},
        "tag": {"images": images, "class_names": _sample_names(embeddings)},
        "embed": {"class_names": _sample_names(embeddings)},
        "tag_known": {"images": images},
        "explain": {"images": images, "class_embeddings": class_embeddings},
        "features": {"images": images},
        "rescore": {**features, "class_embeddings": class_embeddings},
        "calibrate": {"class_embeddings": class_embeddings},
        "region_vectors": {"images": images},
    }
    return {name: requests[name] for name in sorted(signatures)}


def photos_and_classes(run: TrainedRun, batching: Batching | None) -> tuple[int, int]:
    """Returns the largest numbers of photos and classes of the requests that an export makes."""
    photos = max(batching.batch_sizes) if batching and batching.whole_powers else 2
    return max(2, photos), 2 * _CLASSES + len(_PHRASES)


def sample_photos(count: int, formats: Sequence[str]) -> list[bytes]:
    """Returns small encoded pictures of different colors.

    They are alternately JPEG and PNG where `formats`, those that the model decodes, has them.
    """
    photos = []
    common = [form for form in ("JPEG", "PNG") if form in formats] or formats
    for number in range(count):
        y, x = np.mgrid[: 48 + number, :64]
        channels = [4 * x, 5 * y, np.full_like(x, 40 * number % 256)]
        pixels = np.stack(channels, axis=-1).astype(np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, common[number % len(common)])
        photos.append(encoded.getvalue())
    return photos


def compare(
    run: TrainedRun, embeddings: Embeddings, folder: pathlib.Path, requests: Requests
) -> dict[str, float]:
    """Runs every signature of a SavedModel once and compares it with the Keras model.

    Args:
        run: the exported run.
        embeddings: the embeddings that `tag` looks up.
        folder: the SavedModel.
        requests: the inputs for each signature.

    Returns:
        The largest difference of each signature's outputs, relative to the output's largest
        number where that exceeds 1.

    Raises:
        RuntimeError: a difference is larger than rounding.
    """
    loaded = tf.saved_model.load(folder)
    differences: dict[str, float] = {}
    embedded = None
    # The same photos for all signatures.
    images = next((inputs["images"] for inputs in requests.values() if "images" in inputs), None)
    features = {} if images is None else _features(run, images)
    # `embed` first: the others are compared given its embeddings, which have their own limit.
    for name, inputs in sorted(requests.items(), key=lambda request: request[0] != "embed"):
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        answer = {key: value.numpy() for key, value in loaded.signatures[name](**tensors).items()}
        found, expected = (
            dict(answer),
            _expected(run, embeddings, name, {**features, **inputs}, embedded),
        )
        embedded = answer["class_embeddings"] if name == "embed" else embedded
        if name == "region_vectors":
            found["scores"] = _scores_of_vectors(run, found["region_vectors"])
        if name == "tag_known":
            found = _by_class(found, run)
            expected = {"scores": np.where(np.isnan(found["scores"]), np.nan, expected["scores"])}
        for key, value in _expected_answers(run, inputs, answer, embedded).items():
            found[key], expected[key] = _without_nan(answer[key], value)
        differences[name] = max(_difference(found[key], expected[key]) for key in expected)
    limit = TOLERANCE if _is_float32(run) else TOLERANCE_16_BIT
    wrong = [f"{name} by {value:.1e}" for name, value in differences.items() if not value <= limit]
    if wrong:
        raise RuntimeError(
            f"the exported model differs from the Keras model ({', '.join(wrong)}; at most "
            f"{limit:g} is rounding); nothing was written"
        )
    return dict(sorted(differences.items()))


def _expected(
    run: TrainedRun,
    embeddings: Embeddings,
    signature: str,
    inputs: Mapping[str, np.ndarray],
    embedded: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """The outputs of the Keras model, called directly.

    Args:
        run: the exported run.
        embeddings: the embeddings that `tag` looks up.
        signature: the name of the signature.
        inputs: of its request, and the features of the request's photos.
        embedded: the answer of `embed`.
    """
    if signature == "features":
        return {name: inputs[name] for name in ("region_features", "scene_feature")}
    class_embeddings = inputs.get("class_embeddings", run.vocabulary.embeddings)
    if signature == "tag" and embedded is not None:
        class_embeddings = embedded
    elif "class_names" in inputs:
        class_embeddings = _embed([name.decode() for name in inputs["class_names"]], embeddings)
    if signature in ("embed", "calibrate"):
        return {"class_embeddings": class_embeddings} if signature == "embed" else {}
    if signature == "region_vectors":
        class_embeddings = _own_classes(run)
    head = with_response_maps(run.head) if signature == "explain" else run.head
    values = [inputs["region_features"], inputs["scene_feature"], class_embeddings]
    outputs = head(values, training=False)
    outputs = outputs if isinstance(outputs, dict) else {"scores": outputs}
    if signature == "region_vectors":
        outputs["region_vectors"] = _factors(run).region_vectors(*values[:2])
    return {name: tf.cast(value, tf.float32).numpy() for name, value in outputs.items()}


def _expected_answers(
    run: TrainedRun,
    inputs: Mapping[str, np.ndarray],
    answer: Mapping[str, np.ndarray],
    embedded: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """What NumPy makes of the scores of an answer, and of the classes of its request."""
    if run.thresholds is None or not ANSWERS & {*answer}:
        return {}
    own = run.vocabulary
    if "names" in answer:
        listed = run.thresholds.for_classes(own.names, own.embeddings, own).columns
        row_of = {name.encode(): row for row, name in enumerate(own.names)}
        rows = np.array([[row_of[name] for name in names] for names in answer["names"]])
        its = ClassCalibration(*np.moveaxis(listed[rows], -1, 0))
    else:
        named = "class_names" in inputs
        names = [name.decode() for name in inputs["class_names"]] if named else None
        class_embeddings = embedded if named else inputs["class_embeddings"]
        assert class_embeddings is not None
        its = run.thresholds.for_classes(names, class_embeddings, own)
    if "scores" not in answer:
        return {"slopes": its.slopes, "offsets": its.offsets, "cuts": its.cuts}
    scores = answer["scores"]
    return {"probabilities": its.probabilities(scores), "present": its.decide(scores)}


def _without_nan(found: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that can be subtracted; a NaN that only one of them has makes this infinite."""
    found, expected = found.astype(np.float64), np.asarray(expected, np.float64)
    both = np.isnan(found) & np.isnan(expected)
    values = [np.where(both, 0, np.nan_to_num(each, nan=np.inf)) for each in (found, expected)]
    return values[0], values[1]


def _scores_of_vectors(run: TrainedRun, region_vectors: np.ndarray) -> np.ndarray:
    """The scores that a photo index computes from the exported model's vectors."""
    factors = _factors(run)
    classes = factors.class_side.vectors(_own_classes(run))
    photos, size = len(region_vectors), region_vectors.shape[-1]
    responses = region_vectors.reshape(photos, -1, size) @ classes.T
    return np.sort(responses, axis=1)[:, -factors.pooled :].mean(axis=1)


def _factors(run: TrainedRun) -> Factors:
    factors = factors_of(run.head, find_system(run.system))
    assert factors is not None, "exports of this head have no signature region_vectors"
    return factors


def _own_classes(run: TrainedRun) -> np.ndarray:
    """A few of the run's classes; of an empty vocabulary, unit vectors."""
    embeddings = run.vocabulary.embeddings[:_CLASSES]
    if len(embeddings):
        return embeddings
    length = run.vocabulary.embedding_size
    return np.eye(min(_CLASSES, length), length, dtype=np.float32)


def _features(run: TrainedRun, images: np.ndarray) -> dict[str, np.ndarray]:
    size, orientation = run.image_size, run.orientation
    decoded = [  # by the graph of one format, which is made much faster than that of all
        decode_photo(image, size, orientation=orientation, formats=(str(format_of(image)),))
        for image in images
    ]
    photos = tf.stack(decoded)
    features = run.backbone(photos, training=False)
    return {name: tf.cast(value, tf.float32).numpy() for name, value in features.items()}


def _sample_names(embeddings: Embeddings) -> np.ndarray:
    names = list(embeddings.vocabulary.names[:_CLASSES])
    if embeddings.word_vectors is not None:
        nonzero = np.flatnonzero(np.abs(embeddings.word_vectors).sum(axis=1))[:_CLASSES]
        names += [embeddings.words[row] for row in nonzero]
    if isinstance(embeddings.encoder, JoinedSources):
        names += [f"{name} {name}" for name in embeddings.vocabulary.names[:_CLASSES]]
    elif embeddings.encoder is not None:
        names += _PHRASES
    return np.array([name.encode() for name in names], dtype=object)


def _embed(names: Sequence[str], embeddings: Embeddings) -> np.ndarray:
    vocabulary, vectors = embeddings.vocabulary, embeddings.word_vectors
    rows = np.zeros((len(names), vocabulary.embedding_size), np.float32)
    others = []
    for number, name in enumerate(names):
        if name in vocabulary.names:
            rows[number] = vocabulary.embeddings[vocabulary.names.index(name)]
        elif embeddings.encoder is not None:
            others.append(number)
        else:
            assert vectors is not None
            vector = vectors[embeddings.words.index(name)]
            rows[number] = vector / np.linalg.norm(vector)
    if others and embeddings.encoder is not None:
        rows[others] = embeddings.encoder.embed([names[number] for number in others])
    return rows


def _by_class(found: Mapping[str, np.ndarray], run: TrainedRun) -> dict[str, np.ndarray]:
    """The scores of `tag_known` in the order of the vocabulary, NaN for the others."""
    columns = {name: column for column, name in enumerate(run.vocabulary.names)}
    scores = np.full((len(found["names"]), len(columns)), np.nan, np.float32)
    for row, names in enumerate(found["names"]):
        scores[row, [columns[name.decode()] for name in names]] = found["scores"][row]
    return {"scores": scores}


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        raise RuntimeError(f"the exported model returns shape {found.shape}, not {expected.shape}")
    scale = max(1.0, float(np.nanmax(np.abs(expected))))
    return float(np.nanmax(np.abs(found - expected))) / scale


def _is_float32(run: TrainedRun) -> bool:
    models = (run.backbone, run.head)
    return all(layer.compute_dtype == "float32" for model in models for layer in model.layers)
