"""The builders of public data sets, put through TensorFlow Datasets' own tests."""

from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from miniatures import nus_name, write_nus_wide, write_open_images

from training.data.nus_wide.nus_wide_dataset_builder import NusWide
from training.data.nus_wide.reader import read_nus_wide
from training.data.open_images.open_images_dataset_builder import OpenImagesZeroShot
from training.data.open_images.reader import read_open_images

NUS_WIDE_LEFT_OUT = (0,)


@pytest.fixture(scope="class", autouse=True)
def miniature(request, tmp_path_factory):
    """The folder that the test case calls its example directory."""
    if hasattr(request.cls, "write"):
        request.cls.EXAMPLE_DIR = str(request.cls.write(tmp_path_factory.mktemp("miniature")))
        request.cls.dummy_data = request.cls.EXAMPLE_DIR


class TestNusWideBuilder(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = NusWide
    SPLITS: ClassVar = {"train": 15, "validation": 4, "test": 10}

    @staticmethod
    def write(directory):
        return write_nus_wide(directory, left_out=NUS_WIDE_LEFT_OUT)


class TestOpenImagesBuilder(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = OpenImagesZeroShot
    SPLITS: ClassVar = {"train": 24, "validation": 8, "test": 9}
    BUILDER_CONFIG_NAMES_TO_TEST: ClassVar = ["most_frequent"]

    @staticmethod
    def write(directory):
        return write_open_images(directory, left_out={("test", 2)})


def prepared(builder_class, config, manual_dir, data_dir):
    builder = builder_class(config=config, data_dir=str(data_dir))
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return builder_class(config=config, data_dir=str(data_dir))


@pytest.mark.parametrize(
    ("builder_class", "config", "write", "read"),
    [
        (NusWide, "zero_shot", write_nus_wide, read_nus_wide),
        (NusWide, "standard_81", write_nus_wide, lambda path: read_nus_wide(path, "standard_81")),
        (OpenImagesZeroShot, "most_frequent", write_open_images, read_open_images),
    ],
)
def test_builders_give_what_the_readers_give(tmp_path, builder_class, config, write, read):
    manual_dir = write(tmp_path / "manual")
    builder = prepared(builder_class, config, manual_dir, tmp_path / "records")
    dataset = read(manual_dir)
    assert tuple(builder.info.features["present"].feature.names) == dataset.names
    assert tuple(builder.info.metadata["groups"]) == dataset.groups
    for split, official in (("train", "train"), ("val", "validation"), ("test", "test")):
        own = dataset.split(split)
        labels = dict(zip(own.images, own.labels, strict=True))
        photos = builder.as_dataset(split=official, decoders={"image": tfds.decode.SkipDecoding()})
        found = 0
        for photo in tfds.as_numpy(photos):
            image = photo["image/filename"].decode()
            np.testing.assert_array_equal(photo["labels"], labels[image])
            np.testing.assert_array_equal(photo["present"], np.flatnonzero(labels[image] > 0))
            assert photo["image"] == (manual_dir / image).read_bytes()
            found += 1
        assert found == len(own)


@pytest.mark.parametrize("builder_class", [NusWide, OpenImagesZeroShot])
def test_builders_say_version_notes_citation_license_and_checksums(tmp_path, builder_class):
    info = builder_class(data_dir=str(tmp_path)).info
    assert str(info.version) in info.release_notes
    assert info.citation.startswith("@") and info.homepage.startswith("https://")
    assert info.redistribution_info.license and info.description
    assert builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS
    assert builder_class.url_infos
    for known in builder_class.url_infos.values():
        assert len(known.checksum) == 64 and known.size > 0


def test_a_builder_leaves_out_what_is_missing(tmp_path):
    manual_dir = write_nus_wide(tmp_path / "manual", left_out=(14,))
    builder = prepared(NusWide, "zero_shot", manual_dir, tmp_path / "records")
    names = [p["image/filename"] for p in tfds.as_numpy(builder.as_dataset(split="test"))]
    assert len(names) == 9 and nus_name(14).encode() not in names
    assert any("1 missing and left out" in line for line in builder.info.metadata["remarks"])
