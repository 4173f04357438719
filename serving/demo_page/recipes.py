"""What the page does, as code and as a command line to copy."""

import shlex
from collections.abc import Sequence

_LISTED = 20


def python_code(server: str, photos: Sequence[str], classes: Sequence[str]) -> str:
    """Returns Python that asks the same server for the same scores and maps."""
    return f"""\
from serving.client import TaggingClient

with TaggingClient({server!r}) as client:
    scores, response_maps = client.explain(
        {_listed(photos)},
        {_listed(classes)},
    )
"""


def command_line(server: str, photos: Sequence[str], classes: Sequence[str], top: int) -> str:
    """Returns the command that prints the same scores and draws the same evidence."""
    names = ", ".join(classes[:_LISTED])
    option = f"--classes {shlex.quote(names)}"
    if len(classes) > _LISTED or any("," in name for name in classes):
        option = "--classes-file classes.txt"
    return (
        f"python -m serving.client --server {shlex.quote(server)} --top {top} \\\n"
        f"    {option} \\\n"
        f"    --explain evidence.png {' '.join(shlex.quote(photo) for photo in photos)}"
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    listed = ", ".join(map(repr, names[:_LISTED]))
    return f"[{listed}]" if more <= 0 else f"[{listed}],  # and {more} more"
