"""Files for TensorBoard: scalars, response maps after each epoch, class embeddings.

They are written with TensorFlow alone; the program that shows them is the package `tensorboard`,
in the extra [report].
"""

import collections
import io
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from biam_tf.files import write_text, writing_to
from biam_tf.vocabulary import Vocabulary

LOSS, LEARNING_RATE = "training/loss", "training/learning_rate"
EPOCH_LOSS, SPEED = "training/loss_of_epoch", "training/images_per_second"
# Figures of the validation by their keys in the log.
VALIDATION = {"validation": "mAP", "validation_weighted": "weighted_mAP"}
PICTURE = "response_maps"
EMBEDDINGS_FILE, NAMES_FILE = "class_embeddings.tsv", "classes.tsv"
PROJECTOR_FILE = "projector_config.pbtxt"
# The projector reads the text form of its own protocol buffer; paths are relative to it.
PROJECTOR = f"""\
embeddings {{
  tensor_name: "class embeddings"
  tensor_path: "{EMBEDDINGS_FILE}"
  metadata_path: "{NAMES_FILE}"
}}
"""


class TensorBoardWriter:
    """Writes the scalars of every step and epoch, and a picture after each epoch.

    An `Observer` of training. A run that is resumed adds another file; TensorBoard shows all
    files of a folder as one run.

    Args:
        folder: where the files are written; created if it does not exist.
        draw: returns a picture of some photos with the current model; None: no picture.
    """

    def __init__(self, folder: pathlib.Path, draw: Callable[[], Image.Image] | None = None):
        self._folder = folder
        with writing_to(folder):
            self._writer = tf.summary.create_file_writer(str(folder))
        self._draw = draw
        self._steps: collections.deque[tuple[int, Mapping[str, float]]] = collections.deque()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the losses and learning rates of steps, as soon as they have been fetched."""
        self._steps.append((step, values))
        # What is still on the device can wait: reading it would stop the training.
        while self._steps and getattr(self._steps[0][1], "is_fetched", True):
            self._write_step(*self._steps.popleft())

    def _write_step(self, step: int, values: Mapping[str, float]) -> None:
        with self._writer.as_default(step):
            _write_scalar(LOSS, values["loss"])
            _write_scalar(LEARNING_RATE, values["learning_rate"])

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Writes the curves of `curves_of_epoch` and the picture."""
        while self._steps:
            self._write_step(*self._steps.popleft())
        with self._writer.as_default(record["step"]):
            for tag, value in curves_of_epoch(record).items():
                _write_scalar(tag, value)
            if self._draw is not None:
                _write_picture(PICTURE, self._draw())
        with writing_to(self._folder):
            self._writer.flush()


def curves_of_epoch(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns what the report and TensorBoard show of an epoch, by the tags of TensorBoard.

    Args:
        record: a line of the run's log.
    """
    values = {EPOCH_LOSS: record["loss"]} if "loss" in record else {}
    values[SPEED] = record["images_per_second"]
    for kind, figure in VALIDATION.items():
        for part, value in record.get(kind, {}).items():
            values[f"validation/{part}_{figure}"] = value
    return values


def write_projector(folder: pathlib.Path, vocabulary: Vocabulary) -> None:
    """Writes the class embeddings, with names and groups, for TensorBoard's projector."""
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    rows = ("\t".join(f"{value:.6g}" for value in row) for row in vocabulary.embeddings)
    write_text(folder / EMBEDDINGS_FILE, "\n".join(rows) + "\n")
    # Neither quoting nor escapes in this format: a tab within a name would begin a column.
    names = (" ".join(name.split()) for name in vocabulary.names)
    lines = [f"{name}\t{group}" for name, group in zip(names, vocabulary.groups, strict=True)]
    write_text(folder / NAMES_FILE, "\n".join(["name\tgroup", *lines]) + "\n")
    write_text(folder / PROJECTOR_FILE, PROJECTOR)


def read_scalar(folder: pathlib.Path, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps, ascending, and the values of a scalar, (steps,) each.

    Where a step was written twice, its last value counts. Both are empty if there are none.
    """
    values = {}
    for event in _events(folder):
        for value in event.summary.value:
            if value.tag == tag:
                values[event.step] = float(tf.make_ndarray(value.tensor))
    steps = np.array(sorted(values), dtype=np.int64)
    return steps, np.array([values[step] for step in steps], dtype=np.float64)


def _events(folder: pathlib.Path) -> Iterator[Any]:
    from tensorflow.core.util import event_pb2

    for path in sorted(folder.glob("events.out.tfevents.*")):
        records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        while True:
            try:
                yield event_pb2.Event.FromString(next(records))
            except (
                StopIteration,
                tf.errors.DataLossError,
            ):  # the last one of a run that was killed
                break


def _write_scalar(tag: str, value: float) -> None:
    # What tf.summary.scalar does, which needs the package tensorboard to be installed.
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
        data_class="DATA_CLASS_SCALAR",
    )
    tf.summary.write(tag, tf.constant(value, tf.float32), metadata=metadata)


def _write_picture(tag: str, picture: Image.Image) -> None:
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=85)
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="images"),
        data_class="DATA_CLASS_BLOB_SEQUENCE",
    )
    width, height = (str(length).encode() for length in picture.size)
    tensor = tf.constant([width, height, encoded.getvalue()])
    tf.summary.write(tag, tensor, metadata=metadata)
