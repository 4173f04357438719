import pathlib
import shutil

import miniatures
import numpy as np
import pytest
from miniatures import CONCEPTS, TAGS, nus_labels, nus_name, nus_photo_id, write_nus_wide

from biam_tf.errors import UserError
from training.config import DataConfig
from training.data.nus_wide import layout, photos
from training.data.nus_wide.layout import Lists
from training.data.nus_wide.photos import find_photos
from training.data.nus_wide.reader import NusWideSettings, read_nus_wide
from training.data.nus_wide.remarks import word_list_remarks
from training.data.registry import load_dataset

pytestmark = pytest.mark.unit

WORDS = pathlib.Path(__file__).parent / "words"
TRAIN = [row for row in range(30) if row % 3 != 2]
ROWS = {"train": TRAIN[:16], "val": TRAIN[16:], "test": [row for row in range(30) if row % 3 == 2]}


@pytest.fixture(scope="module")
def nus_wide(tmp_path_factory):
    """A complete miniature; not to be changed."""
    return write_nus_wide(tmp_path_factory.mktemp("nus"))


@pytest.fixture
def copy(nus_wide, tmp_path):
    """A miniature to break."""
    return shutil.copytree(nus_wide, tmp_path / "nus-wide")


def remark(dataset, beginning):
    found = [line for line in dataset.about.remarks if line.startswith(beginning)]
    assert len(found) == 1, dataset.about.remarks
    return found[0]


class TestClasses:
    def test_the_official_lists_give_925_seen_classes_and_81_unseen_ones(self):
        tags, concepts = (
            tuple((WORDS / name).read_text().split())
            for name in ("TagList1k.txt", "Concepts81.txt")
        )
        lists = Lists((), np.empty(0), np.empty(0), concepts, tags)
        assert (len(tags), len(concepts), lists.is_concept.sum()) == (1000, 81, 75)
        assert len(set(tags) - set(concepts)) == 925
        only = {"computer", "fire", "map", "swimmers", "tattoo", "whales"}
        assert set(concepts) - set(tags) == only

    def test_tags_that_are_concepts_are_not_seen(self, nus_wide):
        dataset = read_nus_wide(nus_wide)
        seen = ("nature", "blue", "red", "boat", "light", "art", "beach", "macro")
        assert dataset.names == (*seen, *CONCEPTS)
        assert dataset.groups == ("seen",) * 8 + ("unseen",) * 6
        assert remark(dataset, "classes:") == (
            "classes: 12 tags - 4 that are concepts = 8 seen; 6 concepts unseen"
        )

    def test_in_standard_81_the_concepts_are_seen_and_tags_are_not_looked_for(self, copy):
        shutil.rmtree(copy / "NUS_WID_Tags")
        dataset = read_nus_wide(copy, "standard_81")
        assert dataset.names == CONCEPTS and set(dataset.groups) == {"seen"}

    def test_other_lists_of_classes_than_the_official_ones_are_told(self, nus_wide, copy):
        assert "differs from the list" in remark(read_nus_wide(nus_wide), "ConceptsList/")
        for folder, name in (("ConceptsList", "Concepts81.txt"), ("NUS_WID_Tags", "TagList1k.txt")):
            shutil.copy(WORDS / name, copy / folder / name)
        assert layout.find(copy, layout.TAGS).stat().st_size == 8121
        assert word_list_remarks(copy) == []


class TestLabels:
    def test_are_those_of_the_files(self, nus_wide):
        tags, concepts = nus_labels()
        seen = [column for column, tag in enumerate(TAGS) if tag not in CONCEPTS]
        expected = 2 * np.concatenate([tags[:, seen], concepts], axis=1) - 1
        dataset = read_nus_wide(nus_wide)
        for name, rows in ROWS.items():
            np.testing.assert_array_equal(dataset.split(name).labels, expected[rows])
            own = tuple(f"Flickr/{nus_name(row)}" for row in rows)
            assert dataset.split(name).images == own
            assert dataset.split(name).labels.dtype == np.int8

    def test_the_last_fifth_of_the_training_list_is_for_validation(self, nus_wide):
        dataset = read_nus_wide(nus_wide)
        assert {name: len(split) for name, split in dataset.splits.items()} == {
            "train": 16,
            "val": 4,
            "test": 10,
        }
        assert int(layout.TRAINED_SHARE * 161_789) == 129_431  # the released code's log

    @pytest.mark.parametrize("configuration", ["zero_shot", "standard_81"])
    def test_photos_without_a_label_are_kept_as_the_files_say(self, nus_wide, configuration):
        labels = read_nus_wide(nus_wide, configuration).split("train").labels
        assert (labels[2] == -1).all()  # row 3 of the list of all photos

    def test_photos_without_a_label_can_be_unknown(self, nus_wide):
        dataset = read_nus_wide(nus_wide, unlabelled="unknown")
        labels = dataset.split("train").labels
        assert (labels[2] == 0).all()
        for group in (dataset.seen, dataset.unseen):
            shows = (labels[:, group] > 0).any(axis=1)
            assert (labels[shows][:, group] != 0).all()
            assert (labels[~shows][:, group] == 0).all()

    def test_photos_without_a_label_can_be_dropped(self, nus_wide):
        dataset = read_nus_wide(nus_wide, unlabelled="drop")
        whole = read_nus_wide(nus_wide)
        assert sum(map(len, dataset.splits.values())) == 28
        without = set(whole.images) - set(dataset.images)
        assert without == {f"Flickr/{nus_name(row)}" for row in (3, 25)}
        for name, split in dataset.splits.items():
            place = [whole.split(name).images.index(image) for image in split.images]
            np.testing.assert_array_equal(split.labels, whole.split(name).labels[place])

    def test_both_numbers_are_told(self, nus_wide):
        tags, concepts = nus_labels()
        seen = [column for column, tag in enumerate(TAGS) if tag not in CONCEPTS]
        no_tag, no_concept = (~tags[:, seen].any(axis=1)).sum(), (~concepts.any(axis=1)).sum()
        told = remark(read_nus_wide(nus_wide, unlabelled="drop"), "without a label:")
        assert told == (
            f"without a label: {no_tag} of 30 photos show no seen tag, {no_concept} no concept, "
            "2 neither: the 2 are left out, 28 remain (data.unlabelled: drop)"
        )

    def test_the_two_sets_of_label_files_are_compared(self, nus_wide, copy):
        assert not any(
            "differs from Groundtruth" in r for r in read_nus_wide(nus_wide).about.remarks
        )
        path = copy / "Groundtruth/TrainTestLabels/Labels_sky_Train.txt"
        rows = path.read_text().split()
        rows[4] = "-1130179"
        path.write_text("\n".join(rows) + "\n")
        told = remark(read_nus_wide(copy), "Groundtruth/TrainTestLabels differs")
        assert "Labels_sky_Train.txt row 5 is -1130179" in told


NAMES_IN_CIRCULATION = {
    "the archive's": nus_name,
    "one folder": lambda row: nus_name(row).split("/")[1],
    "folder in the name": lambda row: nus_name(row).replace("/", "_"),
    "number alone": lambda row: f"{nus_photo_id(row)}.jpg",
    "number and size": lambda row: f"{nus_photo_id(row)}_m.jpg",
    "with secret": lambda row: f"{nus_photo_id(row)}_1f0d6e2a{row:02x}_m.jpg",
    "secret of digits": lambda row: f"{nus_photo_id(row)}_12345678{row:02d}.jpg",
    "running number": lambda row: f"{98796 + row}_{nus_photo_id(row)}_f86eb60c{row:02x}_m.jpg",
    "concept's folder": lambda row: f"{CONCEPTS[row % 6]}/{nus_photo_id(row)}.JPG",
}


class TestPhotos:
    @pytest.mark.parametrize("form", NAMES_IN_CIRCULATION)
    def test_are_found_under_every_name_in_circulation(self, tmp_path, nus_wide, form):
        name_of = NAMES_IN_CIRCULATION[form]
        write_nus_wide(tmp_path, name_of, photos="images/240px")
        dataset = read_nus_wide(tmp_path)
        for name, rows in ROWS.items():
            images = tuple(f"images/240px/{name_of(row)}" for row in rows)
            assert dataset.split(name).images == images
        assert dataset.about.missing == () and dataset.about.partial is None

    def test_that_are_missing_are_counted_listed_and_left_out(self, tmp_path, nus_wide):
        write_nus_wide(tmp_path, left_out=(0, 14))
        dataset = read_nus_wide(tmp_path)
        assert dataset.about.missing == (nus_name(0), nus_name(14))
        assert dataset.about.partial == "2 of 30 listed photos are missing"
        assert "30 listed, 28 found, 2 missing and left out" in remark(dataset, "photos:")
        # The cut between training and validation stays where it is.
        whole = read_nus_wide(nus_wide)
        assert dataset.split("val").images == whole.split("val").images
        assert dataset.split("train").images == whole.split("train").images[1:]
        np.testing.assert_array_equal(
            dataset.split("train").labels, whole.split("train").labels[1:]
        )
        left = [image for image in whole.split("test").images if nus_name(14) not in image]
        assert dataset.split("test").images == tuple(left)

    def test_empty_files_are_missing_photos(self, copy):
        (copy / "Flickr" / nus_name(1)).write_bytes(b"")
        dataset = read_nus_wide(copy)
        assert dataset.about.missing == (nus_name(1),)
        assert "1 empty files skipped" in remark(dataset, "photos:")

    def test_flickrs_picture_for_removed_photos_is_no_photo(self, copy, monkeypatch):
        monkeypatch.setattr(photos, "PLACEHOLDER_COPIES", 3)
        for row in (4, 7, 8):
            (copy / "Flickr" / nus_name(row)).write_bytes(b"this photo is no longer available")
        dataset = read_nus_wide(copy)
        assert dataset.about.missing == tuple(map(nus_name, (4, 7, 8)))
        assert "3 files are Flickr's placeholder" in remark(dataset, "photos:")

    def test_a_photo_listed_twice_is_two_files_or_one(self, tmp_path):
        listed = ["actor/0001_77.jpg", "zebra/0009_77.jpg"]
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "77.jpg").write_bytes(b"1")
        assert find_photos(tmp_path, listed).paths == ("a/77.jpg", "a/77.jpg")
        (tmp_path / "a" / "0009_77.jpg").write_bytes(b"2")
        found = find_photos(tmp_path, listed)
        assert found.paths == ("a/77.jpg", "a/0009_77.jpg") and found.several == 1

    def test_none_at_all_is_an_error(self, copy):
        shutil.rmtree(copy / "Flickr")
        with pytest.raises(UserError, match="none of the 30 listed photos was found"):
            read_nus_wide(copy)

    def test_may_be_linked_and_links_may_go_round(self, copy, tmp_path, nus_wide):
        (copy / "Flickr").rename(tmp_path / "elsewhere")
        (copy / "Flickr").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "round").symlink_to(copy)
        assert read_nus_wide(copy).fingerprint == read_nus_wide(nus_wide).fingerprint

    def test_need_not_be_looked_for(self, copy):
        shutil.rmtree(copy / "Flickr")
        dataset = read_nus_wide(copy, look_for_photos=False)
        assert dataset.split("train").images[0] == nus_name(0)


class TestFiles:
    def test_upper_and_lower_case_and_the_outer_folder_may_differ(self, nus_wide, copy):
        (copy / "ImageList" / "Imagelist.txt").rename(copy / "ImageList" / "ImageList.txt")
        (copy / "Groundtruth" / "AllLabels").rename(copy / "AllLabels")
        assert read_nus_wide(copy).fingerprint == read_nus_wide(nus_wide).fingerprint

    def test_a_path_may_lead_to_the_name(self, copy):
        path = copy / "ImageList" / "Imagelist.txt"
        path.write_text(path.read_text().replace("actor\\", "C:\\ImageData\\Flickr\\actor\\"))
        assert len(read_nus_wide(copy).split("train")) == 16

    def broken(self, folder, name, change):
        path = folder / name
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{line}\n" for line in change(lines)))
        with pytest.raises(UserError) as error:
            read_nus_wide(folder)
        assert str(folder) in str(error.value)
        return str(error.value)

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            (
                "Groundtruth/AllLabels/Labels_sky.txt",
                lambda lines: lines[:-4],
                "Labels_sky.txt row 27: the file ends after 26 rows; ImageList/Imagelist.txt "
                "lists 30: is it truncated?",
            ),
            (
                "Groundtruth/AllLabels/Labels_sky.txt",
                lambda lines: [*lines, "0"],
                "Labels_sky.txt row 31: 31 rows, but ImageList/Imagelist.txt lists 30",
            ),
            (
                "Groundtruth/AllLabels/Labels_sky.txt",
                lambda lines: [*lines[:7], "7", *lines[8:]],
                "Labels_sky.txt row 8: value 1 is '7'; expected 0 or 1",
            ),
            (
                "NUS_WID_Tags/AllTags1k.txt",
                lambda lines: [*lines[:9], lines[9][:11], *lines[10:]],
                "AllTags1k.txt row 10: expected 12 values, got 6",
            ),
            (
                "NUS_WID_Tags/TagList1k.txt",
                lambda lines: lines[:-1],
                "AllTags1k.txt row 1: expected 11 values, got 12",
            ),
            (
                "NUS_WID_Tags/TagList1k.txt",
                lambda lines: [*lines[:-1], "sky"],
                "TagList1k.txt row 12: 'sky' is already in row 2",
            ),
            (
                "ImageList/TrainImagelist.txt",
                lambda lines: lines[:-2],
                "TrainImagelist.txt row 19: 2 photos of ImageList/Imagelist.txt are neither here",
            ),
            (
                "ImageList/TestImagelist.txt",
                lambda lines: ["actor\\0001_99.jpg", *lines[1:]],
                "TestImagelist.txt row 1: photo 'actor\\\\0001_99.jpg' is not in",
            ),
            (
                "ImageList/TestImagelist.txt",
                lambda lines: [*lines, lines[0]],
                "TestImagelist.txt row 11: photo 'actor\\\\0003_2124494014.jpg' is listed twice",
            ),
            ("ImageList/Imagelist.txt", lambda lines: [], "Imagelist.txt: the file is empty"),
            (
                "ConceptsList/Concepts81.txt",
                lambda lines: [*lines, "fire"],
                "Labels_fire.txt: not found, but ConceptsList/Concepts81.txt lists 'fire'",
            ),
        ],
    )
    def test_that_do_not_fit_are_named_with_their_row(self, copy, name, change, message):
        assert message in self.broken(copy, name, change)

    def test_that_are_missing_are_all_named_at_once(self, copy):
        for path in ("ImageList", "ConceptsList"):
            shutil.rmtree(copy / path)
        with pytest.raises(UserError) as error:
            read_nus_wide(copy)
        for name in ("Imagelist.txt", "TrainImagelist.txt", "Concepts81.txt"):
            assert name in str(error.value)
        assert "it is part of ImageList.zip" in str(error.value)

    def test_differences_from_the_documentation_are_told(self, nus_wide):
        told = remark(read_nus_wide(nus_wide), "differs from the documentation")
        assert "30 photos (269,648); 20 training photos (161,789)" in told


def test_is_read_by_its_name_in_a_configuration(nus_wide):
    settings = NusWideSettings(configuration="standard_81", unlabelled="drop")
    config = DataConfig("nus_wide", str(nus_wide), settings=settings)
    calls = []
    dataset = load_dataset(config, progress=lambda *call: calls.append(call))
    same = read_nus_wide(nus_wide, "standard_81", "drop")
    assert dataset.fingerprint == same.fingerprint
    load_dataset(DataConfig("nus_wide", str(nus_wide)), progress=lambda *call: calls.append(call))
    assert calls == [(miniatures.NUS_PHOTOS, miniatures.NUS_PHOTOS)]


def test_needs_its_directory():
    with pytest.raises(UserError, match=r"data\.directory: not set; NUS-WIDE needs"):
        load_dataset(DataConfig("nus_wide"))
    with pytest.raises(UserError, match="no such folder"):
        read_nus_wide("/no/such/folder")
