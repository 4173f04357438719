"""`python -m training.reproduce` from its options to its files, with runs of seconds."""

import csv
import json
import pathlib

import pytest
from plots import assert_picture
from tiny_run import TINY

from biam_tf.backbones import build_backbone
from training import reproduce
from training.reproduction import costs


@pytest.fixture(scope="module")
def study(scenes, tmp_path_factory):
    """Returns a function that runs the command, always below the same folder; and the folder."""
    folder = tmp_path_factory.mktemp("reproduction")
    weights = folder / "small.weights.h5"
    build_backbone("small", 32, "none").save_weights(weights)
    backbone = f"backbone={{name: small, image_size: 32, trainable: false, weights: {weights}}}"

    def command(*options) -> int:
        settings = ["data.name=folder", backbone, *TINY]
        flags = [flag for setting in settings for flag in ("--set", setting)]
        common = ["--data", str(scenes), "--output", str(folder), "--seeds", "1", "--budget", "1"]
        return reproduce.main([*options, *common, *flags])

    return command, folder


@pytest.fixture
def measured_in_processes(monkeypatch) -> list[pathlib.Path]:
    """The folders whose memory was measured; of the first one really, which takes seconds."""
    peak, folders = costs.peak_of_process, []

    def peak_of_process(folder):
        folders.append(folder)
        return peak(folder) if len(folders) == 1 else 1_234_000_000

    monkeypatch.setattr(costs, "peak_of_process", peak_of_process)
    return folders


@pytest.mark.slow
def test_a_table_of_costs_and_a_figure_that_takes_over_its_run(
    study, measured_in_processes, capsys
):
    command, folder = study
    assert command("--table", "5") == 0
    assert len(measured_in_processes) == 4
    printed = capsys.readouterr().out
    text = (folder / "table5.md").read_text()
    assert text in printed and f"Look at {folder / 'table5.png'}" in printed
    titles = ["ESZSL", "LESA", "BiAM, recommended", "BiAM, as configured"]
    assert [line.split(" | ")[0][2:] for line in text.splitlines() if " G |" in line] == titles
    assert_picture(folder / "table5.png")
    with open(folder / "table5.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == titles
    memory = [int(row["memory_bytes"]) for row in rows]
    assert 1e8 < memory[0] < 1e10 and memory[1:] == [1_234_000_000] * 3

    assert command("--figure", "5") == 0
    printed = capsys.readouterr().out
    assert printed.count("done in") == 1  # the run of BiAM as configured is there
    record = json.loads((folder / "figure5.json").read_text())
    runs = [row["runs"][0] for row in record.values()]
    assert runs[-1] == json.loads((folder / "table5.json").read_text())["biam"]["runs"][0]
    with open(folder / "figure5.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows] == ["ZSL", "GZSL"] * 2
    assert [row["run"] for row in rows[::2]] == runs
    metrics = json.loads(open(f"{runs[0]}/metrics.json").read())
    assert float(rows[0]["mAP"]) == pytest.approx(100 * metrics["zsl"]["mAP"], abs=1e-3)
    assert (folder / "figure5.md").read_text().startswith("# Figure 5\n\n| ZSL, per cent | mAP |")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table", "5", "--seeds", "0"], "--seeds 0: expected at least 1"),
        (["--figure", "5", "--set", "output=x"], "every run has its own folder below --output"),
        (["--table", "3", "--set", "head.chanels=8"], "did you mean 'channels'"),
        (
            ["--table", "1", "--rows", "sdl,mtk"],
            "--rows mtk: table 1 has no such row; did you mean",
        ),
        (["--figure", "5", "--rows", "sdl"], "--rows: a figure has no rows"),
    ],
)
def test_options_that_cannot_be_are_named(options, message, tmp_path, capsys):
    assert reproduce.main([*options, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_photos_gets_the_configuration_for_folders(tmp_path, monkeypatch, capsys):
    from training.reproduction import documents

    asked, made = [], []
    monkeypatch.setattr(
        "biam_tf.backbones.load_classifier", lambda *backbone: asked.append(backbone)
    )
    monkeypatch.setattr(
        documents, "reproduce_table", lambda table, study: made.append(study) or True
    )
    (tmp_path / "annotations.csv").write_text("image,split,labels\n")
    assert reproduce.main(["--table", "1", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path} is a folder of photos: --config corel5k\n"
    assert asked == [("efficientnet_lite0", "imagenet")]
    assert made[0].config == "corel5k"
    assert f"data.directory={tmp_path}" in made[0].settings
    # A configuration that is given stays as it is.
    given = ["--config", "recommended", "--table", "3", "--data", str(tmp_path)]
    assert reproduce.main(given) == 0 and made[1].config == "recommended"
