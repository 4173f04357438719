"""What a dry run says and leaves alone, and the arithmetic of its estimates."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from tiny_run import TINY

from biam_tf.backbones import build_backbone
from training import run
from training.dry_run.estimates import (
    Costs,
    Room,
    Sizes,
    Workload,
    duration,
    estimate_disk,
    estimate_memory,
    estimate_seconds,
    shortages,
    size,
)
from training.dry_run.findings import Findings, format_findings
from training.dry_run.measurement import StepTimes, step_times
from training.machine import existing_parent, peak_memory, same_disk

GB = 10**9
WORK = Workload(
    photos=1000,
    photos_to_extract=600,
    photos_to_read=900,
    epochs=10,
    steps_per_epoch=20,
    batch_size=32,
    validation_photos=100,
    test_photos=200,
)
COSTS = Costs(
    setup=1.0,
    check_photo=0.01,
    first_extraction=2.0,
    extract_photo=0.04,
    read_photo=0.001,
    first_step=5.0,
    step=0.5,
    first_score=3.0,
    score_photo=0.02,
    validation_metrics=0.25,
    test_metrics=0.75,
    epoch_end=1.5,
    finish=6.0,
)
SIZES = Sizes(
    dry_run_peak=GB,
    sample=100,
    photo=1000,
    score_rows=7,
    store_photo=1100,
    checkpoint=5000,
    run_folder=3000,
)
ROOM = Room(8 * GB, 4 * GB, 10 * GB, 10 * GB, one_disk=True, gpus={})


def command(*settings) -> list[str]:
    return ["--dry-run", *(text for setting in settings for text in ("--set", setting))]


def test_the_seconds_of_a_run_are_counts_times_costs():
    assert estimate_seconds(WORK, COSTS) == {
        "set up": 1.0,
        "features": pytest.approx(600 * 0.05 + 2.0),
        "reading": pytest.approx(0.9),
        "first step": 5.0,
        "training": pytest.approx(199 * 0.5),
        "validation": pytest.approx(10 * (100 * 0.02 + 0.25)),
        "saving": 15.0,
        "test": pytest.approx((200 + 100) * 0.02 + 3.0 + 0.75 + 6.0),
    }


def test_held_out_folds_cost_their_steps_and_a_compilation_each():
    work = dataclasses.replace(WORK, fold_steps=(40, 60), fold_epochs=(4, 6))
    seconds = estimate_seconds(work, COSTS)["held-out folds"]
    assert seconds == pytest.approx(2 * (5.0 + 3.0 + 100 * 0.02) + 100 * 0.5 + 10 * 1.5)


def test_stored_features_and_a_missing_validation_cost_nothing():
    work = dataclasses.replace(WORK, photos_to_extract=0, validation_photos=0)
    seconds = estimate_seconds(work, COSTS)
    assert seconds["features"] == seconds["validation"] == 0.0


def test_memory_is_that_of_the_dry_run_with_all_examples_in_place_of_the_sample():
    assert estimate_memory(WORK, SIZES) == GB - 100 + 900 * 1000 + 7
    streamed = dataclasses.replace(WORK, photos_to_read=0)
    assert estimate_memory(streamed, dataclasses.replace(SIZES, sample=0)) == GB + 7


def test_disk_is_what_is_not_stored_yet_and_one_checkpoint_more_than_is_kept():
    assert estimate_disk(WORK, SIZES) == (600 * 1100, 3000 + 3 * 5000)


@pytest.mark.parametrize(
    ("memory", "store", "folder", "changes", "expected"),
    [
        (GB, GB, GB, {}, []),
        (9 * GB, 0, 0, {}, ["memory: the run needs about 9.0 GB, this machine has 8.0 GB"]),
        (5 * GB, 0, 0, {}, ["only 4.0 GB of 8.0 GB are free now"]),
        (GB, 6 * GB, 6 * GB, {}, ["feature store and run need 12.0 GB, 10.0 GB are free"]),
        (GB, 6 * GB, 6 * GB, {"one_disk": False}, []),
        (GB, 11 * GB, 0, {"one_disk": False}, ["the feature store needs 11.0 GB"]),
        (GB, 0, 11 * GB, {}, ["the run's folder needs 11.0 GB"]),
    ],
)
def test_what_does_not_suffice_is_named_with_a_way_out(memory, store, folder, changes, expected):
    found = shortages(memory, store, folder, dataclasses.replace(ROOM, **changes))
    assert len(found) == len(expected)
    for sentence, part in zip(found, expected, strict=True):
        assert part in sentence and "set " in sentence


def test_a_shortage_is_a_warning_in_the_report():
    findings = Findings("runs/x", (3, 2), 1000, 900, WORK, COSTS, SIZES, ROOM)
    text = format_findings(findings)
    assert "memory and disk suffice" in text and "WARNING" not in text
    assert "500 ms per step, 64 photos/s" in text and "400 are already stored" in text
    total = sum(estimate_seconds(WORK, COSTS).values())
    shown = f"{duration(0.8 * total)} to {duration(1.2 * total)}"
    assert re.search(rf"whole run +{re.escape(shown)}\n", text) and "other programs" not in text
    busy = format_findings(dataclasses.replace(findings, others_share=0.6))
    assert f"{duration(0.32 * total)} to {duration(1.2 * total)}" in busy
    assert "other programs had 60 % of the processors" in busy
    text = format_findings(dataclasses.replace(findings, room=dataclasses.replace(ROOM, memory=1)))
    assert "WARNING: memory" in text and "suffice" not in text


def test_a_gpu_is_reported_where_there_is_one():
    room = dataclasses.replace(ROOM, gpus={"GPU:0": 3 * GB})
    text = format_findings(Findings("runs/x", (3, 2), 1000, 900, WORK, COSTS, SIZES, room))
    assert re.search(r"peak on GPU:0 +3\.0 GB", text)


def test_steps_are_told_from_compilation_validation_and_saving():
    events = [("step", 10.0), ("step", 11.0), ("validated", 15.0), ("epoch", 16.0)]
    events += [("step", 19.0), ("step", 20.0), ("validated", 21.0), ("epoch", 22.0)]
    # From "validated" to "epoch" the models are written (1 s); from "epoch" to the next step a
    # checkpoint (3 s less the step itself).
    assert step_times(4.0, events) == StepTimes(6.0, 1.0, 1.0 + 2.0)


def test_epochs_of_one_step_have_times_too():
    events = [("step", 5.0), ("epoch", 6.0), ("step", 8.0), ("epoch", 9.0)]
    assert step_times(0.0, events) == StepTimes(5.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.44, "8.4 s"), (95, "95 s"), (720, "12 min"), (12000, "3 h 20 min"), (7260, "2 h 01 min")],
)
def test_durations_are_in_the_units_that_people_use(seconds, text):
    assert duration(seconds) == text


def test_sizes_are_in_megabytes_or_gigabytes():
    assert [size(12_300_000), size(25 * GB)] == ["12 MB", "25.0 GB"]


def test_peak_memory_counts_what_is_allocated():
    reset = pathlib.Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the peak is what is in use now
    before = peak_memory()
    # More than there ever was at once.
    block = np.ones(100_000_000 + (0 if reset.exists() else before), np.uint8)
    assert peak_memory() - before > 0.9 * 100_000_000
    del block


def test_disks_are_asked_about_folders_that_do_not_exist_yet(tmp_path):
    assert existing_parent(tmp_path / "a/b/c") == tmp_path
    assert same_disk(tmp_path / "a", tmp_path / "b/c")
    assert existing_parent(pathlib.Path("no/such/folder")) == pathlib.Path.cwd()


def test_a_dry_run_of_a_trained_backbone_writes_nothing_and_says_everything(
    scenes, tmp_path, capsys
):
    settings = [*TINY, f"data.directory={scenes}", "data.name=folder", f"output={tmp_path}/run"]
    assert run.main(command(*settings, "training.epochs=7")) == 0
    printed = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert "7 epochs of 5 steps" in printed and "7 times 4 photos" in printed
    for line in ("first step", "whole run", "peak of the run, about", "memory and disk suffice"):
        assert line in printed
    assert "features" not in printed and "epoch   1" not in printed


@pytest.fixture
def frozen(tmp_path, rng) -> list[str]:
    """Settings of a run on stored features of 30 photos."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = ["image,split,labels"]
    for number in range(30):
        pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.jpg")
        split = "train" if number < 22 else "test"
        rows.append(f"{number}.jpg,{split},{'cat' if number % 2 else 'cat;dog'}")
    (photos / "annotations.csv").write_text("\n".join(rows) + "\n")
    (photos / "classes.csv").write_text("name,group\ncat,seen\ncow,seen\ndog,unseen\n")
    (photos / "class_attributes.csv").write_text("name,a,b\ncat,1,0\ncow,1,1\ndog,0,1\n")
    weights = tmp_path / "small.weights.h5"
    build_backbone("small", 32, "none").save_weights(weights)
    settings = [*TINY, "training.batch_size=4", f"data.directory={photos}", "data.name=folder"]
    settings += ["backbone.image_size=32", "backbone.batch_size=4", "backbone.trainable=false"]
    return [*settings, f"backbone.weights={weights}", f"output={tmp_path}/runs/run"]


def test_a_dry_run_of_a_frozen_backbone_extracts_a_few_photos_and_keeps_none(
    frozen, tmp_path, capsys
):
    assert run.main(command(*frozen)) == 0
    printed = capsys.readouterr().out
    assert "30 photos" in printed and re.search(r"features +\S+ s +30 photos,", printed)
    assert "feature store" in printed
    assert "validation" not in printed  # there is no such split
    assert not (tmp_path / "runs").exists()


def test_what_a_run_would_refuse_a_dry_run_refuses(scenes, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    settings = [*TINY, f"data.directory={scenes}", "data.name=folder", f"output={tmp_path}"]
    assert run.main(command(*settings)) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    assert run.main(command(*settings[:-1], "strategy=multi_worker")) == 2
    assert "a dry run works in one process" in capsys.readouterr().err
