"""What the page does, as code and as a command line to copy."""

import shlex
from collections.abc import Sequence

# More are read from a file, one a line.
_LISTED = 200
_FILE = "classes.txt"


def python_code(
    server: str, photos: Sequence[str], classes: Sequence[str], response_maps: bool
) -> str:
    """Returns Python that asks the same server for the same.

    Args:
        server: `host:port`.
        photos: names of files.
        classes: their names.
        response_maps: whether the model has any.
    """
    wanted = "scores, response_maps = client.explain" if response_maps else "scores = client.tag"
    listed, imports = repr(list(classes)), ""
    if len(classes) > _LISTED:
        listed = f'pathlib.Path("{_FILE}").read_text().splitlines()  # one a line'
        imports = "import pathlib\n\n"
    return f"""\
{imports}from serving.client import TaggingClient

photos = {list(photos)!r}
classes = {listed}
with TaggingClient({server!r}) as client:
    {wanted}(photos, classes)
"""


def command_line(
    server: str, photos: Sequence[str], classes: Sequence[str], top: int, response_maps: bool
) -> str:
    """Returns the command that prints the best `top` of the same scores and draws the evidence."""
    option = f"--classes {shlex.quote(', '.join(classes))}"
    if len(classes) > _LISTED or any("," in name for name in classes):
        option = f"--classes-file {_FILE}"
    lines = [f"python -m serving.client --server {shlex.quote(server)} --top {top}", option]
    if response_maps:
        lines.append("--explain evidence.png")
    lines.append(" ".join(shlex.quote(photo) for photo in photos))
    return " \\\n    ".join(lines)
