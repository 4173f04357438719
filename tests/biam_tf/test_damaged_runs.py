"""Every file of a run, damaged: one message names it and says what to do."""

import pathlib
import shutil

import pytest

from biam_tf.errors import UserError
from biam_tf.runs import RunPaths, load_run
from training import evaluate

DEEP = b"[" * 200_000


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a run."""
    return pathlib.Path(shutil.copytree(finished.path, tmp_path / "run"))


def cut(contents):
    return contents[: len(contents) // 2]


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("model.keras", cut, r"damaged: not a whole Keras model .*checkpoints/0+\d+/model\.keras"),
        ("model.keras", lambda contents: b"", "damaged: not a whole Keras model"),
        ("backbone.keras", cut, "damaged: not a whole Keras model"),
        ("vocabulary.npz", cut, "can't be read as an .npz file"),
        ("thresholds.json", cut, "not a file of thresholds"),
        ("thresholds.json", lambda contents: DEEP, r"not a file of thresholds \(nested too deeply"),
        ("thresholds.json", lambda contents: b"[]", "not a file of thresholds"),
        ("config.yaml", lambda contents: DEEP, "not the resolved configuration of a run"),
        ("config.yaml", lambda contents: b"\xff\xfe", "not the resolved configuration of a run"),
    ],
)
def test_a_damaged_file_is_named(folder, file, damage, message):
    path = folder / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        load_run(folder)
    assert str(path) in str(error.value) and "Traceback" not in str(error.value)


@pytest.mark.parametrize("contents", [b"{", DEEP, b"\xff", b"[]"])
def test_a_damaged_log_and_damaged_figures_are_named(folder, contents):
    run = RunPaths(folder)
    for path, read in ((run.log, run.read_log), (run.metrics, run.read_metrics)):
        path.write_bytes(contents)
        with pytest.raises(UserError, match="damaged") as error:
            read()
        assert str(path) in str(error.value)


def test_a_complete_run_with_damaged_figures_says_so(start, folder, capsys):
    (folder / "metrics.json").write_bytes(DEEP)
    assert start(folder) == 2
    assert "metrics.json: damaged" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_one_message(folder, scenes, tmp_path, capsys):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "figures.json"
    assert evaluate.main([str(folder), "--data", str(scenes), "--output", str(output)]) == 2
    assert f"error: {tmp_path / 'file'}" in capsys.readouterr().err


def test_a_run_below_a_file_is_one_message_before_any_work(start, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert start(tmp_path / "file" / "run") == 2
    printed = capsys.readouterr()
    assert "cannot be written" in printed.err and "photos;" not in printed.out


def test_a_misspelled_folder_of_a_run_gets_a_suggestion(tmp_path):
    for name in ("quickstart", "corel"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    with pytest.raises(UserError, match=r"did you mean '.*runs/quickstart'\?"):
        RunPaths(tmp_path / "runs/quikstart").require_whole()
    with pytest.raises(UserError, match=r"runs in it: .*runs/corel, .*runs/quickstart$"):
        RunPaths(tmp_path / "runs").require_whole()
