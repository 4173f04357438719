"""What each class name was embedded by: lines for the screen, a table for a spreadsheet."""

import collections
import pathlib
from collections.abc import Sequence

from biam_tf.embeddings.sources import Embedded, Found
from biam_tf.files import write_text
from training.tables.csv_files import csv_text

_SHOWN = 20


def coverage_path(output: pathlib.Path) -> pathlib.Path:
    """Returns where the table of `output` goes."""
    return output.with_suffix(".coverage.csv")


def write_coverage(path: pathlib.Path, parts: Sequence[Embedded]) -> None:
    """Writes a row for each name and source: `name,source,found by,how,nearest`."""
    rows = []
    for part in parts:
        for found in part.found:
            by = "" if found.missing else "; ".join(found.texts)
            how = f"missing: {', '.join(found.texts)}" if found.missing else found.how or "as it is"
            rows.append([found.name, part.source, by, how, ", ".join(found.nearest)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, csv_text(["name", "source", "found by", "how", "nearest"], rows))


def describe_coverage(parts: Sequence[Embedded]) -> str:
    """Returns how many names each source has and how, and those a person should look at."""
    return "\n".join(line for part in parts for line in _lines(part))


def _lines(part: Embedded) -> list[str]:
    there = len(part.found) - len(part.missing)
    size = part.rows.shape[1]
    lines = [f"{part.source} ({part.kind}, {size} numbers): {there} of {len(part.found)} names"]
    ways = collections.Counter(found.how or "as it is" for found in part.found if not found.missing)
    lines += [f"  {count:6d}  {how}" for how, count in ways.most_common()]
    changed = [found for found in part.found if _is_worth_a_look(found)]
    lines += [f"    {found.name} → {' + '.join(found.texts)}" for found in changed[:_SHOWN]]
    lines += [f"    and {len(changed) - _SHOWN} more"] * (len(changed) > _SHOWN)
    if part.missing:
        lines += [f"  {len(part.missing):6d}  missing"]
        lines += [f"    {_missing(found)}" for found in part.missing[:_SHOWN]]
        lines += [f"    and {len(part.missing) - _SHOWN} more"] * (len(part.missing) > _SHOWN)
    return lines


def _is_worth_a_look(found: Found) -> bool:
    return not found.missing and any(
        step in found.how for step in ("singular", "plural", "divided", "accents", "grammar")
    )


def _missing(found: Found) -> str:
    lacking = [text for text in found.texts if text != found.name]
    text = found.name + (f": lacks {', '.join(lacking)}" if lacking else "")
    return text + (f" (nearest: {', '.join(found.nearest)})" if found.nearest else "")
