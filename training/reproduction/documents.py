"""Trains what a table or figure of the paper compares, and writes its files."""

import pathlib
from collections.abc import Mapping, Sequence

from biam_tf.files import write_text
from training.loop.stopping import terminating_cleanly
from training.reproduction.annotation import format_annotation
from training.reproduction.costs import (
    NOTES,
    draw_costs,
    format_costs,
    measure_costs,
    write_costs,
)
from training.reproduction.entries import Study, TrainedEntry, train_entries, write_record
from training.reproduction.paper_figures import figure_entries, make_figure
from training.reproduction.paper_tables import PaperTable
from training.reproduction.results import (
    compare,
    draw_rows,
    format_rows,
    notes,
    notes_on_counts,
    tasks_of,
    write_seeds,
)
from training.tables.plots import can_plot


def reproduce_table(table: PaperTable, study: Study) -> bool:
    """Trains what is missing of a table, writes its files and prints it.

    Args:
        table: of the paper.
        study: configuration, seeds and budget.

    Returns:
        Whether all rows could be made.

    Raises:
        UserError: no row could be made.
    """
    path = study.output / f"table{table.number}"
    picture = path.with_suffix(".png")
    plotting = can_plot(picture)
    with terminating_cleanly():
        trained = train_entries(table.entries, study)
        write_record(path.with_suffix(".json"), trained)
        if table.number == 5:
            text = _costs(trained, path, plotting)
        else:
            text = _scores(table, trained, study, path)
            if plotting:
                draw_rows(picture, table, trained)
    return _finish(path, f"# {table.title}\n\n{text}", [picture] if plotting else [], trained)


def reproduce_figure(number: int, study: Study) -> bool:
    """Trains what is missing of figure 5, 6, 7 or 8, draws it and prints its numbers.

    Returns:
        Whether all rows could be made.

    Raises:
        UserError: no row could be made, or the photos do not suffice.
    """
    path = study.output / f"figure{number}"
    can_plot(path.with_suffix(".png"))
    with terminating_cleanly():
        trained = train_entries(figure_entries(number), study)
        write_record(path.with_suffix(".json"), trained)
        figure = make_figure(number, trained, path)
        write_seeds(path.with_suffix(".csv"), trained, _ks(trained))
    counts = "\n".join(notes_on_counts(trained))
    text = f"# Figure {number}\n\n{figure.table.markdown()}\n{counts}\n"
    return _finish(path, text, figure.pictures, trained)


def _scores(
    table: PaperTable, trained: Mapping[str, TrainedEntry], study: Study, path: pathlib.Path
) -> str:
    """The table's figures as Markdown; those of every seed are written to a CSV file."""
    whole = [key for key, row in trained.items() if not row.error]
    ks, config = _ks(trained), study.config_of((), study.first_seed)
    comparison = compare(trained, whole[-1], ks[0], study.first_seed)
    write_seeds(path.with_suffix(".csv"), trained, ks, tasks_of(table))
    rows = format_rows(table, trained, comparison, config.data.name, ks)
    text = f"{rows}\n{notes(trained, study.budget, study.seeds, comparison.resamples)}"
    for key, source in table.later_sources.items():
        text += f"\nPublished figures of {table.entries[key].title}: {source}.\n"
    return f"{text}\n{format_annotation(trained)}" if table.standard else text


def _costs(trained: Mapping[str, TrainedEntry], path: pathlib.Path, plotting: bool) -> str:
    """Table 5 as Markdown; its numbers are also written to a CSV file and drawn."""
    costs = {key: measure_costs(row.folders[0]) for key, row in trained.items() if not row.error}
    write_costs(path.with_suffix(".csv"), trained, costs)
    if plotting:
        draw_costs(path.with_suffix(".png"), trained, costs)
    counts = "\n".join(notes_on_counts(trained))
    return f"{format_costs(trained, costs)}\n{NOTES.rstrip()}\n{counts}\n"


def _ks(trained: Mapping[str, TrainedEntry]) -> list[int]:
    """The Ks of F1@K that the runs were evaluated with."""
    metrics = next(row.metrics[0] for row in trained.values() if not row.error)
    return sorted(int(name.removeprefix("F1@")) for name in metrics["gzsl"] if "F1@" in name)


def _finish(
    path: pathlib.Path,
    text: str,
    pictures: Sequence[pathlib.Path],
    trained: Mapping[str, TrainedEntry],
) -> bool:
    write_text(path.with_suffix(".md"), text)
    print("\n" + text)
    for picture in pictures:
        print(f"Look at {picture}")
    return not any(row.error for row in trained.values())
