"""The Beam pipeline, on the runner that needs no other machine."""

import dataclasses
import pathlib

import pytest
from interrupted import Interrupted

from biam_tf.backbones import build_backbone
from biam_tf.errors import UserError
from training import extract_features as command
from training.config import BackboneConfig
from training.data.features import extraction as feature_extraction
from training.data.features.store import FeatureStore
from training.data.input.broken_photos import from_csv

pytest.importorskip("apache_beam", reason="the extra [beam] is not installed")

from training.data.features import beam_extraction

SHARD_SIZE, BATCH_SIZE = 5, 4  # six shards


@pytest.fixture(scope="module")
def small():
    return build_backbone("small", 32, "none")


@pytest.fixture(scope="module")
def settings(small, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    small.save_weights(file)
    return BackboneConfig("small", 32, str(file), trainable=False, batch_size=BATCH_SIZE)


@pytest.fixture
def locally(small, photos, tmp_path):
    def run(store="local", **more):
        more = {"batch_size": BATCH_SIZE, "shard_size": SHARD_SIZE} | more
        return feature_extraction.extract_features(
            small, "small", *photos, tmp_path / store, **more
        )

    return run


@pytest.fixture
def with_beam(small, settings, photos, tmp_path):
    def run(store="beam", settings=settings, **more):
        more = {"shard_size": SHARD_SIZE} | more
        return beam_extraction.extract_features_with_beam(
            small, settings, *photos, tmp_path / store, **more
        )

    return run


@pytest.fixture
def extracted(monkeypatch):
    """The numbers of the shards that were computed, in this process."""
    numbers = []
    extract = beam_extraction.ShardExtractor.extract

    def noted(self, number, *more):
        numbers.append(number)
        return extract(self, number, *more)

    monkeypatch.setattr(beam_extraction.ShardExtractor, "extract", noted)
    return numbers


def contents(store):
    path = pathlib.Path(store.path)
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.slow
def test_the_store_is_the_same_byte_for_byte_as_from_the_local_extractor(
    locally, with_beam, extracted
):
    direct_runner = ["--runner=DirectRunner", "--allow_unsafe_triggers"]  # the latter: no Prism
    stores = contents(locally()), contents(with_beam(options=direct_runner))
    assert sorted(extracted) == sorted([*range(6), *range(6)])
    assert len(stores[0]) == 10 and stores[0] == stores[1]


def test_it_goes_on_after_the_shards_of_whoever_was_interrupted(locally, with_beam, extracted):
    whole = contents(locally())
    with pytest.raises(KeyboardInterrupt):
        locally("begun", progress=Interrupted(13))
    del extracted[:]
    assert contents(with_beam("begun")) == whole
    assert sorted(extracted) == [2, 3, 4, 5]


def test_broken_photos_are_left_out_alike_up_to_the_set_share(locally, with_beam, photos):
    directory, images = photos
    (directory / images[3]).unlink()
    for image in images[10:15]:  # a whole shard
        (directory / image).write_bytes(b"no photo")
    stores = [run(max_broken_share=0.25) for run in (locally, with_beam)]
    assert contents(stores[0]) == contents(stores[1])
    listed = from_csv(contents(stores[1])["broken_photos.csv"].decode())
    assert [photo.image for photo in listed] == [images[3], *images[10:15]]


def test_too_many_broken_photos_are_all_named_after_the_others_are_done(with_beam, photos):
    directory, images = photos
    original = (directory / images[3]).read_bytes()
    (directory / images[3]).write_bytes(b"")
    (directory / images[12]).unlink()
    for share in (0.0, 0.05):
        with pytest.raises(UserError, match="2 of 26 photos cannot be read") as error:
            with_beam(max_broken_share=share)
        assert f"{images[3]}: the file is empty" in str(error.value)
        assert f"{images[12]}: no such file" in str(error.value)
    (directory / images[3]).write_bytes(original)
    store = with_beam(max_broken_share=0.05)  # a photo that was replaced is in the store
    assert images[3] in store.images and len(store) == 25


def test_a_worker_with_other_weights_stops_the_pipeline(with_beam, settings, small, tmp_path):
    other = build_backbone("small", 32, "none")
    other.set_weights([value + 1 for value in small.get_weights()])
    other.save_weights(tmp_path / "other.weights.h5")
    settings = dataclasses.replace(settings, weights=str(tmp_path / "other.weights.h5"))
    with pytest.raises(
        UserError, match=r"^backbone\.weights: .* the weights on this machine .* differ from"
    ):
        with_beam(settings=settings)


def test_shards_that_went_elsewhere_are_an_error(with_beam, monkeypatch):
    monkeypatch.setattr(beam_extraction, "_run", lambda *arguments: None)
    with pytest.raises(UserError, match="6 of 6 shards are missing; use a folder that all"):
        with_beam()


def test_wrong_pipeline_options_are_errors(with_beam, capfd):
    with pytest.raises(UserError, match="the options after -- are not valid Beam options"):
        with_beam(options=["--direct_num_workers=two"])
    assert "direct_num_workers" in capfd.readouterr().err
    with pytest.raises(UserError, match=r"--runner=FlingRunner: Unexpected .*FlinkRunner"):
        with_beam(options=["--runner=FlingRunner"])


@pytest.mark.slow
def test_the_store_is_the_same_from_several_processes(locally, with_beam):
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    assert contents(with_beam(options=options)) == contents(locally())


def test_the_command_runs_the_pipeline_and_says_how_fast(settings, photos, tmp_path, capsys):
    directory, images = photos
    rows = "".join(f"{image},train,cat\n" for image in images)
    (tmp_path / "annotations.csv").write_text("image,split,labels\n" + rows)
    (tmp_path / "classes.csv").write_text("name,group\ncat,seen\n")
    arguments = ["--output", str(tmp_path / "features"), "--photos", str(directory)]
    for setting in (
        "data.name=folder",
        f"data.directory={tmp_path}",
        "backbone.trainable=false",
        f"backbone.weights={settings.weights}",
        "backbone.image_size=32",
    ):
        arguments += ["--set", setting]
    assert command.main([*arguments, "--beam", "--", "--direct_num_workers=2"]) == 0
    assert "26 photos checked and extracted" in capsys.readouterr().out
    assert FeatureStore.open(tmp_path / "features").images == tuple(images)


def test_options_without_beam_are_an_error(tmp_path, capsys):
    arguments = ["--output", str(tmp_path / "store"), "--", "--runner=FlinkRunner"]
    assert command.main(arguments) == 2
    assert "--runner=FlinkRunner: options of a Beam pipeline, but --beam is not" in (
        capsys.readouterr().err
    )
