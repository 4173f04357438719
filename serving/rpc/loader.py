"""Loads the newest version of a model, runs its signatures, and replaces it by newer versions."""

import contextlib
import dataclasses
import gc
import logging
import pathlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving.graph.warmup import FILE_NAME
from serving.rpc.status import from_tensorflow, invalid_argument
from serving.rpc.tensors import to_array
from serving.rpc.version_folders import MODEL_FILE, require_model_dir, version_folders

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"

_LOG = logging.getLogger(__name__)


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
        graph = tf.Graph()
        with graph.as_default(), _without_deprecation_warnings():
            self._session = tf.compat.v1.Session(graph=graph, config=_session_config())
            meta_graph = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(path)
            )
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
    ) -> dict[str, np.ndarray]:
        """Runs the requested signature (`serving.graph.signatures`) on the request's inputs.

        Args:
            request: a request for this model and version.
            max_bytes: larger inputs are refused, including those that only claim to be large.
            check: called before the model runs; may raise to cancel the request.

        Returns:
            The requested outputs by name.

        Raises:
            RequestError: INVALID_ARGUMENT for an unknown signature, input or output or a wrong
                dtype or shape, else the code of TensorFlow's error.
        """
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = self.signature_defs.get(name)
        if signature is None:
            known = ", ".join(sorted(self.signature_defs))
            raise invalid_argument(f'Serving signature key "{name}" not found; known: {known}')
        _require_inputs(request.inputs, signature.inputs)
        requested = _requested_outputs(request.output_filter, signature.outputs)
        feeds = {
            info.name: to_array(key, request.inputs[key], info.dtype, info.tensor_shape, max_bytes)
            for key, info in signature.inputs.items()
        }
        # Always fetch all outputs: a session takes seconds to plan each new combination.
        fetches = {key: info.name for key, info in signature.outputs.items()}
        check()
        try:
            outputs = self._session.run(fetches, feeds)
            return {key: outputs[key] for key in requested}
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from None

    def warm_up(self, max_bytes: int) -> int:
        """Runs the warm-up requests stored with the model; returns their number."""
        file = self.path / "assets.extra" / FILE_NAME
        if not file.is_file():
            return 0
        from tensorflow_serving.apis import prediction_log_pb2

        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
        for record in records:
            log = prediction_log_pb2.PredictionLog.FromString(record)
            self.predict(log.predict_log.request, max_bytes)
        return len(records)


@dataclasses.dataclass(frozen=True)
class VersionState:
    """The state of a version.

    Attributes:
        state: a name of `ModelVersionStatus.State`: LOADING, AVAILABLE or END.
        error: why it could not be loaded; empty if it could.
    """

    state: str
    error: str = ""


class NewestVersion:
    """Keeps the newest version in a folder loaded, from a thread of its own.

    A new version is loaded and warmed up while the old one still serves requests; the old one is
    freed after its last request. A version that fails to load is skipped until its file changes.

    Args:
        model_dir: folder of the model, with one sub-folder per version.
        poll_seconds: seconds between looks for a newer version.
        max_bytes: limit of the inputs of warm-up requests.
        on_change: called with each newly loaded version.

    Raises:
        UserError: `model_dir` is not such a folder.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        poll_seconds: float,
        max_bytes: int,
        on_change: Callable[[ModelVersion], None] = lambda version: None,
    ) -> None:
        self._model_dir = require_model_dir(model_dir)
        self._poll_seconds = poll_seconds
        self._max_bytes = max_bytes
        self._on_change = on_change
        self._current: ModelVersion | None = None
        self._failed: dict[int, int] = {}  # version number to the time stamp of the failed file
        self._replaced: list[weakref.ref] = []
        self._states: dict[int, VersionState] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-versions", daemon=True)

    @property
    def current(self) -> ModelVersion | None:
        """The loaded version; None while the first one is being loaded."""
        return self._current

    @property
    def states(self) -> Mapping[int, VersionState]:
        """The state of each version that was loaded or tried, by number."""
        return dict(self._states)

    def start(self) -> None:
        """Starts loading and watching the folder."""
        self._thread.start()

    def stop(self) -> None:
        """Stops watching; the current version stays loaded."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            try:
                self.update()
            except Exception:
                # For example, the folder can't be listed just now: keep the loaded version.
                _LOG.exception("looking for versions in %s", self._model_dir)
            if self._stopped.wait(self._poll_seconds):
                return

    def update(self) -> None:
        """Loads the newest version in the folder, unless it is already loaded."""
        for path in reversed(version_folders(self._model_dir)):
            number = int(path.name)
            if self._current is not None and number == self._current.number:
                break
            changed = (path / MODEL_FILE).stat().st_mtime_ns
            if self._failed.get(number) != changed:
                if self._replace(path):
                    break
                self._failed[number] = changed
        self._free_replaced()

    def _replace(self, path: pathlib.Path) -> bool:
        number = int(path.name)
        self._states[number] = VersionState("LOADING")
        _LOG.info("version %d: loading", number)
        try:
            version = ModelVersion(path)
            requests = version.warm_up(self._max_bytes)
        except Exception as error:
            # Whatever is wrong with it, the loaded version must keep serving.
            _LOG.error("version %d is skipped: %s: %s", number, type(error).__name__, error)
            self._states[number] = VersionState("END", f"{type(error).__name__}: {error}")
            return False
        old, self._current = self._current, version
        self._states[number] = VersionState("AVAILABLE")
        _LOG.info("version %d is loaded; warm-up requests: %d", number, requests)
        if old is not None:
            self._states[old.number] = VersionState("END")
            self._replaced.append(weakref.ref(old))
        self._on_change(version)
        return True

    def _free_replaced(self) -> None:
        """Frees replaced versions; a loaded model is full of reference cycles."""
        if self._replaced:
            gc.collect()
            self._replaced = [old for old in self._replaced if old() is not None]


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


def _requested_outputs(output_filter: Sequence[str], outputs: Mapping[str, Any]) -> list[str]:
    for position, name in enumerate(output_filter):
        if name not in outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} Outputs expected to be in "
                f"the set {{{','.join(sorted(outputs))}}}."
            )
        if name in output_filter[:position]:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
    return list(output_filter) or list(outputs)
