import shutil

import numpy as np
import pytest
import tensorflow as tf
import warm_processes
from PIL import Image

from biam_tf.errors import UserError
from biam_tf.photos import decode_photo
from training.config import AugmentationConfig
from training.data.features.extraction import extract_features
from training.data.input import batches as readers
from training.data.input import sources
from training.data.input.sampling import Balanced, Capped
from training.data.input.sources import FeatureSource, PhotoSource

BATCH_SIZE = 4
EVERY_SOURCE = [
    (FeatureSource, "memory"),
    (FeatureSource, "stream"),
    (PhotoSource, "memory"),
    (PhotoSource, "stream"),
]


@pytest.fixture
def store(shared_store):
    return shared_store


@pytest.fixture
def photos(shared_photos):
    return shared_photos


@pytest.fixture
def make_source(store, photos):
    def make(kind, cache, images=photos[1], **settings):
        if kind is FeatureSource:
            return FeatureSource(store, images, cache, **settings)
        return PhotoSource(photos[0], images, 16, cache, **settings)

    return make


def label_rows(count):
    """Labels that tell which example they belong to."""
    return np.arange(count, dtype=np.int8)[:, np.newaxis].repeat(3, axis=1)


def as_lists(batches):
    """Example numbers a batch, and the inputs, of a training epoch with `label_rows`."""
    batches = list(batches.as_numpy_iterator())
    return [labels[:, 0].tolist() for _, labels in batches], [inputs for inputs, _ in batches]


def flat(batches):
    return [number for batch in batches for number in batch]


def epoch_of(source, seed=3, epoch=0, skip_batches=0):
    return as_lists(
        source.training_batches(label_rows(len(source)), BATCH_SIZE, seed, epoch, skip_batches)
    )


@pytest.mark.parametrize(("kind", "cache"), EVERY_SOURCE)
def test_an_epoch_has_every_example_once_but_the_left_over(kind, cache, make_source):
    source = make_source(kind, cache)
    batches, _ = epoch_of(source)
    assert [len(batch) for batch in batches] == [BATCH_SIZE] * 6
    assert len(set(flat(batches))) == 24
    assert flat(batches) != sorted(flat(batches))


@pytest.mark.parametrize(("kind", "cache"), EVERY_SOURCE)
def test_the_order_is_decided_by_seed_and_epoch(kind, cache, make_source):
    first, again = make_source(kind, cache), make_source(kind, cache)
    epoch_of(first, epoch=7)
    assert epoch_of(first)[0] == epoch_of(again)[0]
    orders = [epoch_of(first, seed, epoch)[0] for seed, epoch in [(3, 0), (3, 1), (4, 0), (4, 1)]]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))


@pytest.mark.parametrize(("kind", "cache"), EVERY_SOURCE)
def test_a_resumed_epoch_is_the_rest_of_the_same_epoch(kind, cache, make_source):
    source = make_source(kind, cache)
    batches, inputs = epoch_of(source)
    for skipped in (1, 5, 6):
        rest, rest_inputs = epoch_of(source, skip_batches=skipped)
        assert rest == batches[skipped:]
        for some, others in zip(rest_inputs, inputs[skipped:], strict=True):
            for name in some:
                np.testing.assert_array_equal(some[name], others[name])


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_training_features_are_those_of_the_labeled_photos(cache, make_source, store, photos):
    regions, scenes = store.read(photos[1])
    for numbers, inputs in zip(*epoch_of(make_source(FeatureSource, cache)), strict=True):
        assert inputs["region_features"].dtype == inputs["scene_feature"].dtype == np.float16
        np.testing.assert_array_equal(inputs["region_features"], regions[numbers])
        np.testing.assert_array_equal(inputs["scene_feature"], scenes[numbers])


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_training_photos_are_the_labeled_ones_as_a_server_sees_them(cache, make_source, photos):
    directory, images = photos
    for numbers, inputs in zip(*epoch_of(make_source(PhotoSource, cache)), strict=True):
        for number, pixels in zip(numbers, inputs["images"], strict=True):
            decoded = decode_photo(tf.io.read_file(str(directory / images[number])), 16)
            assert pixels.dtype == np.float32
            np.testing.assert_array_equal(pixels, decoded)


def test_photos_come_in_the_same_order_from_memory_and_from_the_disk(make_source):
    in_memory, streamed = (make_source(PhotoSource, cache) for cache in ("memory", "stream"))
    assert epoch_of(in_memory)[0] == epoch_of(streamed)[0]


@pytest.mark.parametrize(("kind", "cache"), EVERY_SOURCE)
def test_evaluation_has_every_image_in_order(kind, cache, make_source, photos):
    source = make_source(kind, cache)
    batches = list(source.evaluation_batches(10).as_numpy_iterator())
    reference = make_source(kind, "memory")
    for name in batches[0]:
        assert [len(batch[name]) for batch in batches] == [10, 10, 6]
        whole = next(reference.evaluation_batches(26).as_numpy_iterator())[name]
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), whole)


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_a_source_of_some_images_gives_those_alone(cache, make_source, store, photos):
    chosen = [2, 3, 11, 12, 13, 19, 20, 25]  # of shards 0, 2, 3, 4 and 5, not of 1
    images = [photos[1][i] for i in chosen]
    regions, _ = store.read(images)
    source = make_source(FeatureSource, cache, images)
    assert len(source) == 8
    batches, inputs = epoch_of(source)
    assert sorted(flat(batches)) == list(range(8))
    for numbers, features in zip(batches, inputs, strict=True):
        np.testing.assert_array_equal(features["region_features"], regions[numbers])
    evaluated = list(source.evaluation_batches(3).as_numpy_iterator())
    np.testing.assert_array_equal(
        np.concatenate([batch["region_features"] for batch in evaluated]), regions
    )


def test_streaming_in_another_order_than_the_store_gives_the_order_asked_for(
    make_source, store, photos, monkeypatch
):
    monkeypatch.setattr(readers, "SHUFFLE_BUFFER", 8)  # read in several parts
    images = photos[1][::-1]
    source = make_source(FeatureSource, "stream", images)
    assert len(epoch_of(source)[0]) == 6  # training has its own order anyway
    evaluated = list(source.evaluation_batches(4).as_numpy_iterator())
    assert [len(batch["scene_feature"]) for batch in evaluated] == [4] * 6 + [2]
    for name, expected in zip(
        ("region_features", "scene_feature"), store.read(images), strict=True
    ):
        found = np.concatenate([batch[name] for batch in evaluated])
        np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize(("kind", "cache"), EVERY_SOURCE)
def test_shapes_of_training_batches_are_static(kind, cache, make_source):
    source = make_source(kind, cache)
    inputs, labels = source.training_batches(label_rows(26), BATCH_SIZE, 0, 0).element_spec
    shapes = {name: tuple(spec.shape) for name, spec in inputs.items()}
    if kind is PhotoSource:
        assert shapes == {"images": (4, 16, 16, 3)}
    else:
        assert shapes == {"region_features": (4, 2, 2, 5), "scene_feature": (4, 6)}
    assert labels == tf.TensorSpec((4, 3), tf.int8)


@pytest.mark.parametrize("kind", [FeatureSource, PhotoSource])
def test_auto_takes_memory_where_the_examples_fit(kind, make_source, store):
    size = store.nbytes if kind is FeatureSource else 26 * 16 * 16 * 12
    assert make_source(kind, "auto").cache == "memory"
    assert make_source(kind, "auto", memory_limit_bytes=size).cache == "memory"
    assert make_source(kind, "auto", memory_limit_bytes=size - 1).cache == "stream"
    with pytest.raises(ValueError, match="'disk'"):
        make_source(kind, "disk")


def test_the_memory_limit_is_that_of_the_container(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(sources, "CONTAINER_LIMIT", limit)
    whole_machine = sources.default_memory_limit()
    assert whole_machine > 0
    limit.write_text("max\n")
    assert sources.default_memory_limit() == whole_machine
    limit.write_text("1000000\n")
    assert sources.default_memory_limit() == 500_000


def test_fewer_photos_than_a_batch_needs_is_an_error(make_source):
    source = make_source(FeatureSource, "memory")
    with pytest.raises(UserError, match=r"training\.batch_size: 27.*only 26 photos"):
        source.training_batches(label_rows(26), 27, 0, 0)
    with pytest.raises(ValueError, match="25 rows of labels for 26 images"):
        source.training_batches(label_rows(25), 4, 0, 0)


def test_photos_that_cannot_be_read_into_memory_are_all_named(photos, tmp_path):
    images = photos[1]
    directory = shutil.copytree(photos[0], tmp_path / "photos")
    (directory / images[4]).write_bytes(b"no photo")
    (directory / images[9]).write_bytes(b"")
    with pytest.raises(UserError, match="2 of 26 photos") as error:
        PhotoSource(directory, images, 16, "memory")
    assert images[4] in str(error.value) and images[9] in str(error.value)


VARIED = AugmentationConfig(flip=True, crop_scale=(0.5, 1.0))


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_varied_photos_are_the_same_after_a_resume_in_the_order_of_the_plain_ones(
    cache, make_source
):
    batches, inputs = epoch_of(make_source(PhotoSource, cache, augmentation=VARIED))
    assert epoch_of(make_source(PhotoSource, cache))[0] == batches
    rest, photos = epoch_of(make_source(PhotoSource, cache, augmentation=VARIED), skip_batches=4)
    assert rest == batches[4:]
    for some, others in zip(photos, inputs[4:], strict=True):
        np.testing.assert_array_equal(some["images"], others["images"])


def test_mirrored_photos_are_the_same_from_memory_and_from_the_disk(make_source):
    flip = AugmentationConfig(flip=True)
    epochs = [
        epoch_of(make_source(PhotoSource, c, augmentation=flip)) for c in ("memory", "stream")
    ]
    for some, others in zip(epochs[0][1], epochs[1][1], strict=True):
        np.testing.assert_array_equal(some["images"], others["images"])


def test_crops_from_memory_and_from_the_disk_show_the_same_place(photos, tmp_path):
    rows, columns = np.meshgrid(np.arange(120), np.arange(90), indexing="ij")
    smooth = np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    images = [f"{number}.png" for number in range(8)]
    for image in images:
        Image.fromarray(smooth).save(tmp_path / image)
    epochs = [
        epoch_of(PhotoSource(tmp_path, images, 16, cache, augmentation=VARIED))
        for cache in ("memory", "stream")
    ]
    for some, others in zip(epochs[0][1], epochs[1][1], strict=True):
        np.testing.assert_allclose(some["images"], others["images"], atol=5)
        assert np.ptp(some["images"].mean(axis=(1, 2)), axis=0).max() > 5  # different places


def test_photos_are_varied_anew_in_every_epoch(make_source):
    source = make_source(PhotoSource, "memory", augmentation=VARIED)
    by_number = []
    for epoch in (0, 1):
        numbers, inputs = epoch_of(source, epoch=epoch)
        photos = np.concatenate([batch["images"] for batch in inputs])
        by_number.append(dict(zip(flat(numbers), photos, strict=True)))
    both = by_number[0].keys() & by_number[1].keys()
    assert len(both) >= 22
    assert all(np.abs(by_number[0][n] - by_number[1][n]).max() > 1 for n in both)


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_photos_are_not_varied_in_an_evaluation(cache, make_source):
    plain = next(make_source(PhotoSource, "memory").evaluation_batches(26).as_numpy_iterator())
    varied = make_source(PhotoSource, cache, augmentation=VARIED).evaluation_batches(26)
    np.testing.assert_array_equal(next(varied.as_numpy_iterator())["images"], plain["images"])


SAMPLING_LABELS = np.where(np.arange(26)[:, np.newaxis] % [2, 13, 5] == 0, 1, -1).astype(np.int8)
SAMPLING_LABELS[:, 0] = np.maximum(SAMPLING_LABELS[:, 0], -SAMPLING_LABELS.max(axis=1))


@pytest.mark.parametrize(("kind", "cache"), EVERY_SOURCE)
@pytest.mark.parametrize(
    "sampler", [Balanced(SAMPLING_LABELS), Capped(SAMPLING_LABELS, 6, seed=3, epochs=2)]
)
def test_photos_come_as_often_as_the_sampler_says(kind, cache, sampler, make_source):
    source = make_source(kind, cache, sampler=sampler)
    batches = source.training_batches(label_rows(26), 1, seed=3, epoch=1)
    numbers = flat(as_lists(batches)[0])
    assert len(source) == len(numbers) == sampler.epoch_size
    np.testing.assert_array_equal(np.bincount(numbers, minlength=26), sampler.counts(3, 1))
    rest, _ = as_lists(source.training_batches(label_rows(26), 1, 3, 1, skip_batches=5))
    assert flat(rest) == numbers[5:]
    for inputs in source.evaluation_batches(26):
        assert all(len(values) == 26 for values in inputs.values())


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_features_next_to_broken_photos_are_those_of_their_own_photos(
    cache, backbone, photos, store, tmp_path
):
    directory = shutil.copytree(photos[0], tmp_path / "photos")
    broken = [photos[1][i] for i in (0, 7, 8, 9, 10, 11, 25)]
    for image in broken:
        (directory / image).unlink()
    partial = extract_features(
        backbone, "tiny", directory, photos[1], tmp_path / "store", batch_size=4, shard_size=3,
        max_broken_share=0.5,
    )  # fmt: skip
    images = [image for image in photos[1] if image not in broken]
    assert partial.images == tuple(images) and len(partial) == 19
    regions, _ = store.read(images)
    source = FeatureSource(partial, images, cache)
    np.testing.assert_allclose(
        np.concatenate([batch["region_features"] for batch in source.evaluation_batches(4)]),
        regions,
        atol=2e-3,
    )
    for numbers, inputs in zip(*epoch_of(source), strict=True):
        np.testing.assert_allclose(inputs["region_features"], regions[numbers], atol=2e-3)


@pytest.mark.slow
def test_two_replicas_share_each_batch_in_order(store, photos):
    warm_processes.run("two_replicas", store.path, photos[0])
