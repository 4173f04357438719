import json
import pathlib
import threading

import numpy as np
import pytest
import tensorflow as tf
from interrupted import Interrupted
from PIL import Image

from benchmarks.shared.photo_writers import drawing, exif, saved
from biam_tf.backbones import weights_fingerprint
from biam_tf.errors import UserError
from biam_tf.photos import decode_photo
from training.data.features import storage
from training.data.features.extraction import extract_features
from training.data.features.finding import find_photos
from training.data.features.manifest import EARLY_PREPROCESSING
from training.data.features.photo_files import PhotoFiles
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import UnfinishedStore, photos_extracted
from training.data.input import photo_reader

BATCH_SIZE, SHARD_SIZE = 4, 10


@pytest.fixture
def extract(backbone, photos, tmp_path):
    directory, images = photos

    def run(store="store", backbone=backbone, images=images, **settings):
        settings = {"batch_size": BATCH_SIZE, "shard_size": SHARD_SIZE} | settings
        return extract_features(backbone, "tiny", directory, images, tmp_path / store, **settings)

    return run


@pytest.fixture
def interrupted(extract, tmp_path):
    """A store of which one of three shards is finished, and half of the second written."""
    with pytest.raises(KeyboardInterrupt):
        extract(progress=Interrupted(photos=15))
    return tmp_path / "store"


@pytest.mark.rounding
def test_stored_features_are_those_of_the_backbone_rounded_to_float16(extract, backbone, photos):
    directory, images = photos
    store = extract()
    pixels = [decode_photo(tf.io.read_file(str(directory / image)), 16) for image in images]
    expected = backbone(tf.stack(pixels))
    regions, scenes = store.read(images)
    assert regions.dtype == scenes.dtype == np.float16
    assert regions.shape == (26, 2, 2, 5) and scenes.shape == (26, 6)
    np.testing.assert_allclose(regions, expected["region_features"], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(scenes, expected["scene_feature"], rtol=2e-3, atol=1e-3)
    assert store.nbytes == regions.nbytes + scenes.nbytes
    assert store.images == tuple(images)
    store.verify()


def test_features_come_in_the_order_asked_for(extract, photos):
    _, images = photos
    store = extract()
    regions, scenes = store.read(images)
    for chosen in ([25, 0, 13], [3], [20, 20, 1], list(range(25, -1, -1)), []):
        some_regions, some_scenes = store.read([images[i] for i in chosen])
        np.testing.assert_array_equal(some_regions, regions[chosen])
        np.testing.assert_array_equal(some_scenes, scenes[chosen])


def test_an_interrupted_extraction_is_not_taken_for_whole(interrupted):
    with pytest.raises(
        UserError, match=r"not finished \(10 of 26 photos\); run the interrupted command again"
    ):
        FeatureStore.open(interrupted)
    assert photos_extracted(interrupted) == 10


@pytest.mark.rounding
def test_a_resumed_extraction_goes_on_after_the_finished_shards(interrupted, extract, photos):
    directory, images = photos
    whole = extract("uninterrupted")
    for image in images[:SHARD_SIZE]:
        (directory / image).unlink()  # what is finished is not read again
    bar = Interrupted(photos=100)
    resumed = extract(progress=bar)
    assert bar.settings == {"total": 26, "label": "Features", "unit": "photo", "initial": 10}
    assert resumed.manifest == whole.manifest  # the same checksums, bit for bit
    assert sorted(path.name for path in interrupted.iterdir()) == [
        ".lock",
        "features-00000-of-00003.tfrecord",
        "features-00001-of-00003.tfrecord",
        "features-00002-of-00003.tfrecord",
        "images.json",
        "manifest.json",
        "photos.npz",
    ]


def test_an_extraction_stopped_at_its_very_end_is_finished_without_the_photos(
    extract, photos, tmp_path, monkeypatch
):
    directory, images = photos
    whole = extract("whole")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(UnfinishedStore, "finish", interrupt)
        extract()
    for image in images:
        (directory / image).unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(UnfinishedStore, "remove_leftovers", interrupt)
        extract()
    (tmp_path / "store" / "features-00000-of-00003.tfrecord.0.tmp").touch()  # of a killed process
    assert extract().manifest == whole.manifest
    names = [{path.name for path in (tmp_path / n).iterdir()} for n in ("whole", "store")]
    assert names[0] == names[1]


@pytest.mark.rounding
def test_a_shard_lost_before_the_end_is_written_again(interrupted, extract):
    (interrupted / "features-00000-of-00003.tfrecord").write_bytes(b"half of it")
    extract().verify()


def test_extracting_into_a_whole_store_only_opens_it(extract, photos):
    directory, images = photos
    first = extract()
    for image in images:
        (directory / image).unlink()
    assert extract().manifest == first.manifest


@pytest.mark.parametrize("whole", [True, False])
def test_a_store_is_not_continued_with_another_job(
    whole, extract, make_backbone, photos, interrupted
):
    if whole:
        extract()
    with pytest.raises(UserError, match=r"backbone weights .*, now .*delete this one"):
        extract(backbone=make_backbone(seed=1))
    with pytest.raises(UserError, match="number of photos 26, now 25"):
        extract(images=photos[1][:-1])
    with pytest.raises(UserError, match="list of photos"):
        extract(images=photos[1][::-1])


def test_all_unreadable_photos_are_named_at_once(extract, photos, tmp_path):
    directory, images = photos
    (directory / images[3]).write_bytes(b"")
    (directory / images[12]).write_bytes((directory / images[12]).read_bytes()[:100])
    (directory / images[25]).unlink()
    with pytest.raises(UserError, match="3 of 26 photos cannot be read") as error:
        extract()
    message = str(error.value)
    assert f"{images[3]}: the file is empty" in message
    assert f"{images[12]}: " in message
    assert f"{images[25]}: no such file" in message
    assert message.count("\n") == 3


@pytest.mark.rounding
def test_broken_photos_up_to_the_share_are_listed_and_left_out(extract, photos, tmp_path):
    directory, images = photos
    whole = extract("whole").read([images[4], images[13]])
    (directory / images[3]).write_bytes(b"")
    (directory / images[12]).unlink()
    store = extract(max_broken_share=2 / 26)
    assert len(store) == 24 and [photo.image for photo in store.broken] == [images[3], images[12]]
    assert images[3] not in store.images
    np.testing.assert_array_equal(store.read([images[13]])[0], whole[0][1:])
    assert (tmp_path / "store" / "broken_photos.csv").read_text() == (
        f"image,reason\n{images[3]},the file is empty\n{images[12]},no such file\n"
    )
    store.verify()
    with pytest.raises(UserError, match=f"no features for 1 of 1 photos, such as {images[3]}"):
        store.rows([images[3]])


def test_more_broken_photos_than_the_share_are_all_named_and_can_be_replaced(extract, photos):
    directory, images = photos
    original = (directory / images[3]).read_bytes()
    for image in (images[3], images[12], images[25]):
        (directory / image).write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"3 of 26 .*max_broken_share: 0\.1 allows 2") as error:
        extract(max_broken_share=0.1)
    assert all(image in str(error.value) for image in (images[3], images[12], images[25]))
    (directory / images[3]).write_bytes(original)
    store = extract(max_broken_share=0.1)
    assert [photo.image for photo in store.broken] == [images[12], images[25]]


def test_a_photo_that_only_failed_for_a_moment_is_not_taken_for_broken(extract, monkeypatch):
    decode = photo_reader.decode_photo
    calls = []

    def fails(contents, image_size, **settings):
        calls.append(tf.executing_eagerly())
        return decode(tf.constant(b"half of it"), image_size, **settings)

    monkeypatch.setattr(photo_reader, "decode_photo", fails)
    # The function that reads a photo is otherwise made once per process.
    monkeypatch.setattr(photo_reader, "_reader", photo_reader._reader.__wrapped__)
    with pytest.raises(tf.errors.UnavailableError, match=r"but works now; .*run the command again"):
        extract(max_broken_share=0.99)
    assert calls == [False]


def test_an_early_store_is_used_for_photos_that_are_read_as_before(tmp_path, make_backbone):
    photos = {
        "plain.jpg": saved(Image.fromarray(drawing()), "JPEG"),
        "turned.jpg": saved(Image.fromarray(drawing()), "JPEG", exif=b"Exif\0\0" + exif(6, False)),
        "opaque.png": saved(Image.fromarray(drawing()), "PNG"),
        "transparent.png": saved(Image.fromarray(drawing()).convert("RGBA"), "PNG"),
    }
    for name, contents in photos.items():
        (tmp_path / name).write_bytes(contents)
    again = {"follow": ["turned.jpg", "transparent.png"], "ignore": ["transparent.png"]}
    for orientation, expected in again.items():
        folder = tmp_path / orientation
        settings = {"orientation": orientation}
        store = extract_features(
            make_backbone(), "tiny", tmp_path, list(photos), folder, **settings
        )
        assert find_photos(store, PhotoFiles(tmp_path), list(photos), **settings).missing == ()
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["preprocessing"] = EARLY_PREPROCESSING
        (folder / "manifest.json").write_text(json.dumps(manifest))
        for path in folder.glob("*.npz"):
            path.unlink()  # version 0.1 recorded no sizes
        early = FeatureStore.open(folder)
        found = find_photos(early, PhotoFiles(tmp_path), list(photos), **settings)
        assert list(found.missing) == expected


def test_a_store_of_another_orientation_is_refused(tmp_path, make_backbone):
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(drawing()), "PNG"))
    extract_features(make_backbone(), "tiny", tmp_path, ["a.png"], tmp_path / "store")
    with pytest.raises(UserError, match=r"orientation: follow, now .* orientation: ignore"):
        extract_features(
            make_backbone(),
            "tiny",
            tmp_path,
            ["a.png"],
            tmp_path / "store",
            orientation="ignore",
        )


def test_features_beyond_float16_are_an_error_that_names_the_photo(extract, make_backbone, photos):
    backbone = make_backbone()
    backbone.set_weights([weights * 1e6 for weights in backbone.get_weights()])
    with pytest.raises(UserError, match=r"0\.jpg: the backbone tiny .* largest float16"):
        extract(backbone=backbone)


def test_a_second_process_waits_for_the_first(extract, tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    results = []
    waiting = threading.Thread(target=lambda: results.append(extract()))
    with storage.one_process_at_a_time(str(tmp_path / "store")):
        waiting.start()
        waiting.join(timeout=0.3)
        assert waiting.is_alive() and not (tmp_path / "store" / "partial.json").exists()
    waiting.join()
    assert len(results[0]) == 26


def test_too_little_space_is_noticed_before_the_work(extract, monkeypatch):
    class Usage:
        free = 100

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(UserError, match="the disk has"):
        extract()


def test_reading_with_another_backbone_names_both(extract, backbone):
    store = extract()
    right = weights_fingerprint(backbone)
    FeatureStore.open(store.path, backbone_name="tiny", image_size=16, weights_fingerprint=right)
    with pytest.raises(UserError, match=r"backbone tiny at 16 pixels.* not of vgg19 at 16 pixels"):
        FeatureStore.open(store.path, backbone_name="vgg19")
    with pytest.raises(UserError, match=r"tiny at 16 pixels.* not of tiny at 32 pixels"):
        FeatureStore.open(store.path, image_size=32)
    with pytest.raises(UserError, match=f"weights {right}, not of .* weights 0123"):
        FeatureStore.open(store.path, weights_fingerprint="0123")


def test_a_folder_without_a_store_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no feature store here; .*extract_features"):
        FeatureStore.open(tmp_path / "nowhere")


def test_a_manifest_that_is_none_is_an_error(extract):
    manifest = pathlib.Path(extract().path, "manifest.json")
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match=r"manifest\.json: format 2, but this version reads"):
        FeatureStore.open(manifest.parent)
    for broken in (whole[:50], "[]", '{"format": 1}'):
        manifest.write_text(broken)
        with pytest.raises(UserError, match=r"manifest\.json: not the manifest"):
            FeatureStore.open(manifest.parent)


def test_a_store_from_before_broken_photos_were_left_out_is_opened(extract, photos):
    manifest = pathlib.Path(extract().path, "manifest.json")
    fields = json.loads(manifest.read_text())
    for shard in fields["shards"]:
        assert shard.pop("broken") == []
    manifest.write_text(json.dumps(fields))
    store = FeatureStore.open(manifest.parent)
    assert store.broken == () and store.images == tuple(photos[1])


def test_photos_prepared_otherwise_are_an_error(extract):
    manifest = pathlib.Path(extract().path, "manifest.json")
    manifest.write_text(manifest.read_text().replace("resized straight", "cropped"))
    with pytest.raises(UserError, match="preprocessed differently"):
        FeatureStore.open(manifest.parent)


def test_missing_and_cut_shards_are_named(extract):
    store = extract()
    shard = pathlib.Path(store.shard_path(1))
    contents = shard.read_bytes()
    shard.write_bytes(contents[:-1])
    with pytest.raises(UserError, match=f"{shard.name}: {len(contents) - 1} bytes, expected"):
        FeatureStore.open(store.path)
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name}: this shard is missing"):
        FeatureStore.open(store.path)


def test_a_changed_byte_is_found_by_verifying_and_by_reading(extract, photos):
    store = extract()
    shard = pathlib.Path(store.shard_path(1))
    contents = bytearray(shard.read_bytes())
    contents[200] ^= 1
    shard.write_bytes(contents)
    store = FeatureStore.open(store.path)
    with pytest.raises(UserError, match=f"{shard.name}: damaged"):
        store.verify()
    with pytest.raises(UserError, match=f"{shard.name}: damaged"):
        store.read(photos[1])
    store.read(photos[1][:SHARD_SIZE])  # the other shards can be read


def test_a_changed_list_of_photos_is_found(extract, photos):
    store = extract()
    pathlib.Path(store.path, "images.json").write_text("[]")
    with pytest.raises(UserError, match=r"images\.json: this is not the photo list"):
        store.read(photos[1])


def test_photos_that_are_not_in_the_store_are_named(extract, photos):
    with pytest.raises(UserError, match=r"no features for 2 of 3 photos, such as a\.jpg, b\.jpg"):
        extract().read(["a.jpg", photos[1][0], "b.jpg"])
