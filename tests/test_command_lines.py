"""What holds of every command line of training and serving."""

import importlib
import json
import pathlib
import subprocess
import sys

import pytest

from biam_tf.models.systems import SYSTEMS

ROOT = pathlib.Path(__file__).parents[1]
IMPORTED = ("csv", "one-hot", "coco", "label-studio", "cvat", "keywords")
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("training", "serving")
    for path in (ROOT / folder).rglob("*.py")
    if "return run_command(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    ("module", "before"),
    [
        *((module, []) for module in COMMANDS),
        *(("training.import_data", [f]) for f in IMPORTED),
    ],
)
def test_options_are_not_abbreviated(module, before, capsys):
    main = importlib.import_module(module).main
    with pytest.raises(SystemExit) as whole:
        main([*before, "--help"])
    assert whole.value.code == 0
    with pytest.raises(SystemExit) as short:
        main([*before, "--hel"])
    assert short.value.code == 2


def test_the_commands_are_found():
    assert {"training.run", "training.report.__main__", "serving.export"} <= set(COMMANDS)


# Of one process, so each command is checked for what it imports beyond the ones before it.
HELP_OF_ALL = """
import contextlib, importlib, io, sys
for module in sys.argv[1:]:
    main = importlib.import_module(module).main
    sys.argv = [module, "--help"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()
    assert "tensorflow" not in sys.modules, module
    assert "keras" not in sys.modules, module
"""


def test_help_needs_no_tensorflow():
    benchmarks = [
        f"benchmarks.{path.stem}"
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        if "ArgumentParser(" in (text := path.read_text(encoding="utf-8"))
        or "benchmark_command(" in text
    ]
    assert {"benchmarks.reading", "benchmarks.cold_start"} <= set(benchmarks)
    command = [sys.executable, "-c", HELP_OF_ALL, *COMMANDS, *benchmarks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


MISTAKES = [
    ("training.run", ["--set", "training.epoch=1"], "did you mean 'epochs'?"),
    ("training.run", ["--dry-run", "--set", "head.num_heads=3"], "a divisor of channels"),
    ("training.run", ["--config", "configs/quikstart.yaml"], "did you mean 'configs/quick"),
    ("training.run", ["--set", "head.system=lessa"], "did you mean 'lesa'?"),
    ("training.run", ["--set", "head={system: lesa, num_attention: 3}"], "'num_attentions'?"),
    ("training.run", ["--set", "head={system: eszsl, gamma: -1}"], "gamma: -1.0 is not valid"),
    ("training.run", ["--set", "head={system: warp}", "--set", "training.loss.margin=2"], "own"),
    ("training.run", ["--set", "head={system: conse, preset: papr}"], "did you mean 'paper'?"),
    # Of every system, also the newer ones: its settings are read without Keras.
    *(
        ("training.run", ["--set", f"head={{system: {name}, no_such_setting: 1}}"], "unknown key")
        for name in SYSTEMS
    ),
    ("training.run", ["--set", "head.region_context=self_atention"], "'self_attention'?"),
    ("training.run", ["--set", "head.scene_context=channel_gat"], "'channel_gate'?"),
    ("training.run", ["--set", "backbone.name=vgg"], "did you mean 'vgg19'?"),
    ("training.run", ["--set", "data.name=folder"], "data.directory: not set"),
    ("training.run", ["--set", "data={name: folder, directory: nowhere}"], "no such folder"),
    ("training.reproduce", ["--table", "1", "--set", "training.epoch=1"], "'epochs'?"),
    ("training.sweep", ["--grid", "head.num_head=1,2", "--output", "x"], "'num_heads'?"),
    ("training.lr_range", ["--output", "x", "--set", "training.epoch=1"], "'epochs'?"),
    ("training.extract_features", ["--output", "x", "--set", "data.nam=a"], "'name'?"),
    ("training.describe", ["nowhere"], "no such folder"),
    ("training.evaluate", ["nowhere", "--data", "x", "--output", "x"], "not the folder of a run"),
    ("training.report.__main__", ["nowhere"], "not the folder of a run"),
    ("training.review", ["nowhere"], "not the folder of a run"),
    ("training.pointing_game", ["nowhere"], "not the folder of a run"),
    ("training.import_checkpoint", ["none.pth", "x"], "no such file"),
    *(
        ("training.import_checkpoint", ["README.md", "no-such-folder", *options], message)
        for options, message in (
            (["--set", "backbone.nam=small"], "did you mean 'name'?"),
            (["--num-heads", "0"], "num_heads must be at least 1"),
            (["--vocabulary", "none.npz"], "none.npz"),
        )
    ),
    ("serving.export", ["nowhere", "x"], "not the folder of a run"),
    ("serving.onnx", ["nowhere", "x.onnx"], "not the folder of a run"),
    ("serving.server", ["nowhere"], "no such folder; `python -m serving.export` writes one"),
    ("serving.index", ["trainig", "docs", "x"], "no such folder; did you mean 'training'?"),
    ("serving.predict", ["docs/phots"], "no such file or folder; did you mean 'docs/photos'?"),
    ("serving.predict", ["docs", "--model", "./trainig"], "/training'?"),
    ("training.describe", ["docs/phots"], "did you mean 'docs/photos'?"),
    ("serving.index", ["nowhere", "nowhere", "x"], "nowhere"),
]
# Of one process: the first command that imports TensorFlow is the one that is named.
EACH = """
import contextlib, importlib, io, json, sys
for module, arguments, message in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        assert importlib.import_module(module).main(arguments) == 2, module
    assert message in printed.getvalue(), (module, arguments, printed.getvalue())
    assert "tensorflow" not in sys.modules, (module, arguments)
    assert "keras" not in sys.modules, (module, arguments)
"""


def test_mistakes_are_reported_without_tensorflow():
    command = [sys.executable, "-c", EACH, json.dumps(MISTAKES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_a_subcommand_of_biam():
    from biam_tf.__main__ import COMMANDS as subcommands

    inner = {"training.data.open_images.from_tfds"}  # a conversion of one data set
    assert set(subcommands.values()) == set(COMMANDS) - inner


def test_biam_explains_its_commands_and_names_itself(capsys, monkeypatch):
    from biam_tf import __main__ as biam
    from biam_tf import command_line

    monkeypatch.setattr(command_line, "_subcommands", {})
    assert biam.main([]) == 2
    assert "  run                Trains a tagger\n" in capsys.readouterr().out
    with pytest.raises(SystemExit) as wrong:
        biam.main(["expotr"])
    assert wrong.value.code == 2
    assert "no command 'expotr'; did you mean 'export'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        biam.main(["run", "--help"])
    shown = capsys.readouterr().out
    assert "usage: biam run " in shown and "  biam run --dry-run\n" in shown
    assert "python -m" not in shown
    assert biam.main(["run", "--config", "recomended"]) == 2
    assert "did you mean 'recommended'?" in capsys.readouterr().err
    assert biam.main(["serve", "nowhere"]) == 2
    monkeypatch.setattr(sys, "argv", ["/opt/it/bin/biam"])
    assert command_line.command_to_paste("serving.export", "a b") == "/opt/it/bin/biam export 'a b'"
    assert command_line.command_to_paste("benchmarks.all").endswith(" -m benchmarks.all")


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (
            ["-m", "training.rum"],
            "there is no command training.rum; did you mean python -m training.run?",
        ),
        (["-W", "ignore", "-mserving.predct"], "did you mean python -m serving.predict?"),
        (["-m", "training.export"], "did you mean python -m serving.export?"),
        (["-um", "benchmarks.label-review"], "did you mean python -m benchmarks.label_review?"),
        (["-m", "training.run.x"], "NAME is one of: describe, embed_classes, "),
        (["-m", "serving"], "serving is a package of commands, python -m serving.NAME; NAME is"),
    ],
)
def test_a_misspelled_module_is_answered_with_the_nearest_command(options, answer):
    done = subprocess.run(
        [sys.executable, *options, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and answer in line


def test_importing_the_packages_of_commands_imports_nothing():
    code = (
        "import sys, training, serving, benchmarks; "
        "print([name for name in sys.modules if name.startswith('biam_tf')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n"
