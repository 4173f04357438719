import csv
import json
import pickle

import numpy as np
import pytest

from biam_tf.vocabulary import Vocabulary
from training.embed_classes import main

pytestmark = pytest.mark.unit


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("polar 1 0 1\nbear 1 2 1\nred 0 3 4\nfox 2 0 0\n")
    return path


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("name,group\npolar_bear,seen\nred,unseen\nfoxes,seen\nnothing,ignored\n")
    return path


def test_the_file_works_as_word_vectors_of_a_run(glove, classes, tmp_path, capsys):
    output = tmp_path / "new" / "classes.npz"
    assert main([str(classes), str(output), "--source", str(glove)]) == 0
    vocabulary = Vocabulary.from_file(output, ["red", "polar_bear", "foxes"])
    np.testing.assert_allclose(
        vocabulary.embeddings, [[0, 0.6, 0.8], np.full(3, 3**-0.5), [1, 0, 0]], rtol=1e-6
    )
    assert Vocabulary.load(output).groups == ("seen", "unseen", "seen")
    with np.load(output) as file:
        made = json.loads(str(file["made"]))
    assert made["sources"][0]["source"] == str(glove) and len(made["sources"][0]["sha256"]) == 64
    with open(output.with_suffix(".coverage.csv"), newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["foxes"]["found by"] == "fox" and rows["foxes"]["how"] == "singular"
    assert rows["red"]["how"] == "as it is" and len(rows) == 3
    assert "3 of 3 names" in capsys.readouterr().out


def test_a_folder_a_table_and_a_list_name_the_same_classes(glove, classes, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("polar_bear\n\n red\nfoxes\n", encoding="utf-8-sig")
    found = []
    for given in (classes, tmp_path, names):
        assert main([str(given), str(tmp_path / "o.npz"), "--source", str(glove)]) == 0
        with np.load(tmp_path / "o.npz") as file:
            found.append((file["names"].tolist(), "groups" in file.files))
    assert found == [(["polar_bear", "red", "foxes"], has) for has in (True, True, False)]


def test_two_sources_count_equally(glove, classes, tmp_path):
    table = tmp_path / "attributes.csv"
    table.write_text("name,x,y\npolar bear,30,40\nred,0,2\nfoxes,1,0\n")
    output = tmp_path / "o.npz"
    assert main([str(classes), str(output), "--source", str(glove), "--source", str(table)]) == 0
    row = Vocabulary.load(output).subset(["red"]).embeddings[0]
    np.testing.assert_allclose(row, np.array([0, 0.6, 0.8, 0, 1]) / np.sqrt(2), rtol=1e-6)


def test_missing_names_stop_it_unless_they_may_be_left_out(glove, tmp_path, capsys):
    names, output = tmp_path / "names.txt", tmp_path / "o.npz"
    names.write_text("red\nbaer\nqqq\n")
    command = [str(names), str(output), "--source", str(glove)]
    assert main(command) == 2
    told = capsys.readouterr()
    assert "baer (nearest: bear)" in told.out and "2 of 3 names have no embedding" in told.err
    assert not output.exists() and (tmp_path / "o.coverage.csv").exists()
    assert main([*command, "--skip-missing"]) == 0
    assert Vocabulary.load(output).names == ("red",)


def test_a_published_pickle_becomes_a_file(tmp_path):
    path, output = tmp_path / "w2v", tmp_path / "o.npz"
    path.write_bytes(pickle.dumps([np.eye(2, 3, dtype="f4"), np.full((1, 3), 2, "f4")], 3))
    for name, content in (("names", "cat\nsky\n"), ("tags", "sea\nsky\n"), ("concepts", "cat\n")):
        (tmp_path / f"{name}.txt").write_text(content)
    lists = [str(tmp_path / "tags.txt"), str(tmp_path / "concepts.txt")]
    command = [str(tmp_path / "names.txt"), str(output), "--from-pickle", str(path)]
    assert main([*command, "--row-names", *lists]) == 0
    expected = [np.full(3, 3**-0.5), [0, 1, 0]]
    np.testing.assert_allclose(Vocabulary.load(output).embeddings, expected, rtol=1e-6)


class _Runs:
    def __reduce__(self):
        return print, ("owned",)


def test_a_malicious_pickle_is_refused(tmp_path, capsys):
    path, names = tmp_path / "w2v", tmp_path / "names.txt"
    path.write_bytes(pickle.dumps([_Runs()]))
    names.write_text("cat\n")
    assert main([str(names), str(tmp_path / "o.npz"), "--from-pickle", str(path)]) == 2
    told = capsys.readouterr()
    assert "contains builtins.print, which is not an array" in told.err and "owned" not in told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["names.txt", "o.npz"], "no source of embeddings"),
        (["names.txt", "o.npy", "--source", "w"], "o.npy: the file to write must end in .npz"),
        (["nowhere", "o.npz", "--source", "w"], "nowhere: no such file; give a text file"),
        (["empty.txt", "o.npz", "--source", "w"], "empty.txt: contains no class names"),
        (["twice.txt", "o.npz", "--source", "w"], "'cat' is in rows 1 and 2"),
        (["table.csv", "o.npz", "--source", "w"], "no column 'name'; the columns are: class"),
        (["names.txt", "o.npz", "--source", "w", "--row-names", "x"], "--row-names names the rows"),
        (["names.txt", "o.npz", "--source", "nowhere"], "nowhere: there is no such file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("names.txt", "cat\n"),
        ("empty.txt", "\n"),
        ("twice.txt", "cat\ncat\n"),
        ("table.csv", "class\ncat\n"),
    ):
        (tmp_path / name).write_text(content)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_classes_of_a_real_data_set_get_what_a_run_would_give_them(test_data, tmp_path):
    glove = test_data / "data/word_vectors/glove.6B.100d.42k.txt.gz"
    output = tmp_path / "o.npz"
    command = [str(test_data / "data/corel5k"), str(output), "--source", str(glove)]
    assert main(command) == 0
    embedded = Vocabulary.load(output)
    direct = Vocabulary.from_file(glove, embedded.names, embedded.groups)
    np.testing.assert_allclose(embedded.embeddings, direct.embeddings, atol=1e-6)
