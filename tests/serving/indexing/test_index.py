"""Photos indexed once and scored ever after, against the exported model itself."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded

from biam_tf.errors import UserError
from biam_tf.photos import NOT_WHOLE
from serving import index as index_command
from serving import retag
from serving.indexing import build_index
from serving.indexing.build_index import index_photos
from serving.indexing.manifest import IndexManifest
from serving.indexing.photo_index import PhotoIndex

pytestmark = pytest.mark.usefixtures("loaded_once")

FORMS = ("JPEG", "PNG", "GIF", "BMP")


@pytest.fixture(scope="module")
def model_dir(tagger_dir):
    return tagger_dir


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(build_index, "SHARD_PHOTOS", 3)
        monkeypatch.setattr(build_index, "BATCH_PHOTOS", 2)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight photos in two folders, a broken one, and a file that is none; not to be changed."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    (folder / "more").mkdir(parents=True)
    for seed in range(8):
        form = FORMS[seed % 4]
        name = f"{'more/' if seed % 2 else ''}{seed}.{form.lower()}"
        (folder / name).write_bytes(encoded(form, (60 + seed, 50), seed))
    (folder / "broken.jpg").write_bytes(encoded("JPEG")[:200])
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def index(model_dir, photos, tmp_path_factory):
    """An index in three shards; not to be changed."""
    folder = tmp_path_factory.mktemp("data") / "index"
    index_photos(model_dir, photos, folder)
    return folder


@pytest.fixture
def copied(photos, index, tmp_path):
    """Photos and their index, to be changed."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(index, tmp_path / "index")
    manifest = IndexManifest.read(index)
    manifest = dataclasses.replace(manifest, photo_folder=str(tmp_path / "photos"))
    manifest.write(tmp_path / "index")
    return tmp_path / "photos", tmp_path / "index"


@pytest.fixture(scope="module")
def classes():
    rows = np.random.default_rng(1).normal(size=(11, 14)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_scores_and_maps_are_those_of_the_model(index, photos, model_dir, classes):
    found = PhotoIndex(index)
    assert sorted(found.photos) == [f"{i}.{FORMS[i % 4].lower()}" for i in (0, 2, 4, 6)] + [
        f"more/{i}.{FORMS[i % 4].lower()}" for i in (1, 3, 5, 7)
    ]
    assert found.manifest.pooled == 3 and found.manifest.grid == (12, 12)
    loaded = tf.saved_model.load(model_dir / "1")
    contents = tf.constant([(photos / path).read_bytes() for path in found.photos])
    expected = loaded.signatures["explain"](images=contents, class_embeddings=tf.constant(classes))
    # What 16 bits leave: 2^-11 of each of the 14 numbers of a region.
    tolerance = 5e-4 * np.abs(expected["response_maps"]).max()
    scores = found.scores(classes)
    np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=tolerance)
    maps = np.stack([found.response_maps(row, classes) for row in range(len(found))])
    np.testing.assert_allclose(maps, expected["response_maps"], rtol=0, atol=tolerance)


def test_a_class_s_scores_depend_on_no_other_class(index, classes, monkeypatch):
    found = PhotoIndex(index)
    scores = found.scores(classes)
    order = np.random.default_rng(2).permutation(len(classes))
    np.testing.assert_allclose(found.scores(classes[order]), scores[:, order], atol=1e-5)
    np.testing.assert_allclose(found.scores(classes[:1]), scores[:, :1], atol=1e-5)
    monkeypatch.setattr("serving.indexing.photo_index._BLOCK_BYTES", 1)  # a photo at a time
    np.testing.assert_allclose(found.scores(classes), scores, atol=1e-5)


def test_broken_photos_are_listed_and_not_tried_again(index, model_dir, photos, monkeypatch):
    broken = PhotoIndex(index).manifest.broken
    assert [(photo.path, why) for photo, why in broken] == [("broken.jpg", NOT_WHOLE)]
    monkeypatch.setattr(build_index, "RegionEmbedder", None)  # with nothing new, none is loaded
    assert index_photos(model_dir, photos, index) == PhotoIndex(index).manifest


def test_an_index_follows_its_photos(copied, model_dir, classes):
    photos, index = copied
    before = PhotoIndex(index)
    scores = dict(zip(before.photos, before.scores(classes), strict=True))
    (photos / "0.jpeg").unlink()
    (photos / "2.gif").write_bytes(encoded("GIF", (90, 90), 77))
    (photos / "new.png").write_bytes((photos / "more" / "1.png").read_bytes())
    (photos / "broken.jpg").write_bytes(encoded("JPEG"))
    index_photos(model_dir, photos, index)
    after = PhotoIndex(index)
    now = dict(zip(after.photos, after.scores(classes), strict=True))
    assert set(now) == set(scores) - {"0.jpeg"} | {"new.png", "broken.jpg"}
    assert not after.manifest.broken
    for path in set(scores) & set(now) - {"2.gif"}:
        np.testing.assert_allclose(now[path], scores[path], atol=1e-5)
    assert np.abs(now["2.gif"] - scores["2.gif"]).max() > 1e-3
    np.testing.assert_allclose(now["new.png"], now["more/1.png"], atol=1e-2)
    files = {path.name for path in index.glob("shard-*")}
    assert files == {shard.file for shard in after.manifest.shards}


def test_a_photo_put_in_place_of_another_of_its_size_and_time_is_seen(copied, model_dir, classes):
    photos, index = copied
    before = PhotoIndex(index)
    scores = dict(zip(before.photos, before.scores(classes), strict=True))
    target = photos / "more" / "3.bmp"
    status = target.stat()
    target.unlink()
    target.write_bytes(encoded("BMP", (63, 50), 99))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` does
    assert target.stat().st_size == status.st_size
    index_photos(model_dir, photos, index)
    after = PhotoIndex(index)
    now = dict(zip(after.photos, after.scores(classes), strict=True))
    changed = {path for path in scores if np.abs(now[path] - scores[path]).max() > 1e-3}
    assert changed == {"more/3.bmp"}


def test_a_file_that_cannot_be_read_is_named_and_tried_again(copied, model_dir, monkeypatch):
    photos, index = copied
    read, wrong = pathlib.Path.read_bytes, photos / "new.png"
    wrong.write_bytes(encoded("PNG"))

    def no_permission(path):
        if path == wrong:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(pathlib.Path, "read_bytes", no_permission)
    for _ in range(2):
        found = {photo.path: why for photo, why in index_photos(model_dir, photos, index).broken}
        assert found == {"broken.jpg": NOT_WHOLE, "new.png": "can't be read (Permission denied)"}
        assert len(PhotoIndex(index)) == 8
    monkeypatch.undo()
    manifest = index_photos(model_dir, photos, index)
    assert "new.png" in list(PhotoIndex(index).photos)
    assert [photo.path for photo, _ in manifest.broken] == ["broken.jpg"]


@pytest.mark.slow
def test_stopped_work_goes_on_where_it_was(
    index, model_dir, photos, classes, tmp_path, monkeypatch
):
    write = build_index.write_shard
    written = []

    def stop_after_two(*arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write(*arguments))
        return written[-1]

    monkeypatch.setattr(build_index, "write_shard", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        index_photos(model_dir, photos, tmp_path / "other")
    assert PhotoIndex(tmp_path / "other").manifest.shards == tuple(written)
    monkeypatch.setattr(build_index, "write_shard", write)
    index_photos(model_dir, photos, tmp_path / "other")
    whole, resumed = PhotoIndex(index), PhotoIndex(tmp_path / "other")
    assert whole.photos == resumed.photos
    np.testing.assert_allclose(whole.scores(classes), resumed.scores(classes), atol=1e-5)


def test_a_pooled_head_is_one_region(tmp_path):
    """A model that scores a photo as a whole, linear with a bias."""

    class Pooled(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec((None,), tf.string, name="images"),
                tf.TensorSpec((None, 14), tf.float32, name="class_embeddings"),
            ]
        )
        def serve(self, images, class_embeddings):
            lengths = tf.cast(tf.strings.length(images), tf.float32)[:, None]
            weights = tf.range(14, dtype=tf.float32)[None] * lengths / 1000
            return {"scores": tf.matmul(weights, class_embeddings, transpose_b=True) + 2.5}

    from biam_tf.vocabulary import Vocabulary

    version, photos = tmp_path / "model" / "4", tmp_path / "photos"
    module = Pooled()
    tf.saved_model.save(module, version, signatures={"serving_default": module.serve})
    (version / "assets.extra").mkdir()
    Vocabulary(("dog",), np.eye(14)[:1], ("seen",)).save(version / "assets.extra/vocabulary.npz")
    photos.mkdir()
    (photos / "a.png").write_bytes(b"x" * 1000)
    index_photos(tmp_path / "model", photos, tmp_path / "index")
    found = PhotoIndex(tmp_path / "index")
    assert found.manifest.has_bias and found.manifest.grid == (1, 1)
    np.testing.assert_allclose(found.scores(2 * np.eye(14)[3:5]), [[8.5, 10.5]], rtol=1e-3)


def test_damage_costs_its_own_photos_only(copied, model_dir, classes):
    photos, index = copied
    whole = PhotoIndex(index).scores(classes)
    file = index / PhotoIndex(index).manifest.shards[1].file
    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    found = PhotoIndex(index)
    paths, scores = list(found.photos), found.scores(classes)
    assert found.damaged == {file.name: "wrong checksum"}
    np.testing.assert_array_equal(np.isnan(scores).any(axis=1), [0, 0, 0, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(np.delete(scores, [3, 4], 0), np.delete(whole, [3, 4], 0))
    manifest = index_photos(model_dir, photos, index)
    assert manifest.damaged == ((file.name, "wrong checksum"),) and not file.exists()
    again = PhotoIndex(index)
    rows = [again.photos.index(path) for path in paths]
    # Indexed again in a smaller batch: the last digits differ, and may round otherwise to 16 bits.
    renewed = again.scores(classes)[rows]
    np.testing.assert_allclose(renewed, whole, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(np.delete(renewed, [3, 4], 0), np.delete(whole, [3, 4], 0))
    (index / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"index\.json can't be read"):
        PhotoIndex(index)


def test_a_list_that_is_lost_is_damage_and_one_to_come_is_not(copied, classes):
    _, index = copied
    first = IndexManifest.read(index).shards[0]
    first.list_path.unlink()
    (index / "shard-000099.npy").write_bytes(b"")  # an indexer is writing it
    found = PhotoIndex(index)
    assert found.damaged == {first.file: f"{first.list_path.name} is missing"}
    assert len(found.scores(classes)) == len(found) == 5
    first.path.unlink()
    first.path.mkdir()
    first.remove()  # leaves what is no file of an index
    assert first.path.is_dir()


def test_what_does_not_fit_is_refused(index, model_dir, photos, tmp_path, capsys):
    def refused(*arguments):
        assert index_command.main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    other = tmp_path / "other"
    shutil.copytree(photos, other)
    assert "is of the photos in" in refused(model_dir, other, index)
    (tmp_path / "models").mkdir()
    assert "no version in it; `python -m serving.export`" in refused(
        tmp_path / "models", photos, index
    )
    assert "is no folder of photos" in refused(model_dir, tmp_path / "no", index)
    assert "holds no photo" in refused(model_dir, tmp_path / "models", tmp_path / "x")
    assert "holds no index; name another" in refused(model_dir, photos, other)
    shutil.copytree(model_dir / "1", tmp_path / "models" / "1")
    with open(tmp_path / "models" / "1" / "saved_model.pb", "ab") as file:
        file.write(b"\0")
    assert "was made with another model" in refused(tmp_path / "models", photos, index)


def test_the_commands_from_photos_to_tags(model_dir, photos, tmp_path, capsys):
    index = tmp_path / "index"
    assert index_command.main([str(model_dir), str(photos), str(index)]) == 0
    out = capsys.readouterr().out
    assert "8 photos" in out and f"left out: broken.jpg: {NOT_WHOLE}" in out

    found = PhotoIndex(index)
    names = list(found.vocabulary.names)
    scores = found.scores(found.vocabulary.embeddings)
    assert retag.main([str(index), "--top", "2"]) == 0
    blocks = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    assert [block[0] for block in blocks] == list(found.photos)
    assert blocks[0][1].split("  ")[-1] == names[int(scores[0].argmax())]
    assert [len(block) for block in blocks] == [3] * 8

    name, tags = names[7], tmp_path / "tags.json"
    options = ["--classes", name, "--search", "--top", "100", "--output", str(tags)]
    assert retag.main([str(index), *options]) == 0
    (entry,) = json.loads(tags.read_text())
    assert entry["class"] == name
    order = [photo["photo"] for photo in entry["photos"]]
    assert order == [found.photos[row] for row in np.argsort(-scores[:, 7], kind="stable")]

    threshold = float(np.median(scores))
    options = ["--threshold", str(threshold), "--top", "100", "--output", str(tmp_path / "t.csv")]
    assert retag.main([str(index), *options]) == 0
    with open(tmp_path / "t.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (scores >= threshold).sum()


def test_new_classes_take_word_vectors(index, tmp_path, capsys):
    words = tmp_path / "words.txt"
    rng = np.random.default_rng(0)
    rows = [" ".join([word, *map(str, rng.normal(size=14))]) for word in ("zebra", "sky")]
    words.write_text("\n".join(rows) + "\n")
    found = PhotoIndex(index)
    own = found.vocabulary.names[3]
    embeddings = found.embed(["zebra sky", own], words)
    np.testing.assert_array_equal(embeddings[1], found.vocabulary.embeddings[3])
    assert (
        retag.main([str(index), "--classes", f"zebra sky, {own}", "--word-vectors", str(words)])
        == 0
    )
    assert "zebra sky" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "red plain stra"], "(nearest: 'red plain star'"),
        (["--top", "0"], "--top 0: use at least 1"),
        (["--output", "tags.xls"], "end the name with .csv or .json"),
        (["--output", "no/such/tags.csv"], "tags.csv: cannot be written (No such file"),
        (["--classes", "zebra", "--word-vectors", "no.txt"], "no.txt: there is no such file"),
    ],
)
def test_retag_names_what_is_wrong(index, capsys, options, message):
    assert retag.main([str(index), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_folder_that_is_no_index(tmp_path, capsys):
    assert retag.main([str(tmp_path)]) == 2
    assert "holds no index; make one with" in capsys.readouterr().err
