"""Writes annotations.csv of a folder data set again, with some labels corrected."""

import pathlib
from collections.abc import Mapping

from biam_tf.csv_files import write_rows
from biam_tf.embeddings.names import normalize
from training.data.folder.reader import annotation_rows, photo_of_row
from training.data.problems import Problems

PRESENT, ABSENT, UNKNOWN = "present", "absent", "unknown"
CORRECTIONS = (PRESENT, ABSENT, UNKNOWN)


def write_corrected(
    directory: pathlib.Path,
    annotations: pathlib.Path,
    corrections: Mapping[tuple[str, str], str],
    output: pathlib.Path,
) -> int:
    """Writes the rows of a list of labels, in their order and with all of their columns.

    Args:
        directory: of the data set.
        annotations: its list of labels.
        corrections: "present", "absent" or "unknown" for a photo and a class, by their names as in
            the data set that was read.
        output: the file to write; may be `annotations`.

    Returns:
        The number of labels that have changed.

    Raises:
        UserError: a row is invalid, or a label is to become unknown where the list has no column
            `absent`, without which unlisted classes are absent.
    """
    problems = Problems(directory)
    changes: dict[str, dict[str, str]] = {}
    for (image, name), label in corrections.items():
        changes.setdefault(image, {})[name] = label
    header: list[str] = []
    rows, changed = [], 0
    for number, cells in annotation_rows(annotations, problems):
        header = header or list(cells)
        own = changes.get(photo_of_row(directory, cells), {})
        lists = {column: _names(cells.get(column, "")) for column in ("labels", "absent")}
        for name, label in own.items():
            if label == UNKNOWN and "absent" not in cells:
                problems.add(
                    annotations.name,
                    number,
                    f"{name!r} cannot become unknown: without a column absent, classes that are "
                    "not listed are absent; correct it to present or absent",
                )
                continue
            before = {column: dict(listed) for column, listed in lists.items()}
            for listed in lists.values():
                listed.pop(name, None)
            if label == PRESENT:
                lists["labels"][name] = name
            elif label == ABSENT and "absent" in cells:
                lists["absent"][name] = name
            changed += any(before[column].keys() != lists[column].keys() for column in lists)
        if own:
            cells = cells | {
                column: ";".join(listed.values())
                for column, listed in lists.items()
                if column in cells
            }
        rows.append([cells[column] for column in header])
    problems.raise_if_any()
    write_rows(output, header, rows, for_people=False)
    return changed


def _names(cell: str) -> dict[str, str]:
    """Returns the names in a cell as they are written, by their normal form."""
    return {normalize(part): part.strip() for part in cell.split(";") if part.strip()}
