import dataclasses

import numpy as np
import pytest

from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary
from training.data.data_manifest import DataManifest, describe_data, hash_of_split
from training.data.dataset import Split, TaggingDataset
from training.data.input.broken_photos import BrokenPhoto

pytestmark = pytest.mark.unit

NAMES, GROUPS = ("cat", "zebra", "dog"), ("seen", "unseen", "seen")


def make_dataset(directory, order=(0, 1, 2), classes=(0, 1, 2), label=1):
    for number in range(3):
        path = directory / f"{number}.jpg"
        if not path.exists():
            path.write_bytes(bytes(10 + number))
    labels = np.array([[1, -1, -1], [-1, label, -1], [0, -1, 1]], np.int8)
    labels = labels[np.ix_(order, classes)]
    return TaggingDataset(
        directory,
        tuple(NAMES[c] for c in classes),
        tuple(GROUPS[c] for c in classes),
        {"test": Split(tuple(f"{number}.jpg" for number in order), labels)},
    )


def describe(dataset, seed=0, **settings):
    rows = np.random.default_rng(seed).normal(size=(3, 4))
    vocabulary = Vocabulary(NAMES, rows, GROUPS).subset(dataset.names)
    return describe_data("folder", dataset, vocabulary, **settings)


@pytest.fixture
def one(tmp_path):
    return make_dataset(tmp_path)


def test_where_it_lies_and_the_order_of_rows_and_classes_do_not_count(one, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = make_dataset(elsewhere, order=(2, 0, 1), classes=(2, 0, 1))
    a, b = describe(one), describe(other)
    assert a.hash == b.hash and a.differences(b) == [] and a.embeddings == b.embeddings
    assert a.fingerprint != b.fingerprint
    assert a.split_hash("test") == hash_of_split(other, "test") and len(a.hash) == 16


def test_what_differs_is_told(one, tmp_path):
    manifest = describe(one)
    fewer = dataclasses.replace(
        one, splits={"test": Split(("0.jpg",), one.splits["test"].labels[:1])}
    )
    assert manifest.differences(describe(fewer)) == ["split test: other photos (3 and 1)"]
    relabeled = describe(make_dataset(tmp_path, label=0))
    assert manifest.differences(relabeled) == ["split test: other labels of the same photos"]
    regrouped = dataclasses.replace(one, groups=("seen",) * 3)
    assert manifest.differences(describe(regrouped)) == [
        "other seen and unseen groups of the same classes"
    ]
    renamed = dataclasses.replace(one, splits={"val": one.splits["test"]})
    assert len(manifest.differences(describe(renamed))) == 2
    (tmp_path / "1.jpg").write_bytes(bytes(12))
    resized = describe(one)
    assert manifest.differences(resized) == [
        "split test: photos of the same names, but other sizes in bytes"
    ]
    hashes = [m.hash for m in (manifest, describe(fewer), relabeled, resized)]
    assert len(set(hashes)) == 4


def test_contents_count_where_both_have_read_them(one, tmp_path):
    before, unread = describe(one, hash_photos=True), describe(one)
    (tmp_path / "1.jpg").write_bytes(b"x" * 11)  # as many bytes, but others
    after = describe(one, hash_photos=True)
    assert before.differences(after) == ["split test: photos of the same names, but other contents"]
    assert unread.differences(after) == [] and before.hash == after.hash == unread.hash
    (tmp_path / "1.jpg").unlink()
    assert describe(one).differences(after)  # a photo that lies elsewhere has no size
    with pytest.raises(UserError, match=r"data.hash_photos: .*1.jpg cannot be read"):
        describe(one, hash_photos=True)


def test_other_embeddings_are_noted_but_no_other_data(one):
    a, b = describe(one), describe(one, seed=1)
    assert a.embeddings != b.embeddings and a.hash == b.hash and not a.differences(b)


def test_a_manifest_is_read_as_it_was_written(one, tmp_path):
    manifest = describe(one, excluded=(BrokenPhoto("9.jpg", "no such file"),), hash_photos=True)
    path = tmp_path / "data_manifest.json"
    path.write_text(manifest.to_json())
    assert DataManifest.read(path) == manifest
    assert f'"hash": "{manifest.hash}"' in path.read_text()
    for text, problem in (
        (manifest.to_json().replace('"format": 1', '"format": 2'), "format 2, but this version"),
        ("{}", "not the data manifest of a run"),
        ("no JSON", "not the data manifest of a run"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=problem):
            DataManifest.read(path)
