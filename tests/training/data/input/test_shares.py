"""Several processes read their own parts of the batches that one process reads."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from biam_tf.errors import UserError
from training.config import AugmentationConfig
from training.data.features.extraction import extract_features
from training.data.features.record_places import RecordPlaces
from training.data.input.sampling import Balanced
from training.data.input.shares import WHOLE, Share
from training.data.input.sources import FeatureSource, PhotoSource


def epoch(source, share=WHOLE, skip_batches=0):
    labels = np.arange(26, dtype=np.int8)[:, np.newaxis].repeat(3, axis=1)
    batches = source.training_batches(labels, 6, 5, 1, skip_batches, share)
    return [
        [own.numpy() for own in (*map(inputs.get, sorted(inputs)), labels)]
        for inputs, labels in batches
    ]


def joined(shares):
    """The batches of all processes, whose devices take consecutive parts."""
    return [
        [np.concatenate(parts) for parts in zip(*batch, strict=True)]
        for batch in zip(*shares, strict=True)
    ]


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.fixture
def make_source(shared_store, shared_photos):
    def make(kind, **settings):
        if kind == "photos":
            varied = AugmentationConfig(flip=True)
            return PhotoSource(
                shared_photos[0], shared_photos[1], 16, "stream", augmentation=varied
            )
        return FeatureSource(shared_store, shared_photos[1], kind, **settings)

    return make


@pytest.mark.parametrize("kind", ["memory", "stream", "photos"])
def test_the_shares_of_three_processes_are_the_batches_of_one(kind, make_source):
    source = make_source(kind)
    expected = epoch(source, skip_batches=1)
    shares = [epoch(source, Share(index, 3), skip_batches=1) for index in range(3)]
    assert_same(joined(shares), expected)
    assert {len(own[-1]) for batches in shares for own in batches} == {2}
    if kind != "photos":
        assert {own[0].dtype for own in expected} == {np.dtype(np.float16)}


def test_two_devices_of_a_process_take_one_part_after_the_other(make_source):
    source = make_source("stream", sampler=Balanced(np.eye(26, dtype=np.int8) * 2 - 1))
    parts = epoch(source, Share(1, 2, replicas=3))
    whole = epoch(source)
    assert len(parts) == 3 * len(whole)
    for number, batch in enumerate(whole):
        own = [np.concatenate(x) for x in zip(*parts[3 * number : 3 * number + 3], strict=True)]
        assert_same([own], [[values[3:] for values in batch]])


def bytes_read():
    """Bytes that this process has read from files, whether from the disk or its cache."""
    text = pathlib.Path("/proc/self/io").read_text()
    return int(text.split("rchar: ")[1].split()[0])


def test_each_process_reads_its_part_of_the_bytes(shared_photos, tmp_path):
    images = keras.Input((16, 16, 3))
    regions = keras.layers.Conv2D(2048, 8, strides=8)(images)  # 16 KB per photo
    scene = keras.layers.GlobalAveragePooling2D()(regions)
    backbone = keras.Model(images, {"region_features": regions, "scene_feature": scene})
    store = extract_features(backbone, "wide", *shared_photos, tmp_path / "store", shard_size=10)
    source, labels = FeatureSource(store, store.images, "stream"), np.zeros((26, 1), np.int8)

    def read(share):
        begun = bytes_read()
        count = sum(len(own) for _, own in source.training_batches(labels, 24, 0, 0, 0, share))
        return bytes_read() - begun, count

    record = sum(store.shard_size(number) for number in range(3)) / 26
    read(Share(0, 4))  # TensorFlow's own files
    whole, count = read(WHOLE)
    assert count == 24 and whole > 25.5 * record
    for index in range(4):
        own, count = read(Share(index, 4))
        assert count == 6 and own == pytest.approx(6 * record, rel=0.03)


def test_the_places_of_records_are_those_in_the_files(shared_store):
    rows = np.array([3, 25, 0, 3])
    places = RecordPlaces.of(shared_store, rows)
    records = places.read(*map(tf.constant, (places.file_of, places.begin, places.length)))
    parsed = shared_store.parse(records)
    regions, scenes = shared_store.read_rows(rows)
    np.testing.assert_array_equal(parsed["region_features"], regions)
    np.testing.assert_array_equal(parsed["scene_feature"], scenes)


def test_a_tf_data_service_with_two_workers_gives_the_same_batches(make_source):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [
        service.WorkerServer(service.WorkerConfig(dispatcher_address=address)) for _ in range(2)
    ]
    assert len(workers) == 2
    source = make_source("stream", service=address)
    expected = make_source("stream")
    assert_same(epoch(source), epoch(expected))
    assert_same(epoch(source, Share(1, 2), 2), epoch(expected, Share(1, 2), 2))


def test_a_service_that_does_not_answer_is_named(make_source):
    with pytest.raises(UserError, match=r"data.service: localhost:1: nothing answers there"):
        epoch(make_source("stream", service="localhost:1"))
