import collections
import shutil

import numpy as np
import pytest
from miniatures import (
    CLASS_NAMES,
    OPEN_IMAGES_PHOTOS,
    OTHER,
    TRAINABLE,
    open_images_id,
    open_images_rows,
    write_open_images,
)

from biam_tf.errors import UserError
from training.config import DataConfig
from training.data.open_images import label_rows, layout, reader
from training.data.open_images.label_rows import read_label_rows
from training.data.open_images.layout import find_photos
from training.data.open_images.reader import most_frequent_unseen, read_open_images
from training.data.problems import Problems
from training.data.registry import load_dataset

pytestmark = pytest.mark.unit

HUMAN_TEST = "test-annotations-human-imagelabels.csv"
HUMAN_TRAIN = "train-annotations-human-imagelabels.csv"


@pytest.fixture(scope="module")
def open_images(tmp_path_factory):
    """A complete miniature; not to be changed."""
    return write_open_images(tmp_path_factory.mktemp("open"))


@pytest.fixture
def copy(open_images, tmp_path):
    """A miniature to break."""
    return shutil.copytree(open_images, tmp_path / "open-images")


@pytest.fixture(scope="module")
def dataset(open_images):
    return read_open_images(open_images)


def append(path, *rows):
    path.write_text(path.read_text() + "".join(f"{row}\n" for row in rows))


class TestClasses:
    def test_trainable_ones_are_seen_and_the_others_of_the_test_labels_unseen(self, dataset):
        # "Drum" is the name of two classes; the last of OTHER does not occur among test labels.
        assert dataset.names == (
            "Tree",
            "Drum (/m/0aaa2)",
            "Sea bird",
            "Tulip",
            "Sailboat",
            "Cheese",
            "Fauna",
            "Drum (/m/0bbb2)",
            "Exercise",
        )
        assert dataset.groups == ("seen",) * 6 + ("unseen",) * 3

    def test_unseen_ones_are_the_most_frequent_of_the_test_labels(self, open_images):
        counts = collections.Counter(row[2] for row in open_images_rows("test") if row[3] == "1")
        expected = [label for label, _ in counts.most_common() if label in OTHER]
        classes = layout.read_classes(open_images, Problems(open_images))
        frequencies = np.array([counts[label.decode()] for label in classes.ids])
        unseen, candidates = most_frequent_unseen(frequencies, classes, count=2)
        assert candidates == 3
        assert [classes.ids[at].decode() for at in unseen] == expected[:2]

    def test_of_equally_frequent_ones_the_first_by_id_is_unseen(self, open_images):
        classes = layout.read_classes(open_images, Problems(open_images))
        unseen, _ = most_frequent_unseen(np.ones(len(classes.ids), int), classes, count=3)
        assert [classes.ids[at].decode() for at in unseen] == ["/g/0bbb4", "/m/0bbb1", "/m/0bbb2"]

    def test_do_not_depend_on_the_photos_that_are_there(self, copy, dataset):
        shutil.rmtree(copy / "test")
        shutil.rmtree(copy / "validation")
        assert read_open_images(copy).names == dataset.names

    def test_absent_labels_do_not_make_a_class_frequent(self, copy):
        rows = [f"{open_images_id('test', n)},verification,{OTHER[3]},0" for n in range(9)]
        append(copy / HUMAN_TEST, *rows)
        assert "Stall" not in read_open_images(copy).names

    def test_of_the_released_code_are_400(self, copy):
        released = layout.RELEASED_UNSEEN.read_text().split()
        assert len(released) == len(set(released)) == 400
        append(copy / "class-descriptions.csv", f"{released[0]},Cod", f"{released[7]},Caravel")
        own = read_open_images(copy, unseen_classes="released")
        assert own.names[6:] == ("Cod", "Caravel")
        assert "the released code's (398 of them not in these files)" in own.about.remarks[0]
        assert own.names[1] == "Drum"  # the other one is not among these classes


class TestLabels:
    def test_are_present_absent_or_unknown(self, dataset):
        columns = {label: column for column, label in enumerate((*TRAINABLE, *OTHER[:3]))}
        for split, official in (("train", "train"), ("val", "validation"), ("test", "test")):
            numbers = {f"{official}/{open_images_id(official, n)}.jpg": n for n in range(24)}
            expected = np.zeros((OPEN_IMAGES_PHOTOS[official], 9), np.int8)
            for photo, _, label, value in open_images_rows(official):
                row = numbers[f"{official}/{photo}.jpg"]
                expected[row, columns[label]] = 1 if value == "1" else -1
            own = dataset.split(split)
            rows = [numbers[image] for image in own.images]
            np.testing.assert_array_equal(own.labels, expected[rows])
            assert (expected == 0).any() and (expected == -1).any()
            assert len(rows) == len(expected)

    def test_of_two_for_one_photo_and_class_the_last_counts(self, copy):
        photo = open_images_id("train", 5)
        for value in ("0", "1", "0"):
            row = f"{photo},verification,{TRAINABLE[2]},{value}"
            append(copy / HUMAN_TRAIN, row)
            own = read_open_images(copy).split("train")
            label = own.labels[own.images.index(f"train/{photo}.jpg"), 2]
            assert label == (1 if value == "1" else -1)

    def test_of_the_machine_count_from_a_confidence_on_where_nobody_checked(self, copy):
        path = copy / "train-annotations-machine-imagelabels.csv"
        checked = {(row[0], row[2]) for row in open_images_rows("train")}
        pairs = [(open_images_id("train", n), label) for n in range(24) for label in TRAINABLE]
        free = next(pair for pair in pairs if pair not in checked)
        absent = next(row for row in open_images_rows("train") if row[3] == "0")
        append(path, f"{free[0]},machine,{free[1]},0.7", f"{absent[0]},machine,{absent[2]},0.9")

        def label(pair, **settings):
            own = read_open_images(copy, **settings).split("train")
            return own.labels[own.images.index(f"train/{pair[0]}.jpg"), TRAINABLE.index(pair[1])]

        assert label(free) == 0
        assert label(free, machine_confidence=0.7) == 1
        assert label(free, machine_confidence=0.8) == 0
        assert label((absent[0], absent[2]), machine_confidence=0.5) == -1

    def test_that_would_not_fit_into_the_memory_are_refused(self, open_images, monkeypatch):
        monkeypatch.setattr("training.machine.total_memory", lambda: 700)
        with pytest.raises(UserError, match=r"42 photos and 9 classes take .* use fewer photos"):
            read_open_images(open_images)


class TestPhotos:
    def test_a_part_of_them_is_said_to_be_one(self, tmp_path, dataset):
        left_out = {("train", 3), ("train", 4), ("test", 0)}
        own = read_open_images(write_open_images(tmp_path, left_out))
        assert (
            own.about.partial == "missing: 2 of 24 listed train photos, 1 of 10 listed test photos"
        )
        for split, count in (("train", 22), ("val", 8), ("test", 9)):
            assert len(own.split(split)) == count
        place = [dataset.split("train").images.index(i) for i in own.split("train").images]
        expected = dataset.split("train").labels[place]
        np.testing.assert_array_equal(own.split("train").labels, expected)

    def test_a_whole_data_set_is_not_called_partial(self, dataset):
        assert dataset.about.partial is None
        assert dataset.about.headline == "weighted_mAP" and dataset.about.ks == (3, 5, 10, 20)

    def test_may_lie_in_any_folder_and_the_first_path_counts(self, tmp_path):
        for path in ("b/00000000000000aa.jpg", "a/00000000000000aa.JPG", "0000000000000001.png",
                     "c/notes.txt", "c/00000000000000zz.jpg"):  # fmt: skip
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).touch()
        numbers, paths = find_photos(tmp_path)
        assert numbers.tolist() == [1, 0xAA]
        assert paths.tolist() == ["0000000000000001.png", "a/00000000000000aa.JPG"]

    def test_none_at_all_is_an_error(self, copy):
        for split in OPEN_IMAGES_PHOTOS:
            shutil.rmtree(copy / split)
        with pytest.raises(
            UserError, match="no listed photo was found; move or link the folders train"
        ):
            read_open_images(copy)
        own = read_open_images(copy, look_for_photos=False)
        assert own.split("val").images[0] == f"validation/{open_images_id('validation', 0)}.jpg"
        assert len(own.split("train")) == 24

    def test_a_list_of_photos_counts_those_without_a_label_as_well(self, copy):
        ids = [open_images_id("test", number) for number in range(12)]
        lines = [f'{number},test,http://x,"A title, with ""quotes"""' for number in ids]
        path = copy / "test-images-with-rotation.csv"
        path.write_text("ImageID,Subset,OriginalURL,Title\n" + "\n".join(lines) + "\n")
        own = read_open_images(copy)
        assert own.about.partial == "missing: 2 of 12 listed test photos"
        path.write_text("ImageID,Subset,OriginalURL,Title\n" + "\n".join(lines[1:]) + "\n")
        with pytest.raises(UserError, match=rf"{HUMAN_TEST} row 2: photo {ids[0]} is not in test-"):
            read_open_images(copy)


class TestFiles:
    def test_may_lie_in_folders_of_their_own(self, copy, dataset):
        for folder in ("2018_04/train", "annotations"):
            (copy / folder).mkdir(parents=True)
        (copy / HUMAN_TRAIN).rename(copy / "2018_04/train" / HUMAN_TRAIN)
        (copy / HUMAN_TEST).rename(copy / "annotations" / HUMAN_TEST)
        (copy / "validation-annotations-human-imagelabels.csv").rename(
            copy / "validation" / "validation-annotations-human-imagelabels.csv"
        )
        assert read_open_images(copy).fingerprint == dataset.fingerprint

    @pytest.mark.parametrize("chunk", [100, 333, 1 << 20])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_are_read_the_same_in_blocks_of_any_size(self, copy, dataset, monkeypatch, chunk, end):
        monkeypatch.setattr(label_rows, "CHUNK_BYTES", chunk)
        path = copy / HUMAN_TRAIN
        path.write_text(path.read_text(), newline=end)
        assert read_open_images(copy).fingerprint == dataset.fingerprint

    def test_rows_are_decoded_as_they_stand(self, tmp_path):
        path = tmp_path / "labels.csv"
        path.write_text(
            "ImageID,Source,LabelName,Confidence\n"
            "ffffffffffffffff,machine,/m/0100nhbf,0.5\n"
            "\n"
            "000060e3121c7305,verification,/m/06ht1,1"
        )
        problems = Problems(tmp_path)
        blocks = list(read_label_rows(path, problems))
        problems.raise_if_any()
        photos = [number for block in blocks for number in block.photos.tolist()]
        assert photos == [2**64 - 1, 0x60E3121C7305]
        classes = [label for block in blocks for label in block.classes.tolist()]
        assert classes == [b"/m/0100nhbf", b"/m/06ht1"]
        assert [v for block in blocks for v in block.confidences.tolist()] == [0.5, 1]
        assert [v for block in blocks for v in block.rows.tolist()] == [2, 4]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("000060e3121c7305,verification,/m/0aaa1", "expected 4 fields, got '000060e3121c7305"),
            ("000060e3121c7305,verification,/m/0aaa1,1,1", "expected 4 fields, got"),
            ("60e3121c7305,verification,/m/0aaa1,1", "'60e3121c7305' is not a photo id"),
            ("000060e3121c730X,verification,/m/0aaa1,1", "'000060e3121c730X' is not a photo id"),
            ("000060e3121c7305,verification,/m/0zzz,1", "class '/m/0zzz' is not in class-desc"),
            ("000060e3121c7305,verification,/m/0aaa1,yes", "confidence 'yes' is not a number"),
            ("000060e3121c7305,verification,/m/0aaa1,", "confidence '' is not a number"),
            (
                "000060e3121c7305,machine,/m/0aaa1,0.7",
                "confidence 0.7; a human-verified label has 0 or 1",
            ),
        ],
    )
    def test_that_are_broken_are_named_with_their_row(self, copy, row, message):
        path = copy / HUMAN_TRAIN
        append(path, row)
        number = len(path.read_text().splitlines())
        with pytest.raises(UserError) as error:
            read_open_images(copy)
        assert str(error.value).startswith(f"{copy}: 1 problem\n  {HUMAN_TRAIN} row {number}: ")
        assert message in str(error.value)

    def test_that_are_cut_short_are_named(self, copy):
        path = copy / HUMAN_TRAIN
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(UserError, match=rf"{HUMAN_TRAIN} row \d+: expected 4 fields"):
            read_open_images(copy)

    def test_of_another_kind_are_named(self, copy):
        (copy / HUMAN_TRAIN).write_text("image,label\n")
        with pytest.raises(UserError, match="row 1: expected ImageID,Source,LabelName,Confidence"):
            read_open_images(copy)
        append(copy / "classes-trainable.txt", "/m/0zzz", TRAINABLE[0])
        with pytest.raises(UserError) as error:
            read_open_images(copy)
        assert "classes-trainable.txt row 7: class '/m/0zzz' is not in" in str(error.value)
        assert "classes-trainable.txt row 8: class '/m/0aaa1' is repeated" in str(error.value)

    def test_that_are_missing_are_named(self, copy):
        (copy / HUMAN_TEST).unlink()
        with pytest.raises(
            UserError, match="the unseen classes are the most frequent in this file"
        ):
            read_open_images(copy)
        (copy / "classes-trainable.txt").unlink()
        with pytest.raises(UserError, match=r"classes-trainable.txt: not found; get it from"):
            read_open_images(copy)

    def test_differences_from_the_documentation_are_told(self, dataset):
        told = dataset.about.remarks[-1]
        assert told.startswith("differs from the documentation of v4, in brackets: 6 trainable")
        rows = len(open_images_rows("test"))
        assert f"{rows} test labels (1,667,399)" in told


def test_is_read_by_its_name_in_a_configuration(open_images, dataset):
    calls = []
    config = DataConfig("open_images", str(open_images))
    own = load_dataset(config, progress=lambda *call: calls.append(call))
    assert own.fingerprint == dataset.fingerprint
    total = sum(
        (open_images / layout.human_labels(split)).stat().st_size
        for split in ("train", "val", "test")
    )
    assert calls[-1] == (total, total)
    with pytest.raises(UserError, match=r"data\.directory: not set; Open Images needs"):
        load_dataset(DataConfig("open_images"))


def test_names_of_all_classes_stay_distinct():
    assert len(CLASS_NAMES) - len(set(CLASS_NAMES)) == 1
    classes = reader.ClassLists(
        np.array([b"/m/1", b"/m/2", b"/m/3"]), ("A", "B", "A"), np.arange(2)
    )
    assert classes.distinct_names(np.array([0, 1])) == ("A", "B")
    assert classes.distinct_names(np.array([0, 2, 1])) == ("A (/m/1)", "A (/m/3)", "B")
