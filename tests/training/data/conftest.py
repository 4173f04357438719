"""A small backbone and a folder of photos, for the tests of stores and sources."""

import pathlib

import keras
import numpy as np
import pytest
from keras.initializers import GlorotUniform
from PIL import Image

from training.data.features.extraction import extract_features

IMAGE_SIZE = 16


@pytest.fixture(scope="session")
def make_backbone():
    def make(seed: int = 0) -> keras.Model:
        images = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="images")
        scaled = keras.layers.Rescaling(1 / 255, name="scaled")(images)
        regions = keras.layers.Conv2D(
            5, 8, strides=8, kernel_initializer=GlorotUniform(seed), name="regions"
        )(scaled)
        pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(regions)
        scene = keras.layers.Dense(6, kernel_initializer=GlorotUniform(seed), name="scene")(pooled)
        return keras.Model(images, {"region_features": regions, "scene_feature": scene})

    return make


@pytest.fixture(scope="session")
def backbone(make_backbone) -> keras.Model:
    return make_backbone()


def draw_photos(directory: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """Makes 26 photos of several sizes and formats; returns their folder and relative paths."""
    (directory / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = []
    for number in range(26):
        width, height = [(16, 16), (23, 31), (8, 40)][number % 3]
        name = f"more/{number}.png" if number % 2 else f"{number}.jpg"
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / name)
        images.append(name)
    return directory, images


@pytest.fixture
def photos(tmp_path):
    """A folder of photos that the test may break, and their relative paths."""
    return draw_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def shared_photos(tmp_path_factory):
    """The same photos, for tests that only read them."""
    return draw_photos(tmp_path_factory.mktemp("shared") / "photos")


@pytest.fixture(scope="session")
def shared_store(backbone, shared_photos, tmp_path_factory):
    """The features of `shared_photos` in six shards, for tests that only read them."""
    store = tmp_path_factory.mktemp("shared") / "store"
    return extract_features(backbone, "tiny", *shared_photos, store, batch_size=4, shard_size=5)
