import csv
import json
import shutil

import numpy as np
import pytest
from photo_files import picture
from PIL import Image
from plots import assert_labels_apart

from training.data.dataset import Split, TaggingDataset
from training.describe import main
from training.description.labels import describe_labels
from training.description.outputs import MOST_NAMED, plot_class_frequency
from training.tables.table import Table

pytestmark = pytest.mark.unit

LABELS = {
    "a.jpg": ("train", "cat;dog"),
    "b.jpg": ("train", "zebra;cat"),
    "c.png": ("train", ""),
    "d.jpg": ("val", "dog"),
    "e.jpg": ("test", "zebra"),
    "f.jpg": ("test", "cat;dog"),
    "gone.jpg": ("test", "dog"),
    "cut.jpg": ("train", "dog"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight photos: e is a small copy of b, f the file of a, one is gone and one is cut."""
    path = tmp_path_factory.mktemp("described")
    (path / "images").mkdir()
    scenes = {
        name: picture((9, 6), seed).resize((240, 160), Image.Resampling.BICUBIC)
        for seed, name in enumerate(LABELS)
    }
    for name, photo in scenes.items():
        photo.save(path / "images" / name, quality=90)
    scenes["b.jpg"].resize((120, 80)).save(path / "images/e.jpg", quality=60)
    shutil.copy(path / "images/a.jpg", path / "images/f.jpg")
    (path / "images/gone.jpg").unlink()
    cut = path / "images/cut.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    rows = [f"images/{name},{split},{labels}" for name, (split, labels) in LABELS.items()]
    (path / "annotations.csv").write_text("\n".join(["image,split,labels", *rows, ""]))
    (path / "classes.csv").write_text("name,group\ncat,seen\ndog,seen\nbird,seen\nzebra,unseen\n")
    return path


@pytest.fixture(scope="module")
def described(folder, tmp_path_factory):
    """The folder of a description, and its JSON."""
    words = folder / "words.txt"
    words.write_text("cat 1 0\ndog 0 1\nzebra 1 1\n")
    output = tmp_path_factory.mktemp("out") / "description"
    assert main([str(folder), "--word-vectors", str(words), "--output", str(output)]) == 0
    return output, json.loads((output / "description.json").read_text())


def test_counts_are_those_of_the_lists(described):
    _, facts = described
    train, val, test = facts["splits"]
    assert (train["photos"], train["labels"], train["without_label"]) == (4, 5, 1)
    assert train["histogram"] == [1, 1, 2] and test["histogram"] == [0, 2, 1]
    assert (val["photos"], test["photos"], test["labels"]) == (1, 3, 4)
    positives = {c["name"]: c["positives"] for c in facts["classes"]}
    assert positives["cat"] == {"train": 2, "val": 0, "test": 1}
    assert facts["unseen_classes_in_training_labels"] == ["zebra"]
    assert facts["classes_without_vector"] == ["bird"]


def test_photos_that_cannot_be_read_are_named(described):
    _, facts = described
    problems = {p["image"]: p["problem"] for p in facts["unreadable_photos"]}
    assert problems["images/gone.jpg"] == "no such file"
    assert problems["images/cut.jpg"].startswith("not a whole JPEG")
    assert len(problems) == 2


def test_duplicates_across_splits_are_listed(described):
    output, facts = described
    with open(output / "duplicates.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = [(row["image"], row["other_image"], row["same_file"]) for row in rows]
    assert pairs == [
        ("images/a.jpg", "images/f.jpg", "yes"),
        ("images/b.jpg", "images/e.jpg", "no"),
    ]
    assert [row["differing_labels"] for row in rows] == ["", "cat"]
    assert facts["near_duplicates"]["by_splits"] == {
        "train and test": {"pairs": 2, "same file": 1, "other labels": 1}
    }
    with Image.open(output / "duplicates.png") as sheet:
        red = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
        assert sheet.width > 600 and len(np.unique(red, axis=0)) > 100


def test_the_page_says_it_in_words_and_needs_no_other_file(described):
    output, _ = described
    text = (output / "description.md").read_text()
    assert "1 of 1 unseen classes are labels of 1 training photos (25.0 %)" in text
    assert "seen classes without a train photo: 1: bird" in text
    assert "2 test photos (66.7 %) have a near-duplicate in training." in text
    assert "2 of 8 photos cannot be read." in text
    page = (output / "description.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and 'src="class' not in page
    with open(output / "class_frequency.csv", newline="") as file:
        ranked = [row["class"] for row in csv.DictReader(file)]
    assert ranked[-1] == "bird" and set(ranked[:2]) == {"cat", "dog"}


def test_the_lists_alone_open_no_photo(folder, capsys):
    assert main([str(folder), "--lists-only"]) == 0
    text = capsys.readouterr().out
    assert "Unseen classes among training labels" in text and "Near-duplicate" not in text


def test_without_matplotlib_only_the_plot_is_missing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training.description.outputs.can_plot", lambda path: False)
    assert main([str(folder), "--lists-only", "--output", str(tmp_path / "o")]) == 0
    names = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert names == [
        "class_frequency.csv",
        "description.html",
        "description.json",
        "description.md",
    ]


def test_the_data_of_a_configuration_is_described(folder, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{name: folder, directory: {folder}}}\n")
    assert main(["--config", str(config), "--lists-only"]) == 0
    assert "8 photos; 3 seen and 1 unseen classes." in capsys.readouterr().out


def test_unknown_labels_are_no_absent_ones(tmp_path):
    labels = np.array([[1, 0, -1], [0, 0, 1]], np.int8)
    dataset = TaggingDataset(
        tmp_path, ("a", "b", "c"), ("seen", "seen", "unseen"), {"val": Split(("x", "y"), labels)}
    )
    facts = describe_labels(dataset)
    assert facts.splits[0].unknown_share == 0.5 and facts.splits[0].labels == 2
    assert facts.without_positives("val", "seen") == ("b",) and facts.leaks == ()
    assert (facts.splits[0].quantile(0.5), facts.splits[0].mean) == (1, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either the folder of a data set or --config FILE"),
        (["nowhere"], "nowhere: no such folder"),
        (["nowhere", "--radius", "33"], "--radius 33: expected 0 to 16"),
        (["nowhere", "--set", "a=b"], "--set replaces settings of --config"),
    ],
)
def test_what_is_wrong_is_named(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_unseen_classes_like_seen_ones_are_named(folder, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    with (data / "classes.csv").open("a") as classes:
        classes.write("Cats,unseen\nhound,unseen\n")
    assert main([str(data), "--lists-only"]) == 0
    printed = capsys.readouterr().out
    assert "## Unseen classes like seen ones" in printed and "hound" not in printed.split("##")[6]
    words = tmp_path / "words.txt"
    words.write_text("cat 1 0\ndog 0 1\nhound 0 2\ncats 1 1\n")
    command = [str(data), "--lists-only", "--word-vectors", str(words)]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out/description.json").read_text())
    pairs = {(t["unseen"], t["seen"]): t["why"] for t in facts["unseen_classes_like_seen_ones"]}
    assert pairs == {
        ("Cats", "cat"): "their names differ in writing or number only",
        ("hound", "dog"): "their embeddings are the same",
    }


def test_orientation_and_transparency_are_counted_by_format(tmp_path, capsys):
    photo, turned = picture((90, 60), 0), Image.Exif()
    turned[0x0112] = 6
    upright = Image.Exif()
    upright[0x0112] = 1
    with_alpha = photo.convert("RGBA")
    with_alpha.putpixel((0, 0), (1, 2, 3, 128))
    photo.save(tmp_path / "a.jpg", exif=turned)
    photo.save(tmp_path / "b.jpg", exif=upright)
    photo.save(tmp_path / "c.png", exif=turned)
    with_alpha.save(tmp_path / "d.png")
    photo.convert("RGBA").save(tmp_path / "e.png")  # opaque everywhere
    names = ["a.jpg", "b.jpg", "c.png", "d.png", "e.png"]
    rows = [f"{name},train,*x*" for name in names]
    (tmp_path / "annotations.csv").write_text("\n".join(["image,split,labels", *rows, ""]))
    (tmp_path / "classes.csv").write_text("name,group\n*x*,seen\na|b\\,unseen\n")
    output = tmp_path / "out"
    assert main([str(tmp_path), "--output", str(output)]) == 0
    facts = json.loads((output / "description.json").read_text())
    assert facts["formats"] == {
        "PNG": {"photos": 3, "with_orientation": 1, "with_transparency": 1},
        "JPEG": {"photos": 2, "with_orientation": 1, "with_transparency": 0},
    }
    said = capsys.readouterr().out
    assert "2 photos have a camera's orientation" in said
    assert "1 photos have transparent parts" in said and "| *x* " in said


def test_the_markdown_of_a_description_parses_as_what_was_written(described, tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    output, _ = described
    parser = markdown_it.MarkdownIt("commonmark").enable("table")
    text = (output / "description.md").read_text(encoding="utf-8")
    tokens = parser.parse(text)
    shown = [token.content for token in tokens if token.type == "inline"]
    assert not any("|" in content for content in shown)  # every table is a table
    tables = text.count("\n| ---") + text.count("\n|---")
    assert sum(token.type == "table_open" for token in tokens) == tables > 4
    columns = [c for c in ("train", "val", "test", "all") if c in shown]
    assert columns == ["train", "val", "test", "all"]
    hostile = Table("", ["a|b", "`c`"], [["x\\|y\nz", "<b>*1*</b>"], ["", "-"]])
    cells = [t.children for t in parser.parse(hostile.markdown(escapes=True)) if t.children]
    texts = ["".join(child.content for child in children) for children in cells]
    assert texts == ["a|b", "`c`", "x\\|y z", "<b>*1*</b>", "-"]


def test_few_classes_are_named_in_the_plot_and_many_are_not(tmp_path, saved_figures):
    for count in (12, MOST_NAMED + 1):
        names = tuple(f"class of ${c}" for c in range(count))
        labels = np.where(np.arange(count) <= np.arange(count)[:, None], 1, -1).astype(np.int8)
        split = Split(tuple(map(str, range(count))), labels)
        facts = describe_labels(TaggingDataset(tmp_path, names, ("seen",) * count, {"val": split}))
        plot_class_frequency(facts, tmp_path / "plot.png")
    few, many = ([t.get_text() for t in f.axes[0].get_yticklabels()] for f in saved_figures)
    assert few[0] == r"class of \$0" and len(few) == 12
    assert not any("class" in text for text in many)
    assert_labels_apart(saved_figures[0])
