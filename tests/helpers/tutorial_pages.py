"""Follows a page of docs/tutorials as a reader does, and makes the notebook of a page.

`python tests/helpers/tutorial_pages.py PAGE.md` writes the notebook. The Python code of a page
without commands is run, and the notebook has what it printed.
"""

import contextlib
import importlib
import io
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import numpy as np

DOCS = pathlib.Path(__file__).parents[2] / "docs"
TUTORIALS, NOTEBOOKS = DOCS / "tutorials", DOCS / "notebooks"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def follow(page: str, replaced: dict[str, str] | None = None) -> tuple[dict, list[str]]:
    """Runs the page's blocks in their order.

    Blocks of `console` install something or start a server, and are not run.

    Returns:
        The names that the Python code defined, and what each Python block printed.
    """
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    for old, new in (replaced or {}).items():
        assert old in text, f"{page} does not say {old}"
        text = text.replace(old, new)
    names: dict = {}
    printed = []
    blocks = BLOCK.findall(text)
    assert len(blocks) >= 4
    for language, code in blocks:
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(code, page, "exec"), names)
            printed.append(said.getvalue())
            continue
        words = shlex.split(code.replace("\\\n", " "))
        assert words[:2] == ["python", "-m"], code
        assert importlib.import_module(words[2]).main(words[3:]) == 0, code
    return names, printed


def notebook(page: str, printed: Sequence[str] | None = None) -> dict:
    """Returns the notebook of a page, with what its Python blocks printed, if that is given."""
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    text = re.sub(r" \[The same as a\s+notebook\]\([^)]*\)\.", "", text)
    text = re.sub(
        r"\]\((\w+\.md)", r"](../tutorials/\1", text
    )  # other links fit: the folders lie side by side
    cells: list[dict] = []
    parts = re.split(r"^(```(?:python|sh)\n.*?^```\n)", text, flags=re.DOTALL | re.MULTILINE)
    outputs = iter(printed or ())
    for part in parts:
        if not part.strip():
            continue
        number = f"cell-{len(cells) + 1}"
        if not BLOCK.match(part):
            source = part.strip().splitlines(keepends=True)
            cells.append({"cell_type": "markdown", "id": number, "metadata": {}, "source": source})
            continue
        language, source = BLOCK.findall(part)[0]
        source = source.rstrip() if language == "python" else f"!{source.rstrip()}"
        said = next(outputs) if printed is not None and language == "python" else ""
        stream = {"name": "stdout", "output_type": "stream", "text": said.splitlines(True)}
        cells.append(
            {
                "cell_type": "code",
                "execution_count": None,
                "id": number,
                "metadata": {},
                "outputs": [stream] if said else [],
                "source": source.splitlines(keepends=True),
            }
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def assert_written(page: str, printed: Sequence[str] | None = None) -> None:
    """Compares the notebook with its page; the last digits that were printed may differ."""
    written = json.loads(notebook_path(page).read_text(encoding="utf-8"))
    expected = notebook(page, printed)
    for link in re.findall(r"\]\(([^)#:]+)[)#]", json.dumps(written)):
        assert (NOTEBOOKS / link).is_file(), link
    number = re.compile(r"-?\d+\.\d*")
    for cell, other in zip(written["cells"], expected["cells"], strict=True):
        assert (cell["cell_type"], cell["source"]) == (other["cell_type"], other["source"])
        shown, said = (
            "".join(line for output in each.get("outputs", ()) for line in output["text"])
            for each in (cell, other)
        )
        assert number.sub("", shown).split() == number.sub("", said).split()
        mine, its = (np.array(number.findall(text), float) for text in (shown, said))
        np.testing.assert_allclose(its, mine, atol=0.5)


def notebook_path(page: str) -> pathlib.Path:
    """Returns where the notebook of a page is."""
    return NOTEBOOKS / f"{pathlib.PurePath(page).stem}.ipynb"


if __name__ == "__main__":
    page_text = (TUTORIALS / sys.argv[1]).read_text(encoding="utf-8")
    runs = "```sh" in page_text or ".main(" in page_text  # what commands print changes
    all_printed = None if runs else follow(sys.argv[1])[1]
    text = json.dumps(notebook(sys.argv[1], all_printed), indent=1, ensure_ascii=False)
    notebook_path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
