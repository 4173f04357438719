"""The command `biam`: `biam run` is `python -m training.run`, and so for every other command."""

import argparse
import ast
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Sequence

import biam_tf
from biam_tf import command_line
from biam_tf.errors import did_you_mean

# Module of each subcommand. They are imported when they are called: the package `biam_tf` does not
# depend on `training` and `serving`.
COMMANDS = {
    "predict": "serving.predict",
    "run": "training.run",
    "evaluate": "training.evaluate",
    "report": "training.report.__main__",
    "review": "training.review",
    "describe": "training.describe",
    "import-data": "training.import_data",
    "import-checkpoint": "training.import_checkpoint",
    "embed-classes": "training.embed_classes",
    "get-preset": "training.get_preset",
    "extract-features": "training.extract_features",
    "lr-range": "training.lr_range",
    "sweep": "training.sweep",
    "reproduce": "training.reproduce",
    "pointing-game": "training.pointing_game",
    "export": "serving.export",
    "onnx": "serving.onnx",
    "triton": "serving.triton",
    "serve": "serving.server",
    "client": "serving.client",
    "demo": "serving.demo",
    "index": "serving.index",
    "retag": "serving.retag",
    "nearest": "serving.nearest",
    "compare": "serving.compare",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns the exit status of the process.

    Args:
        argv: the name of a subcommand and its arguments; None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="biam",
        usage="biam COMMAND [OPTIONS]",
        description="Multi-label zero-shot image tagging. `biam COMMAND --help` explains a command."
        "\nWithout installation, `python -m MODULE` runs the same code.",
        epilog="commands:\n"
        + "\n".join(
            f"  {name:{width}}  {_first_sentence(module)}" for name, module in COMMANDS.items()
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"biam-tf {biam_tf.__version__}")
    if not arguments:
        parser.print_help()
        return command_line.USER_ERROR
    if arguments[0].startswith("-"):
        parser.parse_args(arguments)
        return command_line.USER_ERROR
    name = arguments.pop(0)
    if name not in COMMANDS:
        parser.error(f"no command {name!r}{did_you_mean(name, COMMANDS)}")
    command_line.start_as(COMMANDS)
    return importlib.import_module(COMMANDS[name]).main(arguments)


def _first_sentence(module: str) -> str:
    """Returns what a module does, from its docstring, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    docstring = ast.get_docstring(ast.parse(pathlib.Path(spec.origin).read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0].partition(": `")[0].partition("; `")[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
