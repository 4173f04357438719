"""The page of a whole run, read as a browser would."""

import dataclasses
import html.parser
import json
import pathlib
import re
import sys

import numpy as np
import pytest

from biam_tf.runs import load_run
from biam_tf.thresholds import fit_thresholds
from training import evaluate
from training.config import load_config
from training.data.folder.reader import read_folder
from training.data.input.sources import PhotoSource
from training.report import __main__ as report
from training.report import page as page_module
from training.report.page import ReportData, write_report
from training.report.region_features import to_plane
from training.scoring.evaluation import evaluate_split, score_split
from training.scoring.explained_photos import explain_photos
from training.scoring.final_evaluation import with_thresholds, write_figures

SECTIONS = ["figures", "training", "photos", "classes", "labels", "curves", "thresholds"]
SECTIONS += ["regions", "settings"]
SCRIPT = (
    pathlib.Path(page_module.__file__).with_name("page.js").read_text(encoding="utf-8").rstrip()
)
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Elements with their attributes, the text, and whether all is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def attributes(self, *names: str) -> list[str]:
        return [a[name] for _, a in self.elements for name in names if name in a]


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def assert_stands_alone(path) -> None:
    page = read(path)
    for value in page.attributes("src", "href", "srcset", "data", "action", "poster"):
        assert value.startswith(("data:", "#")), value[:80]
    text = path.read_text(encoding="utf-8")
    without_pictures = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", text)
    # One script, the page's own, which loads nothing.
    assert without_pictures.count(f"<script>\n{SCRIPT}</script>") == 1
    without_pictures = without_pictures.replace(f"<script>\n{SCRIPT}</script>", "")
    assert not re.search(r"https?:|fetch|import|XMLHttpRequest", SCRIPT)
    assert not re.search(r"https?:|url\(|@import|<script|<iframe|javascript:", without_pictures)
    targets = {value[1:] for value in page.attributes("href") if value.startswith("#")}
    assert targets <= set(page.attributes("id"))
    for tag, attributes in page.elements:
        if tag in ("img", "svg"):
            assert attributes.get("alt" if tag == "img" else "aria-label"), (tag, attributes)


@pytest.fixture(scope="module")
def page(finished):
    return read(finished.report_page)


def test_a_run_leaves_a_page_that_needs_no_other_file(finished):
    assert_stands_alone(finished.report_page)
    assert (finished.report / "contact_sheet.png").exists()


def test_the_page_has_every_section(page):
    assert [a["id"] for tag, a in page.elements if tag == "section"] == SECTIONS


def test_the_page_says_what_the_metrics_say(page, finished):
    metrics = json.loads(finished.metrics.read_text())
    assert metrics["bootstrap"]["resamples"] == 1000 and "1000 draws" in page.text
    for part in ("zsl", "gzsl", "seen"):
        low, high = metrics["bootstrap"][part]["mAP"]
        assert 0 <= low <= metrics[part]["mAP"] <= high <= 1
        assert (
            f"{100 * metrics[part]['mAP']:.1f}{100 * low:.1f}\N{EN DASH}{100 * high:.1f}"
            in page.text
        )
        for kind in ("micro", "macro", "sample"):
            f1 = metrics["at_threshold"][part][kind]["f1"]
            assert f"{100 * f1:.1f}" in page.text
    assert "fitted to these very photos" not in page.text
    assert "Too few photos show exactly one" in page.text  # of its 8 test photos


def test_the_page_shows_photos_with_tags_maps_and_what_they_miss(page, scenes):
    split = read_folder(scenes).split("test")
    assert sum(tag == "article" for tag, _ in page.elements) == 8
    assert sum(tag == "img" for tag, _ in page.elements) == 8 * (1 + 3)
    for image in split.images:
        assert image in page.text
    verdicts = [a["class"] for _, a in page.elements if a.get("class", "").startswith("mark ")]
    assert {"mark right", "mark wrong"} <= set(verdicts) and "Missed: " in page.text


def test_the_page_has_the_settings_versions_and_curves(page, finished):
    assert "learning_rate: 0.002" in page.text and "tensorflow" in page.text
    labels = page.attributes("aria-label")
    for start in ("Training loss", "Learning rate", "Validation mAP", "Precision over recall"):
        assert any(label.startswith(start) for label in labels)


def test_the_command_writes_the_same_page_again(finished, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in finished.path.rglob("*") if p.is_file()}
    output = tmp_path / "again.html"
    assert report.main([str(finished.path), "--output", str(output)]) == 0
    dated = re.compile(r"<dt>written</dt><dd>.*?</dd>")
    old, new = (p.read_text(encoding="utf-8") for p in (finished.report_page, output))
    assert dated.sub("", old) == dated.sub("", new)
    assert before == {p: p.stat().st_mtime_ns for p in finished.path.rglob("*") if p.is_file()}


def test_the_command_names_what_is_no_run(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def test_evaluate_writes_a_page_without_curves_of_training(finished, scenes, tmp_path):
    pytest.importorskip("sklearn")
    page = tmp_path / "train.html"
    command = [str(finished.path), "--data", str(scenes), "--split", "train"]
    output = tmp_path / "train.json"
    assert evaluate.main([*command, "--output", str(output), "--report", str(page)]) == 0
    assert_stands_alone(page)
    content = read(page)
    ids = [a["id"] for tag, a in content.elements if tag == "section"]
    assert ids == [section for section in SECTIONS if section not in ("training", "labels")]
    # 40 photos are enough for region features in a plane.
    planes = [label for label in content.attributes("aria-label") if "t-SNE" in label]
    assert [label.partition(":")[0] for label in planes] == [
        "Average over all regions",
        "Strongest region",
    ]


class TestOfNamesThatLookLikeMarkup:
    NAME = "<img src=x onerror=\"alert(1)\"> & 'co'"

    @pytest.fixture
    def data(self, finished, scenes) -> ReportData:
        run, dataset = load_run(finished.path), read_folder(scenes)
        names = (*(f"{self.NAME} {c}" for c in range(len(dataset.names))),)
        vocabulary = dataclasses.replace(run.vocabulary, names=names)
        dataset = dataclasses.replace(dataset, names=names)
        split = dataset.split("test")

        def make_source(images):
            return PhotoSource(dataset.directory, images, run.image_size)

        metrics, scores = evaluate_split(run, make_source(split.images), split.labels, vocabulary)
        explained = explain_photos(run.backbone, run.head, dataset, split, vocabulary, 2)
        return ReportData(
            run,
            dataset,
            split,
            vocabulary,
            scores,
            metrics | {"split": "test"},
            explained,
            make_source,
        )

    def test_they_stay_text(self, data, tmp_path):
        write_report(tmp_path / "page.html", data)
        assert_stands_alone(tmp_path / "page.html")
        page = read(tmp_path / "page.html")
        assert self.NAME in page.text
        assert not page.attributes("onerror")

    def test_a_run_without_thresholds_says_so(self, data, tmp_path):
        run = dataclasses.replace(data.run, thresholds=None)
        metrics = data.metrics | {"at_threshold": None}
        write_report(tmp_path / "page.html", dataclasses.replace(data, run=run, metrics=metrics))
        page = read(tmp_path / "page.html")
        assert "This run has no thresholds" in page.text and "micro F1" not in page.text


def test_without_scikit_learn_the_page_says_what_to_install(
    finished, scenes, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    output = tmp_path / "train.html"
    command = [str(finished.path), "--data", str(scenes), "--split", "train"]
    command += ["--output", str(tmp_path / "train.json"), "--report", str(output)]
    assert evaluate.main(command) == 0
    text = read(output).text
    assert "scikit-learn, which is not installed" in text and "biam-tf[report]" in text


class TestOfSplitsThatAreMissing:
    @pytest.fixture
    def parts(self, finished, scenes):
        run, dataset = load_run(finished.path), read_folder(scenes)
        return load_config(finished.config), run, dataset

    @staticmethod
    def without(dataset, name):
        splits = {key: split for key, split in dataset.splits.items() if key != name}
        return dataclasses.replace(dataset, splits=splits)

    def test_without_val_there_are_no_thresholds_and_the_run_says_so(self, parts, capsys):
        config, run, dataset = parts
        run = dataclasses.replace(run, thresholds=None)
        dataset = self.without(dataset, "val")
        assert with_thresholds(config, run, dataset, run.vocabulary, None) is run
        assert "no photo of split val: no thresholds" in capsys.readouterr().out

    def test_labels_of_val_that_allow_none_are_named(self, parts, capsys):
        config, run, dataset = parts
        run = dataclasses.replace(run, thresholds=None)
        val = dataset.split("val")
        empty = dataclasses.replace(val, labels=np.full_like(val.labels, -1))
        dataset = dataclasses.replace(dataset, splits={**dataset.splits, "val": empty})
        assert with_thresholds(config, run, dataset, run.vocabulary, None) is run
        assert "no validation photo shows a seen class" in capsys.readouterr().out

    def test_without_test_the_page_warns_that_thresholds_know_its_photos(self, parts, tmp_path):
        config, run, dataset = parts
        dataset = self.without(dataset, "test")

        def make_source(images):
            return PhotoSource(dataset.directory, images, run.image_size)

        output = tmp_path / "val.html"
        metrics = write_figures(config, run, dataset, run.vocabulary, make_source, output)
        assert metrics["split"] == "val" and metrics["images"] == 4
        assert "fitted to these very photos" in read(output).text


def test_the_plane_keeps_groups_apart_and_the_seed_fixes_it(rng):
    pytest.importorskip("sklearn")
    members = np.repeat([0, 1], 15)
    features = rng.normal(size=(30, 8)) + 8 * members[:, None]
    plane = to_plane(features, seed=0)
    np.testing.assert_array_equal(plane, to_plane(features, seed=0))
    centers = [plane[members == k].mean(axis=0) for k in (0, 1)]
    spread = max(plane[members == k].std() for k in (0, 1))
    assert np.linalg.norm(centers[0] - centers[1]) > 2 * spread


def test_thresholds_travel_with_the_run(finished, scenes):
    trained = load_run(finished.path)
    split = read_folder(scenes).split("val")
    source = PhotoSource(scenes, split.images, trained.image_size)
    scores = score_split(trained, source, trained.vocabulary, "again")
    again = fit_thresholds(
        scores, split.labels, trained.vocabulary.names, trained.vocabulary.groups, seed=0, k=3
    )
    np.testing.assert_array_equal(trained.thresholds.decide(scores), again.decide(scores))
    np.testing.assert_allclose(
        trained.thresholds.probabilities(scores), again.probabilities(scores), rtol=1e-5
    )
