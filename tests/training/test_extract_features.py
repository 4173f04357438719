import dataclasses
import sys

import numpy as np
import pytest
from PIL import Image

from biam_tf.backbones import build_backbone, weights_fingerprint
from biam_tf.errors import UserError
from training.config import load_config
from training.data.features.extraction import ensure_features
from training.data.features.store import FeatureStore
from training.data.folder.reader import read_folder
from training.extract_features import main

SETTINGS = [
    "data.name=folder",
    "backbone.name=small",
    "backbone.image_size=32",
    "backbone.trainable=false",
    "backbone.batch_size=4",
]
SPLITS = {"train": 6, "val": 2, "test": 3}


@pytest.fixture
def directory(tmp_path, rng):
    """A folder data set of eleven photos."""
    directory = tmp_path / "photos"
    (directory / "images").mkdir(parents=True)
    rows = ["image,split,labels"]
    for split, count in SPLITS.items():
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(directory / "images" / f"{split}{number}.jpg")
            rows.append(f"images/{split}{number}.jpg,{split},cat")
    (directory / "annotations.csv").write_text("\n".join(rows) + "\n")
    (directory / "classes.csv").write_text("name,group\ncat,seen\ndog,unseen\n")
    return directory


@pytest.fixture(scope="module")
def backbone():
    return build_backbone("small", 32, "none")


@pytest.fixture(scope="module")
def weights(backbone, tmp_path_factory):
    """The backbone's weights in a file: a frozen backbone of random ones would be no use."""
    file = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    backbone.save_weights(file)
    return file


@pytest.fixture
def overrides(directory, weights):
    return [*SETTINGS, f"data.directory={directory}", f"backbone.weights={weights}"]


@pytest.fixture
def config(overrides):
    return load_config(None, overrides)


def arguments(overrides, output):
    settings = [text for setting in overrides for text in ("--set", setting)]
    return [*settings, "--output", str(output)]


def test_the_command_extracts_all_splits_and_says_how_fast(
    overrides, directory, backbone, tmp_path, capsys
):
    output = tmp_path / "features"
    assert main(arguments(overrides, output)) == 0
    printed = capsys.readouterr().out
    assert "11 photos checked and extracted" in printed and "photos/s" in printed
    assert "MB" in printed
    store = FeatureStore.open(
        output,
        backbone_name="small",
        image_size=32,
        weights_fingerprint=weights_fingerprint(backbone),
    )
    splits = read_folder(directory).splits
    assert store.images == tuple(image for split in splits.values() for image in split.images)
    store.verify()


def test_a_trained_backbone_has_no_features_to_store(overrides, tmp_path, capsys):
    output = tmp_path / "features"
    trained = [own for own in overrides if "batch_size" not in own] + ["backbone.trainable=true"]
    assert main(arguments(trained, output)) == 2
    assert "--set backbone.trainable=false" in capsys.readouterr().err
    assert not output.exists()


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m training.extract_features --config" in capsys.readouterr().out


def test_features_are_extracted_once(config, directory, backbone, tmp_path):
    dataset = read_folder(directory)
    first = ensure_features(config, dataset, backbone, tmp_path / "features")
    for photo in (directory / "images").iterdir():
        photo.unlink()  # not needed any more
    again = ensure_features(config, dataset, backbone, tmp_path / "features")
    assert again.manifest == first.manifest and len(again) == 11


def test_the_configured_place_comes_before_the_default_one(config, directory, backbone, tmp_path):
    chosen = dataclasses.replace(
        config, data=dataclasses.replace(config.data, feature_store=str(tmp_path / "chosen"))
    )
    ensure_features(chosen, read_folder(directory), backbone, tmp_path / "default")
    assert (tmp_path / "chosen" / "manifest.json").exists()
    assert not (tmp_path / "default").exists()


def test_broken_photos_are_found_before_the_backbone_runs(config, directory, backbone, tmp_path):
    dataset = read_folder(directory)
    photo = directory / "images" / "test2.jpg"
    photo.write_bytes(photo.read_bytes()[:200])
    with pytest.raises(UserError, match=r"annotations\.csv row 12.*test2\.jpg"):
        ensure_features(config, dataset, backbone, tmp_path / "features")
    assert not (tmp_path / "features" / "manifest.json").exists()


def test_broken_photos_up_to_the_share_are_left_out_and_named(
    overrides, directory, tmp_path, capsys
):
    (directory / "images" / "test2.jpg").write_bytes(b"no photo")
    (directory / "images" / "val0.jpg").unlink()
    arguments_ = arguments([*overrides, "data.max_broken_share=0.2"], tmp_path / "features")
    for words in ("11 photos checked and extracted", "all photos had been extracted before"):
        assert main(arguments_) == 0
        printed = capsys.readouterr().out
        assert words in printed and "2 photos are broken and left out, 18 % of 11" in printed
        assert "images/val0.jpg: no such file" in printed
        assert str(tmp_path / "features" / "broken_photos.csv") in printed
    assert main(arguments([*overrides, "data.max_broken_share=0.1"], tmp_path / "features")) == 2
    assert "2 of 11 photos cannot be read (data.max_broken_share: 0.1 allows 1)" in (
        capsys.readouterr().err
    )


def test_without_beam_the_extra_is_named(overrides, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    for module in ("biam_tf.beam_pipelines", "training.data.features.beam_extraction"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert main([*arguments(overrides, tmp_path / "features"), "--beam"]) == 2
    assert "install it with pip install 'biam-tf[beam]'" in capsys.readouterr().err


def test_photos_may_lie_elsewhere_than_their_list(overrides, directory, tmp_path):
    (directory / "images").rename(tmp_path / "images")
    command = arguments(overrides, tmp_path / "features")
    assert main(command) == 2  # missing photos are found at once
    assert main([*command, "--photos", str(tmp_path)]) == 0
    assert len(FeatureStore.open(tmp_path / "features")) == 11


def test_the_store_may_be_on_any_file_system_of_tensorflow(
    overrides, config, directory, backbone, tmp_path
):
    place = "ram://bucket/features"
    assert main(arguments(overrides, place)) == 0
    assert not (tmp_path / "bucket").exists() and len(FeatureStore.open(place)) == 11
    remote = dataclasses.replace(config, data=dataclasses.replace(config.data, feature_store=place))
    dataset = read_folder(directory)
    for photo in (directory / "images").iterdir():
        photo.unlink()  # not needed any more
    store = ensure_features(remote, dataset, backbone, tmp_path / "default")
    assert store.path == place and len(store) == 11


def test_an_unknown_file_system_is_named(overrides, capsys):
    assert main(arguments(overrides, "s3://bucket/features")) == 2
    assert "has no file system for s3://, only for " in capsys.readouterr().err


def test_a_store_of_other_weights_is_an_error(config, directory, backbone, tmp_path):
    dataset = read_folder(directory)
    ensure_features(config, dataset, backbone, tmp_path / "features")
    other = build_backbone("small", 32, "none")
    other.set_weights([weights + 1 for weights in other.get_weights()])
    with pytest.raises(UserError, match="not of small at 32 pixels with weights"):
        ensure_features(config, dataset, other, tmp_path / "features")


def test_a_store_of_fewer_photos_gets_the_others(config, directory, backbone, tmp_path, capsys):
    dataset = read_folder(directory)
    train_alone = dataclasses.replace(dataset, splits={"train": dataset.split("train")})
    ensure_features(config, train_alone, backbone, tmp_path / "features")
    store = ensure_features(config, dataset, backbone, tmp_path / "features")
    assert "6 of 11 photos; 5 are new or have changed" in capsys.readouterr().out
    assert set(store.images) == set(dataset.images)
