"""Results to copy or download: CSV, JSON, and the Python code and command that compute them."""

import io
import json
import shlex
from collections.abc import Sequence

import numpy as np

from biam_tf.class_calibration import number_or_null
from biam_tf.spreadsheets import SpreadsheetWriter
from serving.demo_page.tagging import TaggedPhoto

FIELDS = ("photo", "tag", "group", "score", "probability", "given")

# Longer lists of classes are read from a file, one per line.
_LISTED = 200
_FILE = "classes.txt"


def rows(photo: TaggedPhoto, given: np.ndarray) -> list[dict]:
    """Returns a row of `FIELDS` for every class of a photo, best first.

    Args:
        photo: the tagged photo.
        given: (C,) bool, whether each class is given as a tag.
    """
    probabilities = photo.probabilities
    return [
        {
            "photo": photo.photo.name,
            "tag": photo.names[c],
            "group": photo.groups[c] or "unseen",
            "score": float(photo.scores[c]),
            "probability": None if probabilities is None else number_or_null(probabilities[c]),
            "given": bool(given[c]),
        }
        for c in photo.ranked(len(photo.names))
    ]


def as_csv(photos: Sequence[list[dict]]) -> str:
    """Returns the rows of photos as CSV with a header; missing values are empty."""
    file = io.StringIO()
    writer = SpreadsheetWriter(file)
    writer.writerow(FIELDS)
    for its in photos:
        writer.writerows([row[field] for field in FIELDS] for row in its)
    return file.getvalue()


def as_json(photos: Sequence[list[dict]]) -> str:
    """Returns the rows of photos as JSON, a list of tags for each photo."""
    listed = [
        {"photo": its[0]["photo"], "tags": [{k: row[k] for k in FIELDS[1:]} for row in its]}
        for its in photos
    ]
    return json.dumps(listed, indent=1, ensure_ascii=False) + "\n"


def python_code(
    server: str, photos: Sequence[str], classes: Sequence[str], response_maps: bool
) -> str:
    """Returns Python code that sends the same requests.

    Args:
        server: `host:port`.
        photos: file names.
        classes: class names.
        response_maps: whether the model returns response maps.
    """
    call = "scores, response_maps = client.explain" if response_maps else "scores = client.tag"
    listed, imports = repr(list(classes)), ""
    if len(classes) > _LISTED:
        listed = f'pathlib.Path("{_FILE}").read_text().splitlines()  # one per line'
        imports = "import pathlib\n\n"
    return f"""\
{imports}from serving.client import TaggingClient

photos = {list(photos)!r}
classes = {listed}
with TaggingClient({server!r}) as client:
    {call}(photos, classes)
"""


def command_line(
    server: str, photos: Sequence[str], classes: Sequence[str], top: int, response_maps: bool
) -> str:
    """Returns the command that prints the best `top` tags and draws their response maps.

    Args:
        server: `host:port`.
        photos: file names.
        classes: class names.
        top: number of tags.
        response_maps: whether the model returns response maps.
    """
    option = f"--classes {shlex.quote(', '.join(classes))}"
    if len(classes) > _LISTED or any("," in name for name in classes):
        option = f"--classes-file {_FILE}"
    lines = [f"python -m serving.client --server {shlex.quote(server)} --top {top}", option]
    if response_maps:
        lines.append("--explain evidence.png")
    lines.append(" ".join(shlex.quote(photo) for photo in photos))
    return " \\\n    ".join(lines)
