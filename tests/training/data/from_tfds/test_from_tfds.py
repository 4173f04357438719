"""Data sets of TensorFlow Datasets, on drawn ones with the features of COCO, VOC and LVIS."""

import csv
import json
import pathlib
import typing

import numpy as np
import pytest
import tensorflow_datasets as tfds

from biam_tf.errors import UserError
from training import run
from training.data.from_tfds import builders
from training.data.from_tfds.reader import read_tfds, tfds_directory
from training.data.from_tfds.splits import define_splits, own_split
from training.data.from_tfds.zero_shot import READY_MADE, apply_zero_shot_split

NAMES = ("person", "dog", "traffic light", "cat", "zebra")
COUNTS = {"train": 40, "validation": 8, "test": 6}


class DrawnObjects(tfds.core.GeneratorBasedBuilder):
    """The features of `coco`, `voc` and `lvis` that count here; `test` may have no labels."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: typing.ClassVar = [
        tfds.core.BuilderConfig(name="unlabelled_test"),
        tfds.core.BuilderConfig(name="labelled_test"),
    ]

    def _info(self):
        label = tfds.features.ClassLabel(names=list(NAMES))
        features = {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(
                {
                    "label": label,
                    "bbox": tfds.features.BBoxFeature(),
                    "segmentation": tfds.features.Image(shape=(None, None, 1)),
                }
            ),
            "labels": tfds.features.Sequence(label),
            "neg_category_ids": tfds.features.Sequence(label),
            "main": label,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        rng = np.random.default_rng(COUNTS[split])
        for number in range(COUNTS[split]):
            present = present_in(split, number)
            if split == "test" and self.builder_config.name == "unlabelled_test":
                present = []
            mask = np.zeros((4, 4, 1), np.uint8)
            box = tfds.features.BBox(0.1, 0.1, 0.5, 0.5)
            yield (
                number,
                {
                    "image": rng.integers(0, 256, (48, 48, 3), dtype=np.uint8),
                    "image/filename": f"{number:012d}.png",
                    "objects": [
                        # The same class twice, as in a photo with two of a kind.
                        {"label": label, "bbox": box, "segmentation": mask}
                        for label in present + present[:1]
                    ],
                    "labels": present,
                    "neg_category_ids": [4, *present[:1]],
                    "main": 0,
                },
            )


def present_in(split: str, number: int) -> list[int]:
    return [] if number == 3 else sorted({number % 5, (2 * number + 1) % 4})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Folders of the two prepared configurations."""
    data_dir = tmp_path_factory.mktemp("tfds")
    for config in ("unlabelled_test", "labelled_test"):
        DrawnObjects(data_dir=str(data_dir), config=config).download_and_prepare()
    return {
        config: str(data_dir / "drawn_objects" / config / "1.0.0")
        for config in ("unlabelled_test", "labelled_test")
    }


def labels_by_official_name(dataset) -> dict[str, list[int]]:
    """Numbers of the present classes for `train/000000000007`."""
    found = {}
    for split in dataset.splits.values():
        for image, labels in zip(split.images, split.labels, strict=True):
            path = pathlib.PurePosixPath(image)
            name = f"{path.parent.name}/{path.stem.partition('-')[2]}"
            found[name] = np.flatnonzero(labels > 0).tolist()
    return found


def test_photos_and_labels_are_those_of_the_records(prepared, tmp_path):
    calls = []
    dataset = read_tfds(
        prepared["labelled_test"],
        "objects.label",
        str(tmp_path / "data"),
        progress=lambda *call: calls.append(call),
    )
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 40,
        "val": 8,
        "test": 6,
    }
    assert dataset.names == NAMES and set(dataset.groups) == {"seen"}
    assert labels_by_official_name(dataset) == {
        f"{split}/{number:012d}": present_in(split, number)
        for split, count in COUNTS.items()
        for number in range(count)
    }
    assert set(np.unique(dataset.split("train").labels)) == {-1, 1}
    builder = tfds.builder_from_directory(prepared["labelled_test"])
    records = builder.as_dataset(split="validation", decoders={"image": tfds.decode.SkipDecoding()})
    for example in tfds.as_numpy(records):
        stem = example["image/filename"].decode()
        (path,) = (tmp_path / "data/images/validation").glob(f"*-{stem}")
        assert path.read_bytes() == example["image"]
    assert calls[-1] == (54, 54)
    assert not list(tmp_path.glob(".*"))


def test_validation_becomes_test_where_test_has_no_labels(prepared, tmp_path):
    dataset = read_tfds(prepared["unlabelled_test"], "labels", str(tmp_path / "data"))
    assert all("images/validation/" in image for image in dataset.split("test").images)
    assert len(dataset.split("test")) == 8
    assert len(dataset.split("train")) + len(dataset.split("val")) == 40
    assert 1 <= len(dataset.split("val")) <= 10
    remarks = "\n".join(dataset.about.remarks)
    assert "val = 10% of train, train = 90% of train, test = validation" in remarks
    assert "split test is left out: no photo has a label" in remarks


def test_a_folder_that_is_there_is_used_without_its_records(prepared, tmp_path):
    directory = str(tmp_path / "data")
    first = read_tfds(prepared["labelled_test"], "labels", directory)
    for asked in ("drawn_objects/labelled_test", "drawn_objects/labelled_test:1.0.0"):
        again = read_tfds(asked, "labels", directory)
        assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"builder": "coco/2017"}, "data.builder: drawn_objects/labelled_test:1.0.0, not coco"),
        ({"label_feature": "objects.label"}, "data.label_feature: labels, not objects.label"),
        ({"absent_feature": "neg_category_ids"}, "data.absent_feature: None, not neg_category"),
    ],
)
def test_a_folder_of_something_else_is_refused(prepared, tmp_path, changed, message):
    settings = {"builder": prepared["labelled_test"], "label_feature": "labels"}
    read_tfds(**settings, directory=str(tmp_path / "data"))
    with pytest.raises(UserError, match="was written with " + message):
        read_tfds(**{**settings, **changed}, directory=str(tmp_path / "data"))


def test_a_folder_of_somebody_else_is_left_alone(prepared, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"were not written by data.name: tfds"):
        read_tfds(prepared["labelled_test"], "labels", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_folder_is_written_anew(prepared, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    arguments = (prepared["labelled_test"], "labels", str(tmp_path / "data"))
    with pytest.raises(KeyboardInterrupt):
        read_tfds(*arguments, progress=interrupt)
    assert not (tmp_path / "data").exists()
    assert len(read_tfds(*arguments).split("train")) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_feature_of_absent_classes_leaves_the_others_unknown(prepared, tmp_path):
    dataset = read_tfds(
        prepared["labelled_test"], "objects.label", str(tmp_path / "data"), "neg_category_ids"
    )
    for image, labels in zip(*vars(dataset.split("train")).values(), strict=True):
        present = present_in("train", int(image.partition("-")[2].partition(".")[0]))
        expected = [1 if n in present else -1 if n == 4 else 0 for n in range(5)]
        assert labels.tolist() == expected


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("object.label", "no feature 'object.label'; did you mean 'objects.label'?"),
        ("main", "'main' is not a sequence of class labels; features that are: labels, neg_c"),
        ("objects.bbox", "'objects.bbox' is not a sequence of class labels"),
        ("objects", "'objects' is not a sequence of class labels"),
    ],
)
def test_a_feature_that_is_no_multi_label_is_refused(prepared, tmp_path, feature, message):
    with pytest.raises(UserError) as caught:
        read_tfds(prepared["labelled_test"], feature, str(tmp_path / "data"))
    assert f"data.label_feature: {message}" in str(caught.value)
    assert not (tmp_path / "data").exists()


class TestFindingABuilder:
    def test_an_unknown_one_is_answered_with_the_nearest(self):
        with pytest.raises(UserError, match=r"'cocoo/2017'.*did you mean 'coco'"):
            builders.find_builder("cocoo/2017")

    def test_one_that_is_not_prepared_is_answered_with_the_command(self, tmp_path, monkeypatch):
        make = tfds.builder
        monkeypatch.setattr(tfds, "builder", lambda name: make(name, data_dir=str(tmp_path)))
        with pytest.raises(UserError, match=r"not prepared in .*tfds build voc/2007"):
            builders.find_builder("voc/2007")

    def test_a_folder_without_records_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="not a prepared TensorFlow Datasets data set"):
            builders.find_builder(str(tmp_path))


class TestSplits:
    def test_stay_where_all_three_have_labels(self):
        assert define_splits(["train", "validation", "test"], "x") == {
            "train": [("train", 1.0)],
            "validation": [("val", 1.0)],
            "test": [("test", 1.0)],
        }

    def test_are_shares_of_train_where_nothing_else_has_labels(self):
        parts = define_splits(["train"], "x")["train"]
        own = [own_split(parts, str(number).encode()) for number in range(4000)]
        # Three standard deviations of a binomial: 3 * sqrt(4000 * 0.1 * 0.9) = 57.
        assert abs(own.count("val") - 400) < 57 and abs(own.count("test") - 400) < 57
        assert own.count("train") == 4000 - own.count("val") - own.count("test")

    def test_need_labels_in_train(self):
        with pytest.raises(UserError, match=r"no split 'train' with labels.*validation"):
            define_splits(["validation"], "x")


class TestReadyMadeSplits:
    GROUPS = pathlib.Path(builders.__file__).parent / "class_groups"

    def groups(self, name):
        with (self.GROUPS / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len({row["name"] for row in rows}) == len(rows)  # so the groups are disjoint
        by_group = {"seen": set(), "unseen": set(), "ignored": set()}
        for row in rows:
            by_group[row["group"]].add(row["name"])
        return by_group

    @pytest.mark.parametrize(
        ("name", "seen", "unseen", "ignored"),
        [
            ("coco_48_17", 48, 17, 15),
            ("coco_65_15", 65, 15, 0),
            ("voc_16_4", 16, 4, 0),
            ("lvis_rare", 866, 337, 0),
        ],
    )
    def test_have_the_published_counts(self, name, seen, unseen, ignored):
        groups = self.groups(name)
        assert {group: len(names) for group, names in groups.items()} == {
            "seen": seen,
            "unseen": unseen,
            "ignored": ignored,
        }

    def test_every_one_has_its_source(self):
        assert {path.stem for path in self.GROUPS.iterdir()} == set(READY_MADE)

    def test_those_of_coco_have_the_same_80_names(self):
        every = [set().union(*self.groups(name).values()) for name in ("coco_48_17", "coco_65_15")]
        assert every[0] == every[1] and len(every[0]) == 80

    def test_that_of_voc_has_the_names_of_tensorflow_datasets(self):
        names = tfds.builder_cls("voc")(config="2007").info.features["labels"].feature.names
        assert set().union(*self.groups("voc_16_4").values()) == set(names)

    def test_that_of_lvis_has_the_names_of_tensorflow_datasets(self):
        names = pathlib.Path(tfds.__file__).parent / "datasets/lvis/classes.txt"
        assert set().union(*self.groups("lvis_rare").values()) == set(
            names.read_text().splitlines()
        )


class TestZeroShotSplit:
    def dataset(self, prepared, tmp_path):
        return read_tfds(prepared["labelled_test"], "labels", str(tmp_path / "data"))

    def test_of_a_list_has_those_unseen_and_the_others_seen(self, prepared, tmp_path):
        (tmp_path / "unseen.txt").write_text("zebra\ncat\n")
        dataset = self.dataset(prepared, tmp_path)
        split = apply_zero_shot_split(dataset, str(tmp_path / "unseen.txt"))
        assert split.groups == ("seen", "seen", "seen", "unseen", "unseen")
        assert (split.split("val").labels == dataset.split("val").labels).all()

    def test_of_a_table_leaves_out_what_it_ignores(self, prepared, tmp_path):
        table = "name,group\ncat,unseen\nperson,seen\ndog,ignored\n"
        (tmp_path / "groups.csv").write_text(table)
        dataset = self.dataset(prepared, tmp_path)
        split = apply_zero_shot_split(dataset, str(tmp_path / "groups.csv"))
        assert split.names == ("person", "cat") and split.groups == ("seen", "unseen")
        assert (split.split("test").labels == dataset.split("test").labels[:, [0, 3]]).all()
        assert "1 seen, 1 unseen, 3 left out" in split.about.remarks[-1]

    @pytest.mark.parametrize(
        ("split", "message"),
        [
            ("coco_48_71", "not a file; did you mean 'coco_48_17'"),
            ("coco_48_17", "'bicycle' is not a class of this data set"),
        ],
    )
    def test_of_another_data_set_is_refused(self, prepared, tmp_path, split, message):
        with pytest.raises(UserError, match=message):
            apply_zero_shot_split(self.dataset(prepared, tmp_path), split)

    def test_with_a_misspelt_or_with_every_class_is_refused(self, prepared, tmp_path):
        dataset, path = self.dataset(prepared, tmp_path), tmp_path / "unseen.txt"
        path.write_text("zebr\n")
        with pytest.raises(UserError, match=r"'zebr' is not a class.*did you mean 'zebra'"):
            apply_zero_shot_split(dataset, str(path))
        path = tmp_path / "groups.csv"
        for table, message in (("cat,\ndog,seen", "every row needs"), ("cat,seem", "group 'seem'")):
            path.write_text("name,group\n" + table)
            with pytest.raises(UserError, match=message):
                apply_zero_shot_split(dataset, str(path))
        path = tmp_path / "unseen.txt"
        path.write_text("\n".join(NAMES))
        with pytest.raises(UserError, match="no class is seen"):
            apply_zero_shot_split(dataset, str(path))


def test_the_default_folder_is_named_after_the_builder():
    assert tfds_directory(None, "coco/2017") == pathlib.Path("data/coco-2017")


@pytest.mark.slow
def test_a_run_trains_from_the_name_of_a_builder(prepared, tmp_path, capsys):
    unseen, vectors = tmp_path / "unseen.txt", tmp_path / "vectors.txt"
    unseen.write_text("zebra\n")
    rng = np.random.default_rng(0)
    words = [word for name in NAMES for word in name.split()]
    vectors.write_text("".join(f"{w} {' '.join(map(str, rng.normal(size=8)))}\n" for w in words))
    settings = [
        *("training.epochs=1", "training.batch_size=8", "training.schedule.warmup_epochs=0.1"),
        *("training.tensorboard=false", "head={channels: 8, num_heads: 2, top_k: 3}"),
        "backbone={name: small, image_size: 48, weights: none, trainable: true}",
        f"data={{name: tfds, builder: '{prepared['unlabelled_test']}'}}",
        *("data.label_feature=objects.label", f"data.zero_shot_split={unseen}"),
        *(f"data.directory={tmp_path / 'data'}", f"vocabulary.word_vectors={vectors}"),
        f"output={tmp_path / 'run'}",
    ]
    assert run.main([part for setting in settings for part in ("--set", setting)]) == 0
    assert "4 seen and 1 unseen classes" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["images"], metrics["gzsl"]["classes"]) == (8, 5)
