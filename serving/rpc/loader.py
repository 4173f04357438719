"""The newest version of a model, kept loaded: versions are folders, new ones replace old ones."""

import contextlib
import dataclasses
import gc
import logging
import pathlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from serving.graph.warmup import FILE_NAME
from serving.rpc.status import from_tensorflow, invalid
from serving.rpc.tensors import to_array

DEFAULT_SIGNATURE = "serving_default"
MODEL_FILE = "saved_model.pb"
PREDICT_METHOD = "tensorflow/serving/predict"

_LOG = logging.getLogger(__name__)


class ModelVersion:
    """One version of a model, loaded and ready.

    It runs in a session of its own, as in TensorFlow Serving: a session takes all of its memory
    with it when it goes, while functions that ran under `tf.saved_model.load` leave 20 to 30 MB
    behind for each version.

    Attributes:
        path: the version's folder.
        number: its version.
        signature_defs: `SignatureDef` of each signature, by name.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.number = int(path.name)
        graph = tf.Graph()
        with graph.as_default(), _without_notice_of_age():
            self._session = tf.compat.v1.Session(graph=graph, config=_session_config())
            meta_graph = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(path)
            )
        # Beside the signatures there are entries of TensorFlow's own, without that method name.
        self.signature_defs = {
            name: signature
            for name, signature in meta_graph.signature_def.items()
            if signature.method_name == PREDICT_METHOD
        }

    def predict(
        self, request, max_bytes: int, check: Callable[[], None] = lambda: None
    ) -> dict[str, np.ndarray]:
        """Answers a `PredictRequest` whose model and version were found to be these.

        Args:
            request: the request.
            max_bytes: larger inputs are refused, also those that are only claimed to be large.
            check: called before the model runs; raises if the answer isn't wanted any more.

        Raises:
            RequestError: INVALID_ARGUMENT for what the request does wrong, else what TensorFlow
                ran into.
        """
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = self.signature_defs.get(name)
        if signature is None:
            known = ", ".join(sorted(self.signature_defs))
            raise invalid(f'Serving signature key "{name}" not found; known: {known}')
        _require_inputs(request.inputs, signature.inputs)
        wanted = _wanted_outputs(request.output_filter, signature.outputs)
        feeds = {
            info.name: to_array(key, request.inputs[key], info.dtype, info.tensor_shape, max_bytes)
            for key, info in signature.inputs.items()
        }
        # All outputs, whatever is wanted: a session plans every new combination for seconds.
        fetches = {key: info.name for key, info in signature.outputs.items()}
        check()
        try:
            outputs = self._session.run(fetches, feeds)
            return {key: outputs[key] for key in wanted}
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from None

    def warm_up(self, max_bytes: int) -> int:
        """Runs the requests that lie beside the model; returns how many there were."""
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
    """What became of a version.

    Attributes:
        state: a name of `ModelVersionStatus.State`: LOADING, AVAILABLE or END.
        error: why it could not be loaded; empty: it could.
    """

    state: str
    error: str = ""


class NewestVersion:
    """Keeps the newest version in a folder loaded, in a thread of its own.

    A new version is loaded and warmed up beside the old one, which answers meanwhile and is
    let go when its last request is done. A version that can't be loaded is passed over until
    its file changes.

    Args:
        model_dir: holds a folder for each version, named by its number.
        poll_seconds: how often it looks for another version.
        max_bytes: limit of the inputs of warm-up requests.
        changed: called with the `ModelVersion` that now answers.

    Raises:
        UserError: `model_dir` is not such a folder.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        poll_seconds: float,
        max_bytes: int,
        changed: Callable[[ModelVersion], None] = lambda version: None,
    ):
        self._model_dir = require_model_dir(model_dir)
        self._poll_seconds = poll_seconds
        self._max_bytes = max_bytes
        self._changed = changed
        self._current: ModelVersion | None = None
        self._failed: dict[int, int] = {}  # version: time of its file when it failed
        self._leaving: list[weakref.ref] = []
        self._states: dict[int, VersionState] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-versions", daemon=True)

    @property
    def current(self) -> ModelVersion | None:
        """The version that answers; None while the first one is being loaded."""
        return self._current

    @property
    def states(self) -> Mapping[int, VersionState]:
        """What became of each version that was tried."""
        return dict(self._states)

    def start(self) -> None:
        """Starts loading and watching."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the watching; the current version goes on answering."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                # The folder can't be listed just now, say; what is loaded goes on answering.
                _LOG.exception("looking for versions in %s", self._model_dir)
            if self._stopped.wait(self._poll_seconds):
                return

    def look(self) -> None:
        """Loads the newest version that is there, unless it is the one that answers."""
        for path in reversed(version_folders(self._model_dir)):
            number = int(path.name)
            if self._current is not None and number == self._current.number:
                break
            changed = (path / MODEL_FILE).stat().st_mtime_ns
            if self._failed.get(number) != changed:
                if self._replace(path):
                    break
                self._failed[number] = changed
        self._collect()

    def _replace(self, path: pathlib.Path) -> bool:
        number = int(path.name)
        self._states[number] = VersionState("LOADING")
        _LOG.info("version %d: loading", number)
        try:
            version = ModelVersion(path)
            requests = version.warm_up(self._max_bytes)
        except Exception as error:
            # Whatever is wrong with it, the version that answers must go on doing so.
            _LOG.error("version %d is passed over: %s: %s", number, type(error).__name__, error)
            self._states[number] = VersionState("END", f"{type(error).__name__}: {error}")
            return False
        old, self._current = self._current, version
        self._states[number] = VersionState("AVAILABLE")
        _LOG.info("version %d answers; warm-up requests: %d", number, requests)
        if old is not None:
            self._states[old.number] = VersionState("END")
            self._leaving.append(weakref.ref(old))
        self._changed(version)
        return True

    def _collect(self) -> None:
        """Frees versions that were let go: a loaded model is full of circles of references."""
        if self._leaving:
            gc.collect()
            self._leaving = [left for left in self._leaving if left() is not None]


def version_folders(model_dir: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of the versions in a model's folder, oldest first."""
    found = [
        path
        for path in model_dir.iterdir()
        if path.name.isdecimal() and (path / MODEL_FILE).is_file()
    ]
    return sorted(found, key=lambda path: int(path.name))


def require_model_dir(model_dir: pathlib.Path) -> pathlib.Path:
    """Returns `model_dir` if it is a folder that may hold versions.

    Raises:
        UserError: it is missing, or it is itself a version.
    """
    model_dir = pathlib.Path(model_dir)
    if not model_dir.is_dir():
        raise UserError(f"{model_dir}: no such folder; `python -m serving.export` makes one")
    if (model_dir / MODEL_FILE).is_file():
        raise UserError(
            f"{model_dir} is a single version; name the folder it is in: {model_dir.parent}"
        )
    return model_dir


def newest_version(model_dir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the newest version.

    Raises:
        UserError: there is none.
    """
    folders = version_folders(require_model_dir(model_dir))
    if not folders:
        raise UserError(f"{model_dir}: no version in it; `python -m serving.export` writes one")
    return folders[-1]


def _session_config() -> tf.compat.v1.ConfigProto:
    """Leaves out graph rewriting on a CPU: it takes half of the time until a version answers.

    What is left to gain there, fused convolutions, TensorFlow does where it places the graph;
    answers and times are the same. On a GPU the layout of convolutions is the rewriter's.
    """
    config = tf.compat.v1.ConfigProto()
    if not tf.config.list_physical_devices("GPU"):
        config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


@contextlib.contextmanager
def _without_notice_of_age() -> Iterator[None]:
    """Keeps TensorFlow from telling the operator that sessions are of its first version."""
    log = tf.get_logger()

    def keep(record: logging.LogRecord) -> bool:
        return "deprecated" not in record.getMessage()

    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)


def _require_inputs(sent: Mapping, expected: Mapping) -> None:
    extra, missing = sorted({*sent} - {*expected}), sorted({*expected} - {*sent})
    if extra or missing:
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)} "
            f"len({{{','.join(sorted(sent))}}}) != len({{{','.join(sorted(expected))}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )


def _wanted_outputs(output_filter: Sequence[str], outputs: Mapping) -> list[str]:
    for position, name in enumerate(output_filter):
        if name not in outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in "
                f"the set {{{','.join(sorted(outputs))}}}."
            )
        if name in output_filter[:position]:
            raise invalid(f"duplicate output tensor alias: {name}")
    return list(output_filter) or list(outputs)
