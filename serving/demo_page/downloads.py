"""Results as files: CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence

import numpy as np

from serving.demo_page.tagging import TaggedPhoto

FIELDS = ("photo", "tag", "group", "score", "probability", "given")


def rows(photo: TaggedPhoto, given: np.ndarray) -> list[dict]:
    """Returns a row for every class of a photo, best first.

    Args:
        photo: the photo.
        given: (C,) bool: whether the class is given as a tag.
    """
    known = photo.probabilities
    return [
        {
            "photo": photo.photo.name,
            "tag": photo.names[c],
            "group": photo.groups[c],
            "score": float(photo.scores[c]),
            "probability": None if known is None else float(known[c]),
            "given": bool(given[c]),
        }
        for c in photo.ranked(len(photo.names))
    ]


def as_csv(photos: Sequence[list[dict]]) -> str:
    """Returns the rows of photos as CSV with a heading; what isn't known is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
    writer.writeheader()
    for its in photos:
        writer.writerows(its)
    return file.getvalue()


def as_json(photos: Sequence[list[dict]]) -> str:
    """Returns the rows of photos as JSON, a list of tags for each photo."""
    listed = [
        {"photo": its[0]["photo"], "tags": [{k: row[k] for k in FIELDS[1:]} for row in its]}
        for its in photos
    ]
    return json.dumps(listed, indent=1, ensure_ascii=False) + "\n"
