"""Stores that are no local folders: TensorFlow's file system in memory stands for any other."""

import pytest
import tensorflow as tf

from biam_tf.errors import UserError
from training.data.features import storage
from training.data.features.extraction import extract_features
from training.data.features.store import FeatureStore
from training.data.input.sources import FeatureSource

REMOTE = "ram://features/tiny"


@pytest.fixture
def remote():
    yield REMOTE
    tf.io.gfile.rmtree(REMOTE)


def contents(folder):
    files = {}
    for name in tf.io.gfile.listdir(folder):
        with tf.io.gfile.GFile(f"{folder}/{name}", "rb") as file:
            files[name] = file.read()
    return files


def test_a_remote_store_has_the_bytes_of_a_local_one(remote, backbone, photos, tmp_path):
    directory, images = photos
    (directory / images[7]).write_bytes(b"no photo")
    settings = {"batch_size": 4, "shard_size": 10, "max_broken_share": 0.1}
    extract_features(backbone, "tiny", *photos, tmp_path / "local", **settings)
    store = extract_features(backbone, "tiny", *photos, remote + "/", **settings)
    assert store.path == remote and not (tmp_path / "ram:").exists()
    local = contents(str(tmp_path / "local"))
    del local[".lock"]  # a folder that others may use at the same time is not locked
    assert contents(remote) == local and "broken_photos.csv" in local


def test_a_remote_extraction_goes_on_after_the_finished_shards(remote, backbone, shared_photos):
    def run(progress=None):
        return extract_features(
            backbone, "tiny", *shared_photos, remote, batch_size=4, shard_size=10, progress=progress
        )

    class StopsInTheSecondShard:
        def __init__(self, **settings):
            self.done = 0
            self.initial = settings["initial"]
            started.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def update(self, count):
            self.done += count
            if self.done > 13 and len(started) == 1:
                raise KeyboardInterrupt

    started = []
    with pytest.raises(KeyboardInterrupt):
        run(StopsInTheSecondShard)
    with pytest.raises(UserError, match=r"not finished \(10 of 26 photos\)"):
        FeatureStore.open(remote)
    assert not any(name.endswith(".tmp") for name in tf.io.gfile.listdir(remote))
    assert len(run(StopsInTheSecondShard)) == 26
    assert [bar.initial for bar in started] == [0, 10]


def test_a_remote_store_is_read_streamed_and_verified(
    remote, backbone, shared_photos, shared_store
):
    store = extract_features(backbone, "tiny", *shared_photos, remote, batch_size=4, shard_size=5)
    store.verify()
    for cache in ("memory", "stream"):
        pairs = zip(
            FeatureSource(store, store.images, cache).evaluation_batches(8),
            FeatureSource(shared_store, store.images, cache).evaluation_batches(8),
            strict=True,
        )
        assert all((a["scene_feature"] == b["scene_feature"]).numpy().all() for a, b in pairs)
    with tf.io.gfile.GFile(store.shard_path(1), "wb") as shard:
        shard.write(b"x" * store.manifest.shards[1].bytes)
    with pytest.raises(UserError, match=r"ram://features/tiny/features-00001.*damaged"):
        store.verify()


@pytest.mark.parametrize("path", ["s3://bucket/features", "gcs://bucket/features"])
def test_a_scheme_that_tensorflow_does_not_have_is_named_with_those_it_has(path):
    scheme = path.partition(":")[0]
    with pytest.raises(UserError) as error:
        FeatureStore.open(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and f"no file system for {scheme}://" in message
    assert "gs://" in message and "local folders" in message


def test_local_paths_are_tidied_and_others_left_alone(tmp_path):
    assert storage.normal_path(tmp_path / "a" / ".." / "b") == str(tmp_path / "a" / ".." / "b")
    assert storage.normal_path("features//store/") == "features/store"
    assert storage.normal_path("ram://a/b/") == "ram://a/b"
