"""A loaded version of a model, which runs its signatures."""

import contextlib
import logging
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from biam_tf.text_operations import register_operations
from serving.graph.warmup import FILE_NAME
from serving.rpc.limits import PHOTO_INPUTS, Limits, static_sizes
from serving.rpc.status import (
    RequestError,
    from_tensorflow,
    invalid_argument,
    with_photos_from,
)
from serving.rpc.tensors import require_tensor, to_array
from serving.rpc.version_folders import nearest_classes

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
# Outputs that are numbers for any photo and class; others may say with NaN that there is nothing.
FINITE_OUTPUTS = frozenset(
    (
        *("scores", "response_maps", "class_embeddings"),
        *("region_features", "region_vectors", "scene_feature"),
    )
)
_UNKNOWN_CLASS = re.compile(r"class_names\[(\d+)\] ")
_NO_CLASS = re.compile(r": (no such class; this model knows only its own names|no word vector)\]?$")
DEFAULT_LIMITS = Limits()
UNLIMITED = Limits(*[2**62] * 4)


class ModelVersion:
    """A loaded version of a model.

    It runs in a session of its own, as in TensorFlow Serving: a session frees all of its memory
    when it is deleted, while functions that ran after `tf.saved_model.load` leave 20 to 30 MB
    behind for each version.

    Args:
        path: the version's folder, named by its number.

    Attributes:
        path: the version's folder.
        number: the version number.
        signature_defs: `SignatureDef` of each signature, by name.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.number = int(path.name)
        register_operations(path)
        graph = tf.Graph()
        with graph.as_default(), _without_deprecation_warnings():
            self._session = tf.compat.v1.Session(graph=graph, config=_session_config())
            meta_graph = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(path)
            )
        self._regions = _regions(meta_graph.signature_def)
        # TensorFlow adds entries of its own, with another method name.
        self.signature_defs = {
            name: signature
            for name, signature in meta_graph.signature_def.items()
            if signature.method_name == PREDICT_METHOD
        }

    def predict(
        self,
        request: predict_pb2.PredictRequest,
        max_bytes: int,
        check: Callable[[], None] = lambda: None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> dict[str, np.ndarray]:
        """Runs the requested signature (`serving.graph.signatures`) on the request's inputs.

        Args:
            request: a request for this model and version.
            max_bytes: larger inputs are refused, including those that only claim to be large.
            check: called before each step of the work; may raise to end the request.
            limits: numbers of photos and classes, sizes of the answer and of the work.

        Returns:
            The requested outputs by name.

        Raises:
            RequestError: INVALID_ARGUMENT for an unknown signature, input or output or a wrong
                dtype or shape, a request beyond the limits or scores that are not finite, else
                the code of TensorFlow's error.
        """
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = self.signature(name)
        _require_inputs(request.inputs, signature.inputs)
        requested = requested_outputs(request.output_filter, signature.outputs)
        # Before anything is read: one value in a message may stand for a whole tensor.
        for key, info in signature.inputs.items():
            require_tensor(key, request.inputs[key], info.dtype, info.tensor_shape, max_bytes)
        shapes = {
            key: tuple(static_sizes(request.inputs[key].tensor_shape)) for key in signature.inputs
        }
        limits.require(shapes, signature.outputs, self._regions)
        arrays = {key: to_array(key, request.inputs[key]) for key in signature.inputs}
        outputs = self.run(name, arrays, check, limits)
        return {key: outputs[key] for key in requested}

    def signature(self, name: str) -> meta_graph_pb2.SignatureDef:
        """Returns the signature of this name.

        Raises:
            RequestError: INVALID_ARGUMENT; there is none.
        """
        if name not in self.signature_defs:
            known = ", ".join(sorted(self.signature_defs))
            raise invalid_argument(f'Serving signature key "{name}" not found; known: {known}')
        return self.signature_defs[name]

    def run(
        self,
        name: str,
        arrays: Mapping[str, np.ndarray],
        check: Callable[[], None] = lambda: None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> dict[str, np.ndarray]:
        """Runs a signature on arrays, some photos at a time; for arguments see `predict`."""
        signature = self.signature(name)
        shapes = {key: array.shape for key, array in arrays.items()}
        step = limits.require(shapes, signature.outputs, self._regions)
        split = {key for key in PHOTO_INPUTS if key in arrays and arrays[key].ndim}
        counts = {len(arrays[key]) for key in split}
        if len(counts) != 1 or counts <= set(range(step + 1)):
            return self._run_step(signature, arrays, 0, check)
        (count,) = counts
        parts = [
            self._run_step(
                signature,
                {
                    key: array[start : start + step] if key in split else array
                    for key, array in arrays.items()
                },
                start,
                check,
            )
            for start in range(0, count, step)
        ]
        return {key: _joined([part[key] for part in parts], step) for key in signature.outputs}

    def _with_nearest(self, arrays: Mapping[str, np.ndarray], error: RequestError) -> RequestError:
        """Returns an error about unknown classes with the nearest names that the model knows."""
        if "class_names" not in arrays:
            return error
        # A name may itself look like a place.
        count = len(arrays["class_names"])
        found = [int(place) for place in _UNKNOWN_CLASS.findall(error.message)]
        places = [place for place in found if place < count]
        if not places or not _NO_CLASS.search(error.message):
            return error
        names = [arrays["class_names"][place].decode("utf-8", "replace") for place in places]
        # Within the brackets that TensorFlow puts around the message of a check.
        message, end = error.message.removesuffix("]"), "]" * error.message.endswith("]")
        return RequestError(error.code, message + nearest_classes(self.path, names) + end)

    def _run_step(
        self,
        signature: meta_graph_pb2.SignatureDef,
        arrays: Mapping[str, np.ndarray],
        start: int,
        check: Callable[[], None],
    ) -> dict[str, np.ndarray]:
        check()
        feeds = {info.name: arrays[key] for key, info in signature.inputs.items()}
        # Always fetch all outputs: a session takes seconds to plan each new combination.
        fetches = {key: info.name for key, info in signature.outputs.items()}
        try:
            outputs = self._session.run(fetches, feeds)
        except tf.errors.OpError as error:
            raise self._with_nearest(
                arrays, with_photos_from(start, from_tensorflow(error))
            ) from None
        for key in FINITE_OUTPUTS & {*outputs}:
            if not np.isfinite(outputs[key]).all():
                raise invalid_argument(
                    f"{key}: not all of the numbers are finite; the numbers in "
                    f"{' or '.join(sorted(signature.inputs))} are too large"
                )
        return outputs

    def warm_up(self, max_bytes: int) -> int:
        """Runs the warm-up requests stored with the model; returns their number."""
        file = self.path / "assets.extra" / FILE_NAME
        if not file.is_file():
            return 0
        from tensorflow_serving.apis import prediction_log_pb2

        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
        for record in records:
            log = prediction_log_pb2.PredictionLog.FromString(record)
            self.predict(log.predict_log.request, max_bytes, limits=UNLIMITED)
        return len(records)


def _session_config() -> tf.compat.v1.ConfigProto:
    """Disables graph rewriting on a CPU, where it takes half of the loading time.

    Its only useful step there, fusing convolutions, also happens when the graph is placed;
    outputs and latency are the same. On a GPU the rewriter chooses the layout of convolutions.
    """
    config = tf.compat.v1.ConfigProto()
    if not tf.config.list_physical_devices("GPU"):
        config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


@contextlib.contextmanager
def _without_deprecation_warnings() -> Iterator[None]:
    """Hides TensorFlow's warning that sessions belong to its first version."""
    log = tf.get_logger()

    def keep(record: logging.LogRecord) -> bool:
        return "deprecated" not in record.getMessage()

    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)


def _require_inputs(sent: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    extra, missing = sorted({*sent} - {*expected}), sorted({*expected} - {*sent})
    if extra or missing:
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(expected)} "
            f"len({{{','.join(sorted(sent))}}}) != len({{{','.join(sorted(expected))}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )


def requested_outputs(output_filter: Sequence[str], outputs: Mapping[str, Any]) -> list[str]:
    """Returns the names of the outputs that a request asks for; without a filter, all.

    Raises:
        RequestError: INVALID_ARGUMENT; one is unknown or named twice.
    """
    for position, name in enumerate(output_filter):
        if name not in outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} Outputs expected to be in "
                f"the set {{{','.join(sorted(outputs))}}}."
            )
        if name in output_filter[:position]:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
    return list(output_filter) or list(outputs)


def _regions(signatures: Mapping[str, meta_graph_pb2.SignatureDef]) -> tuple[int, int]:
    """Numbers of regions and of channels, as the outputs of `features` tell; 0 if they do not."""
    outputs = signatures["features"].outputs if "features" in signatures else {}
    if "region_features" not in outputs:
        return 0, 0
    sizes = [max(size, 0) for size in static_sizes(outputs["region_features"].tensor_shape)]
    return (sizes[1] * sizes[2], sizes[3]) if len(sizes) == 4 else (0, 0)


def _joined(parts: list[np.ndarray], step: int) -> np.ndarray:
    """Joins outputs of several steps; those without an axis of photos are the same in each."""
    whole = all(part.ndim and len(part) == step for part in parts[:-1])
    return np.concatenate(parts) if whole else parts[0]
