"""Tags as a table on screen, as CSV and as JSON lines."""

import json
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import TextIO

from biam_tf.class_calibration import Tag
from biam_tf.errors import UserError
from biam_tf.files import replacing
from biam_tf.spreadsheets import SpreadsheetWriter
from serving.prediction.journal import Answer

# Path of a photo, and what is known of it.
Row = tuple[str, Answer]

CSV_COLUMNS = ("photo", "tag", "score", "probability", "present")


def require_writable(option: str, path: str) -> None:
    """Raises a UserError if a table cannot be written, before minutes of work.

    Args:
        option: that names the file, for the message.
        path: of the file.
    """
    folder = pathlib.Path(path).absolute().parent
    if not folder.is_dir():
        raise UserError(f"{option} {path}: no such folder as {folder}; create it first")
    if os.path.isdir(path):
        raise UserError(f"{option} {path}: is a folder; name a file")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{option} {path}: {folder} may not be written; name another folder")


def print_table(rows: Iterable[Row]) -> None:
    """Prints a block of lines per photo: probability (or score), name, a mark if it is present."""
    for number, (path, answer) in enumerate(rows):
        print(("\n" if number else "") + path)
        if answer.tags is None:
            print(f"     not tagged: {answer.problem}")
            continue
        if not answer.tags:
            print("     no tag")
        for tag in answer.tags:
            print(f"  {'*' if tag.present else ' '} {_figure(tag)}  {tag.name}")
    sys.stdout.flush()


def _figure(tag: Tag) -> str:
    return f"{tag.score:8.3f}" if tag.probability is None else f"{tag.probability:5.1%}".rjust(6)


def write_csv(path: str, rows: Iterable[Row]) -> None:
    """Writes one line per tag; broken photos have none.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as partial, open_table(partial, "surrogateescape") as file:
        writer = SpreadsheetWriter(file)
        writer.writerow(CSV_COLUMNS)
        for photo, answer in rows:
            writer.writerows(
                (photo, tag.name, number(tag.score), number(tag.probability), _word(tag.present))
                for tag in answer.tags or ()
            )


def write_jsonl(path: str, rows: Iterable[Row]) -> None:
    """Writes one JSON object per photo: `photo`, `tags`, and `problem` if it is broken.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as partial, open_table(partial, "backslashreplace") as file:
        for photo, answer in rows:
            value: dict = {"photo": photo}
            value["tags"] = [
                {
                    "name": tag.name,
                    "score": float(number(tag.score)),
                    "probability": None
                    if tag.probability is None
                    else float(number(tag.probability)),
                    "present": tag.present,
                }
                for tag in answer.tags or ()
            ]
            if answer.tags is None:
                value["problem"] = answer.problem
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


def open_table(path: os.PathLike, errors: str) -> TextIO:
    # Names of files may hold bytes that are no text: CSV keeps them, JSON gets an escape.
    return open(path, "w", encoding="utf-8", errors=errors, newline="")


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _word(present: bool | None) -> str:
    return "" if present is None else "yes" if present else "no"
