"""Features belong to the contents of photos: the backbone sees only what is new or changed."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from interrupted import Interrupted
from PIL import Image

from biam_tf.backbones import weights_fingerprint
from biam_tf.errors import UserError
from biam_tf.photos import decode_photo
from training.config import BackboneConfig, DataConfig, RunConfig
from training.data.dataset import Split, TaggingDataset
from training.data.features import shard_extraction
from training.data.features.choosing import choose_store, new_store_name
from training.data.features.extraction import ensure_features, extract_features
from training.data.features.photo_files import PhotoFiles
from training.data.features.store import FeatureStore
from training.pipeline.examples import feature_location

SHARD_SIZE = 10
TINY = BackboneConfig("tiny", trainable=False, batch_size=4)


@pytest.fixture
def seen(monkeypatch):
    """The photos whose features are computed, in this process."""
    images = []
    extract = shard_extraction.ShardExtractor.extract

    def noted(self, number, photos, *more):
        images.extend(photos)
        return extract(self, number, photos, *more)

    monkeypatch.setattr(shard_extraction.ShardExtractor, "extract", noted)
    return images


def dataset_of(directory, images, labels=1):
    splits = {
        "train": images[: len(images) // 2],
        "test": images[len(images) // 2 :],
    }
    return TaggingDataset(
        pathlib.Path(directory),
        ("cat",),
        ("seen",),
        {
            name: Split(tuple(part), np.full((len(part), 1), labels, np.int8))
            for name, part in splits.items()
        },
    )


@pytest.fixture
def ensure(backbone, photos, tmp_path):
    """Brings the store of the photos up to date; photos may be left out or have other labels."""

    def run(directory=photos[0], images=photos[1], labels=1, **settings):
        config = RunConfig(DataConfig(**settings), TINY)
        dataset = dataset_of(directory, list(images), labels)
        return ensure_features(
            config, dataset, backbone, tmp_path / "store", photos_directory=directory
        )

    return run


def replace(path, color, keep_time=False):
    """Paints a photo in one color; the size in bytes may stay, as in a BMP."""
    before = path.stat()
    with Image.open(path) as photo:
        Image.new("RGB", photo.size, color).save(path)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


def assert_features_of_the_files(store, backbone, directory, images):
    pixels = [decode_photo(tf.io.read_file(str(directory / image)), 16) for image in images]
    expected = backbone(tf.stack(pixels))
    regions, scenes = store.read(images)
    np.testing.assert_allclose(regions, expected["region_features"], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(scenes, expected["scene_feature"], rtol=2e-3, atol=1e-3)


def test_only_photos_that_were_replaced_are_seen_again(ensure, seen, photos, backbone):
    directory, images = photos
    ensure()
    assert seen == images
    del seen[:]
    replaced = [images[3], images[20]]
    for image in replaced:
        replace(directory / image, "red")
    store = ensure()
    assert seen == replaced
    assert_features_of_the_files(store, backbone, directory, images)
    del seen[:]
    assert_features_of_the_files(ensure(), backbone, directory, images)
    assert seen == []


def test_all_photos_replaced_under_the_same_names(ensure, seen, photos, backbone):
    directory, images = photos
    ensure()
    for number, image in enumerate(images):
        replace(directory / image, (9 * number, 100, 200))
    store = ensure()
    assert seen == [*images, *images]
    assert_features_of_the_files(store, backbone, directory, images)


def test_a_new_photo_alone_is_seen_and_a_removed_one_costs_nothing(ensure, seen, photos, backbone):
    directory, images = photos
    ensure(images=images[:-1])
    del seen[:]
    assert_features_of_the_files(ensure(), backbone, directory, images)
    assert seen == images[-1:]
    del seen[:]
    (directory / images[5]).unlink()
    rest = [image for image in images if image != images[5]]
    store = ensure(images=rest)
    assert seen == [] and len(store) == 25 and images[5] not in store.images


def test_changed_labels_and_splits_extract_nothing(ensure, seen, photos):
    ensure()
    del seen[:]
    ensure(labels=0)
    ensure(images=photos[1][::-1])
    assert seen == []


def test_a_photo_put_back_has_its_first_features(ensure, seen, photos, backbone):
    directory, images = photos
    path = directory / images[4]
    shutil.copy2(path, directory / "kept")
    ensure()
    replace(path, "red")
    ensure()
    del seen[:]
    shutil.copy2(directory / "kept", path)
    assert_features_of_the_files(ensure(), backbone, directory, images)
    assert seen == []


def test_touched_renamed_and_copied_photos_are_the_same_photos(
    ensure, seen, photos, backbone, tmp_path, monkeypatch
):
    directory, images = photos
    ensure()
    del seen[:]
    for image in images[:5]:
        os.utime(directory / image)
    (directory / images[7]).rename(directory / "other.png")
    images = ["other.png" if image == images[7] else image for image in images]
    copied = tmp_path / "copied"
    shutil.copytree(directory, copied, copy_function=shutil.copyfile)
    for folder in (directory, copied):
        store = ensure(directory=folder, images=images)
        assert_features_of_the_files(store, backbone, folder, images)
    assert seen == []
    # Photos that were compared once are not read again.
    monkeypatch.setattr(PhotoFiles, "_digest", lambda self, path: pytest.fail(f"{path} is read"))
    ensure(directory=copied, images=images)


def test_same_size_and_time_but_other_contents_are_seen_with_hash_photos_alone(
    ensure, seen, tmp_path, backbone
):
    images = [f"{number}.bmp" for number in range(4)]
    for number, image in enumerate(images):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(tmp_path / image)
    ensure(directory=tmp_path, images=images)
    del seen[:]
    replace(tmp_path / images[2], "blue", keep_time=True)
    ensure(directory=tmp_path, images=images)
    assert seen == []
    store = ensure(directory=tmp_path, images=images, hash_photos=True)
    assert seen == [images[2]]
    assert_features_of_the_files(store, backbone, tmp_path, images)


def test_photos_of_one_content_have_records_of_their_own(ensure, seen, photos, backbone):
    directory, images = photos
    ensure()
    shutil.copyfile(directory / images[3], directory / "twin.png")
    store = ensure(images=[*images, "twin.png"])
    assert seen[26:] == ["twin.png"]
    assert len(set(store.rows([*images, "twin.png"]))) == 27
    assert_features_of_the_files(store, backbone, directory, [*images, "twin.png"])


def test_features_of_photos_that_are_elsewhere_are_read_with_a_word(ensure, seen, photos, capsys):
    directory, images = photos
    ensure()
    del seen[:]
    for image in images[:20]:
        (directory / image).unlink()
    assert len(ensure()) == 26 and seen == []
    assert "20 of 26 photos are not in" in capsys.readouterr().out


@pytest.fixture
def old_store(ensure, tmp_path):
    """A store as version 0.1 wrote it, without sizes, times and checksums."""
    ensure()
    (tmp_path / "store" / "photos.npz").unlink()


def test_an_old_store_is_read_where_photos_are_older_than_it(
    old_store, ensure, seen, photos, backbone, capsys
):
    directory, images = photos
    del seen[:]
    assert len(ensure()) == 26 and seen == []
    replace(directory / images[3], "red")
    # A copied photo may bring an old time, but the file system knows when it came.
    replace(directory / images[8], "blue", keep_time=True)
    store = ensure()
    assert seen == [images[3], images[8]]
    assert "24 of 26 photos; 2 are new or have changed (a part of the store is of a version" in (
        capsys.readouterr().out
    )
    assert_features_of_the_files(store, backbone, directory, images)
    del seen[:]
    ensure()
    assert seen == []


def test_an_unfinished_store_of_other_photos_keeps_what_is_finished(
    extract_part, ensure, seen, photos, backbone, tmp_path
):
    directory, images = photos
    with pytest.raises(KeyboardInterrupt):
        extract_part(images, progress=Interrupted(photos=15))
    del seen[:]
    replace(directory / images[2], "red")  # in the finished shard, which is written again
    assert_features_of_the_files(ensure(images=images), backbone, directory, images)
    assert seen == images
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        extract_part(images, progress=Interrupted(photos=15))
    del seen[:]
    store = ensure(images=images[:-3])
    assert seen == images[SHARD_SIZE:-3]
    assert_features_of_the_files(store, backbone, directory, images[:-3])
    del seen[:]
    ensure()
    assert seen == images[-3:]


@pytest.fixture
def extract_part(backbone, photos, tmp_path):
    def run(images, **more):
        return extract_features(
            backbone,
            "tiny",
            photos[0],
            images,
            tmp_path / "store",
            batch_size=4,
            shard_size=SHARD_SIZE,
            **more,
        )

    return run


def test_an_interrupted_addition_is_resumed(ensure, seen, photos, backbone, monkeypatch):
    directory, images = photos
    ensure(images=images[:2])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            shard_extraction.ShardExtractor,
            "extract",
            lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        ensure()
    assert_features_of_the_files(ensure(), backbone, directory, images)
    assert seen == images
    assert len(ensure().parts) == 2


def test_a_broken_photo_that_was_replaced_is_extracted(ensure, seen, photos, backbone):
    directory, images = photos
    whole = (directory / images[6]).read_bytes()
    (directory / images[6]).write_bytes(b"no photo")
    share = {"max_broken_share": 0.05}
    assert [photo.image for photo in ensure(**share).broken] == [images[6]]
    del seen[:]
    assert [photo.image for photo in ensure(**share).broken] == [images[6]]
    assert seen == []
    (directory / images[6]).write_bytes(whole)
    store = ensure(**share)
    assert store.broken == () and seen == [images[6]]
    assert_features_of_the_files(store, backbone, directory, images)


def test_the_share_of_broken_photos_counts_all_photos(ensure, photos):
    directory, images = photos
    (directory / images[6]).write_bytes(b"no photo")
    (directory / images[25]).write_bytes(b"no photo")
    share = {"max_broken_share": 0.04}
    assert len(ensure(images=images[:-1], **share)) == 24
    with pytest.raises(UserError, match="2 of 26 photos cannot be read") as error:
        ensure(**share)
    assert images[6] in str(error.value) and images[25] in str(error.value)


def test_damaged_records_are_named(ensure, tmp_path):
    ensure()
    (tmp_path / "store" / "photos.npz").write_bytes(b"PK half of it")
    with pytest.raises(UserError, match=r"photos\.npz: not the records of the 26 photos"):
        ensure()


def test_a_photo_written_while_it_is_read_is_an_error(ensure, photos, monkeypatch):
    directory, images = photos
    reasons = shard_extraction.photo_reader.reasons

    def meanwhile(*arguments):
        os.utime(directory / images[0], ns=(0, 0))
        return reasons(*arguments)

    monkeypatch.setattr(shard_extraction.photo_reader, "reasons", meanwhile)
    with pytest.raises(UserError, match=r"0\.jpg in .* was changed while its features"):
        ensure()


def test_the_manifest_keeps_its_form(ensure, tmp_path):
    ensure()
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert "photos" not in manifest["shards"][0]


def test_the_store_beside_a_run_is_chosen_by_the_contents_of_photos(
    backbone, photos, tmp_path, extract_part
):
    directory, images = photos
    config = RunConfig(backbone=TINY)
    run, features = tmp_path / "runs" / "a", tmp_path / "runs" / "features"

    def place(folder=directory, photos=images, labels=1):
        return feature_location(config, run, dataset_of(folder, list(photos), labels), backbone)

    first = place()
    assert pathlib.Path(first).parent == features
    features.mkdir(parents=True)
    extract_part(images)
    (tmp_path / "store").rename(first)
    assert place(labels=0) == place(photos=images[:-1]) == first
    moved = directory.rename(tmp_path / "moved")
    assert place(folder=moved) == first
    for image in images:
        replace(moved / image, "red")
    assert place(folder=moved) != first  # other photos of the same names


def test_stores_of_other_weights_are_not_chosen(make_backbone, photos, tmp_path):
    directory, images = photos
    files = PhotoFiles(directory)
    jobs = [
        shard_extraction.describe_job(make_backbone(seed), "tiny", images, 10) for seed in (0, 1)
    ]
    names = [new_store_name(job, files, images) for job in jobs]
    assert names[0] != names[1]
    extract_features(make_backbone(0), "tiny", directory, images, tmp_path / names[0])
    beside = str(tmp_path)
    assert choose_store(beside, jobs[0], files, images) == str(tmp_path / names[0])
    assert choose_store(beside, jobs[1], files, images) is None
    store = FeatureStore.open(tmp_path / names[0])
    assert store.manifest.backbone.weights == weights_fingerprint(make_backbone(0))
