"""What holds of every command line of training and serving."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
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
        *(("training.import_data", [f]) for f in ("csv", "coco")),
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
