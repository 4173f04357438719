"""The documentation as a site: `pip install -e ".[docs]" && sphinx-build -W docs site`."""

import contextlib
import importlib
import inspect
import io
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import biam_tf  # noqa: E402
from biam_tf.__main__ import COMMANDS  # noqa: E402

project = "biam_tf"
copyright = "the biam_tf authors"
release = version = biam_tf.__version__
html_title = f"biam_tf {release}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
html_theme = "furo"
html_copy_source = False
html_show_sourcelink = False
# The theme's own fonts are the system's: nothing is fetched.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_default_options = {
    "exclude-members": "build,call,compute_output_shape,compute_output_spec,from_config,get_config"
}
autodoc_typehints = "none"  # shapes and types stand in the descriptions
default_role = "code"
napoleon_use_rtype = False
napoleon_custom_sections = [("Call arguments", "params_style"), ("Input shape", "notes_style")]
suppress_warnings = ["myst.header"]
exclude_patterns = ["photos/**"]

# Files beside docs/ that are pages of the site.
PAGES = {
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "README.md": "index.md",
}


def read_source(app, name: str, source: list[str]) -> None:
    """Fills the pages that are written elsewhere, and points links at pages of the site."""
    copied = {page.removesuffix(".md"): file for file, page in PAGES.items() if file != "README.md"}
    if name in copied:
        source[0] = (ROOT / copied[name]).read_text(encoding="utf-8")
    elif name == "commands":
        source[0] = _commands()

    up = "../" * name.count("/")

    def link(found: re.Match) -> str:
        text, target = found[1], found[2]
        if "://" in target or target.startswith(("#", "mailto:")):
            return found[0]
        path, hash_sign, anchor = target.partition("#")
        there = ROOT if name in copied else (ROOT / "docs" / name).parent
        file = (there / path).resolve()
        if not file.exists():
            return found[0]  # Sphinx reports it
        inside = file.relative_to(ROOT).as_posix()
        if inside == "README.md":
            return f"[{text}]({up}index.md)"  # with other headings
        if inside in PAGES:
            return f"[{text}]({up}{PAGES[inside]}{hash_sign}{anchor})"
        if inside.startswith("docs/"):
            return f"[{text}]({up}{inside.removeprefix('docs/')}{hash_sign}{anchor})"
        return f"{text} (`{inside}`)"  # code

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, source[0])


def _commands() -> str:
    """Returns the page with the help text of every command."""
    lines = ["# Commands\n", "`biam NAME` and `python -m MODULE` are the same.\n"]
    width, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "88"
    try:
        for name, module in COMMANDS.items():
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
                importlib.import_module(module).main(["--help"])
            lines += [f"## biam {name}\n", f"`python -m {module.removesuffix('.__main__')}`\n"]
            lines += ["```text", shown.getvalue().rstrip(), "```\n"]
    finally:
        del os.environ["COLUMNS"]
        if width is not None:
            os.environ["COLUMNS"] = width
    return "\n".join(lines)


def constructor_signature(app, kind, name, thing, options, signature, returns):
    """Shows the arguments of constructors, which Keras hides behind `(*args, **kwargs)`."""
    if kind != "class" or "__init__" not in vars(thing):
        return None
    parameters = list(inspect.signature(thing.__init__).parameters.values())[1:]
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return str(inspect.Signature(plain)), returns


def setup(app) -> None:
    """Connects the functions above; called by Sphinx."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-signature", constructor_signature)
