"""Follows a page of docs/tutorials as a reader does, and makes the notebook of a page.

`python tests/helpers/tutorial_pages.py PAGE.md` runs the Python code and writes the notebook.
"""

import contextlib
import importlib
import io
import json
import pathlib
import re
import shlex
import sys

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


def notebook(page: str, printed: list[str]) -> dict:
    """Returns the notebook of a page whose blocks are all Python, with what they printed."""
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    # Links of a page start from its folder, which is beside that of the notebooks.
    text = text.replace("](../", "](../../docs/").replace("](../../docs/notebooks/", "](")
    cells: list[dict] = []
    parts = re.split(r"^(```python\n.*?^```\n)", text, flags=re.DOTALL | re.MULTILINE)
    outputs = iter(printed)
    for part in parts:
        if not part.strip():
            continue
        number = f"cell-{len(cells) + 1}"
        if not part.startswith("```python\n"):
            source = part.strip().splitlines(keepends=True)
            cells.append({"cell_type": "markdown", "id": number, "metadata": {}, "source": source})
            continue
        source = part.removeprefix("```python\n").removesuffix("```\n").rstrip()
        said = next(outputs)
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


def notebook_path(page: str) -> pathlib.Path:
    """Returns where the notebook of a page is."""
    return NOTEBOOKS / f"{pathlib.PurePath(page).stem}.ipynb"


if __name__ == "__main__":
    _, all_printed = follow(sys.argv[1])
    NOTEBOOKS.mkdir(exist_ok=True)
    text = json.dumps(notebook(sys.argv[1], all_printed), indent=1, ensure_ascii=False)
    notebook_path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
