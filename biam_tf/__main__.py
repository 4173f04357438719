"""The command `biam`: `biam run` is `python -m training.run`, and so for every other command."""

import argparse
import ast
import importlib
import importlib.util
import pathlib
import re
import sys
from collections.abc import Sequence

import biam_tf
from biam_tf import command_line
from biam_tf.errors import did_you_mean, nearest_names

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


def refuse_unknown_module(package: str, folder: str) -> None:
    """Ends `python -m PACKAGE.NAME` with the nearest command if there is no such module.

    A package of commands calls it while it is imported and `sys.argv[0]` is still "-m": Python has
    not found the module yet, and would say "No module named PACKAGE.NAME" without a hint.

    Args:
        package: name of the package.
        folder: of the package.

    Raises:
        SystemExit: with status 2; one line is printed to standard error.
    """
    name = _module_to_run(sys.orig_argv[1:])
    if name.partition(".")[0] != package or ("." in name and _is_module(name)):
        return
    own = {each: f"{package}.{each}" for each in _commands_in(pathlib.Path(folder))}
    nearest = ""
    if name == package:
        problem = f"{package} is a package of commands, python -m {package}.NAME"
    else:
        problem = f"there is no command {name}"
        nearest = _nearest_command(name.rpartition(".")[2], own)
    hint = f"did you mean python -m {nearest}?" if nearest else f"NAME is one of: {', '.join(own)}"
    print(f"error: {problem}; {hint}", file=sys.stderr)
    raise SystemExit(command_line.USER_ERROR)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # what stands before the last dot is none
        return False


def _module_to_run(arguments: Sequence[str]) -> str:
    """Returns what `-m` names among the arguments of Python; empty: there is no such option."""
    for place, argument in enumerate(arguments):
        # Also `-mNAME`, and `-Im NAME` with other options of one letter.
        if found := re.fullmatch(r"-[bBdEiIOPqsSuvx]*m(.*)", argument):
            return found[1] or next(iter(arguments[place + 1 :]), "")
    return ""


def _commands_in(folder: pathlib.Path) -> list[str]:
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    commands = [path.stem for path in modules if "__main__" in path.read_text(encoding="utf-8")]
    return sorted([*commands, *(path.parent.name for path in folder.glob("*/__main__.py"))])


def _nearest_command(name: str, own: dict[str, str]) -> str:
    """Returns the command of the same name in another package, or the one that looks most like it.

    Args:
        name: the last part of what there is not.
        own: module by name of the commands of the package.
    """
    modules = {name: module.removesuffix(".__main__") for name, module in COMMANDS.items()}
    others = {module.rpartition(".")[2]: module for module in modules.values()}
    known = others | modules | own
    found = nearest_names(name.replace("_", "-"), known, 1) or nearest_names(name, known, 1)
    return known[found[0]] if found else ""


def _first_sentence(module: str) -> str:
    """Returns what a module does, from its docstring, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    docstring = ast.get_docstring(ast.parse(pathlib.Path(spec.origin).read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0].partition(": `")[0].partition("; `")[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
