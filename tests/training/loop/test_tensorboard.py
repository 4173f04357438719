import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.util import event_pb2

from biam_tf.vocabulary import Vocabulary
from training.loop.tensorboard import LOSS, TensorBoardWriter, read_scalar, write_projector

pytestmark = pytest.mark.unit


def record(step: int) -> dict:
    return {
        "step": step,
        "loss": 0.75,
        "images_per_second": 12.5,
        "validation": {"seen": 0.5, "zsl": 0.25},
    }


def events(folder) -> list:
    (file,) = folder.glob("events.out.tfevents.*")
    data, found = file.read_bytes(), []
    while data:  # TFRecord: length, its checksum, the record, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return [(event.step, value) for event in found for value in event.summary.value]


def test_steps_and_epochs_become_scalars_and_a_picture(tmp_path):
    picture = Image.new("RGB", (30, 20), "red")
    writer = TensorBoardWriter(tmp_path, lambda: picture)
    for step in (1, 2):
        writer.step(step, {"loss": 1 / step, "learning_rate": 0.1})
    writer.epoch(record(2))
    found = events(tmp_path)
    scalars = {
        (step, value.tag): float(tf.make_ndarray(value.tensor))
        for step, value in found
        if value.metadata.plugin_data.plugin_name == "scalars"
    }
    assert scalars == pytest.approx(
        {
            (1, "training/loss"): 1.0,
            (1, "training/learning_rate"): 0.1,
            (2, "training/loss"): 0.5,
            (2, "training/learning_rate"): 0.1,
            (2, "training/loss_of_epoch"): 0.75,
            (2, "training/images_per_second"): 12.5,
            (2, "validation/seen_mAP"): 0.5,
            (2, "validation/zsl_mAP"): 0.25,
        }
    )
    ((step, value),) = [
        entry for entry in found if entry[1].metadata.plugin_data.plugin_name == "images"
    ]
    width, height, encoded = tf.make_ndarray(value.tensor)
    assert (step, width, height) == (2, b"30", b"20")
    assert tf.io.decode_image(encoded).shape == (20, 30, 3)


def test_a_resumed_run_adds_a_file_and_the_later_value_of_a_step_counts(tmp_path):
    for first, loss in ((1, 3.0), (2, 7.0)):
        writer = TensorBoardWriter(tmp_path)
        for step in range(first, first + 2):
            writer.step(step, {"loss": loss, "learning_rate": 0.1})
        writer.epoch(record(first + 1))
    steps, values = read_scalar(tmp_path, LOSS)
    assert steps.tolist() == [1, 2, 3] and values.tolist() == [3.0, 7.0, 7.0]


def test_a_file_cut_off_by_a_kill_is_read_as_far_as_it_goes(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    for step in range(1, 6):
        writer.step(step, {"loss": float(step), "learning_rate": 0.1})
    writer.epoch(record(5))
    (file,) = tmp_path.glob("events.out.tfevents.*")
    file.write_bytes(file.read_bytes()[:-150])
    steps, _ = read_scalar(tmp_path, LOSS)
    assert steps.tolist() == [1, 2, 3, 4, 5]
    assert len(read_scalar(tmp_path, "validation/zsl_mAP")[0]) == 0


def test_a_folder_without_events_has_no_scalars(tmp_path):
    steps, values = read_scalar(tmp_path / "none", LOSS)
    assert len(steps) == len(values) == 0


def test_the_projector_gets_a_row_and_a_name_for_each_class(tmp_path, rng):
    embeddings = rng.normal(size=(3, 4))
    vocabulary = Vocabulary(["sea", 'a "b"\tc', "日"], embeddings, ["seen", "unseen", "seen"])
    write_projector(tmp_path, vocabulary)
    rows = np.loadtxt(tmp_path / "class_embeddings.tsv", delimiter="\t")
    np.testing.assert_allclose(rows, vocabulary.embeddings, rtol=1e-4)
    lines = (tmp_path / "classes.tsv").read_text(encoding="utf-8").splitlines()
    assert lines == ["name\tgroup", "sea\tseen", 'a "b" c\tunseen', "日\tseen"]
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "class_embeddings.tsv"' in config
    assert 'metadata_path: "classes.tsv"' in config


def test_tensorboard_itself_reads_what_is_written(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from google.protobuf import text_format
    from tensorboard.plugins.projector import projector_config_pb2

    writer = TensorBoardWriter(tmp_path, lambda: Image.new("RGB", (30, 20)))
    writer.step(1, {"loss": 2.5, "learning_rate": 0.1})
    writer.epoch(record(1))
    write_projector(tmp_path, Vocabulary(["sea", "sky"], np.eye(2), ["seen", "unseen"]))

    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    plugins = {
        tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()["tensors"]
    }
    assert plugins.pop("response_maps") == "images"
    assert set(plugins.values()) == {"scalars"} and len(plugins) == 6
    config = projector_config_pb2.ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    assert (tmp_path / config.embeddings[0].tensor_path).exists()
