"""The paper's tables and figures on one's own data: `python -m training.reproduce --table 1`."""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from training.cli import add_config_arguments, require_one_process, run_command

DESCRIPTION = """\
Trains what a table or figure of the paper compares and prints it in the paper's layout: mean and
spread over the seeds, the paper's figures beside (which are of NUS-WIDE or Open Images), and how
far each system is from BiAM, with the interval of a paired bootstrap over the test photos.

  table 1, 2   BiAM and its rivals, ZSL and GZSL (2: the paper's are of Open Images)
  table 3      what each block adds
  table 4      attention variants
  table 5      costs: time, operations, memory, on this machine
  table 6, 7   standard multi-label classification: all classes are seen
  table 8      another backbone, ResNet-50 of DINO (--set backbone.weights=FILE.pth)

  figure 5     region-based against pooled classification
  figure 6     t-SNE of the features that both classify (needs scikit-learn)
  figure 7     the number of heads, of regions averaged, and of regions
  figure 8     photos with each system's top tags and response maps (9 to 11 are more of it)

Every system gets the same budget: with --budget N, N settings (learning rates, or what a closed
form has instead) are trained with one seed, the best on validation photos is taken, and the other
seeds follow. Runs are named by their settings: those that are there are taken as they are, also
from another table, and a stopped one goes on, so that the same command continues.

Below --output: tableN.md or figureN.md, a .csv (every seed; table 5: the costs), the picture (needs
matplotlib, the extra [report]), a .json (the runs, what was tried and chosen), runs/ and the stored
features.
"""

EXAMPLES = """\
examples:
  python -m training.reproduce --table 1 --config configs/corel5k.yaml --data data/corel5k \\
      --set vocabulary.word_vectors=glove.6B.100d.txt
  python -m training.reproduce --table 3 --budget 1 --config configs/nus_wide_paper.yaml \\
      --data NUS-WIDE --set vocabulary.word_vectors=glove.6B.300d.txt
"""


def main(argv=None) -> int:
    """Runs the command line; returns the exit status: 1 where a row could not be made."""
    parser = argparse.ArgumentParser(
        prog="python -m training.reproduce",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", type=int, choices=range(1, 9), metavar="N", help="number, 1 to 8")
    what.add_argument("--figure", type=int, choices=range(5, 9), metavar="N", help="number, 5 to 8")
    parser.add_argument(
        "--data", metavar="DIR", help="the data set's folder; short for --set data.directory=DIR"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="trainings of each system (default: 3)"
    )
    parser.add_argument(
        "--budget",
        type=int,
        default=3,
        metavar="N",
        help="settings tried of each system on validation photos; 1: as configured (default: 3)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/reproduction"),
        metavar="DIR",
        help="where everything goes (default: runs/reproduction)",
    )
    add_config_arguments(parser, config="YAML settings that all systems share (default: the "
                         "quickstart's)")  # fmt: skip
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> int:
    from biam_tf.errors import UserError
    from training.config import load_config

    for option in ("seeds", "budget"):
        if getattr(arguments, option) < 1:
            raise UserError(f"--{option} {getattr(arguments, option)}: expected at least 1")
    if any(setting.partition("=")[0].strip() == "output" for setting in arguments.set):
        raise UserError("--set output: every run has a folder below --output; leave this out")
    settings = list(arguments.set)
    if arguments.data is not None:
        settings.append(f"data.directory={arguments.data}")

    from biam_tf.files import write_text
    from training.experiments.trials import markdown_table
    from training.loop.stopping import terminating_cleanly
    from training.reproduction.experiments import Study, train_entries, write_record
    from training.reproduction.figures import figure_entries, make_figure
    from training.reproduction.output import draw_rows, write_seeds
    from training.reproduction.tables import make_table
    from training.tables.plots import can_plot

    table = None if arguments.table is None else make_table(arguments.table)
    settings += table.settings if table else ()
    require_one_process(load_config(arguments.config, settings), "a table")
    study = Study(
        arguments.config, tuple(settings), arguments.output, arguments.seeds, arguments.budget
    )
    name = f"table{table.number}" if table else f"figure{arguments.figure}"
    place = arguments.output / name
    picture = place.with_suffix(".png")
    plotting = can_plot(picture)
    pictures = [picture] if plotting else []
    with terminating_cleanly():
        entries = table.entries if table else figure_entries(arguments.figure)
        trained = train_entries(entries, study)
        write_record(place.with_suffix(".json"), trained)
        if table is None:
            figure = make_figure(arguments.figure, trained, place)
            write_seeds(place.with_suffix(".csv"), trained, _ks(trained))
            rows, pictures = markdown_table(figure.header, figure.rows), figure.pictures
            text = f"# Figure {arguments.figure}\n\n{rows}"
        elif table.number == 5:
            text = _costs(table, trained, place, plotting)
        else:
            text = _scores(table, trained, study)
            if plotting:
                draw_rows(picture, table, trained)
    write_text(place.with_suffix(".md"), text)
    print("\n" + text)
    for picture in pictures:
        print(f"Look at {picture}")
    return 1 if any(row.error for row in trained.values()) else 0


def _scores(table, trained, study) -> str:
    """The table of figures as Markdown; every seed goes into a CSV file beside it."""
    from training.reproduction import output
    from training.reproduction.significance import compare

    whole = [key for key, row in trained.items() if not row.error]
    ks, config = _ks(trained), study.config_of((), study.first_seed)
    comparison = compare(trained, whole[-1], ks[0], study.first_seed)
    path = study.output / f"table{table.number}.csv"
    output.write_seeds(path, trained, ks, output.tasks_of(table))
    rows = output.format_rows(table, trained, comparison, config.data.name, ks)
    notes = output.notes(trained, study.budget, study.seeds, comparison.resamples)
    text = f"# {table.title}\n\n{rows}\n{notes}"
    if table.standard:
        from training.reproduction.annotation import format_annotation

        text += f"\n{format_annotation(trained)}"
    return text


def _costs(table, trained, place, plotting) -> str:
    """Table 5 as Markdown; its numbers go into a CSV file, and a picture, beside it."""
    from training.reproduction.costs import (
        NOTES,
        draw_costs,
        format_costs,
        measure_costs,
        write_costs,
    )

    costs = {key: measure_costs(row.folders[0]) for key, row in trained.items() if not row.error}
    write_costs(place.with_suffix(".csv"), trained, costs)
    if plotting:
        draw_costs(place.with_suffix(".png"), trained, costs)
    return f"# {table.title}\n\n{format_costs(trained, costs)}\n{NOTES}"


def _ks(trained) -> list[int]:
    """The Ks of F1@K that the runs were evaluated with."""
    metrics = next(row.metrics[0] for row in trained.values() if not row.error)
    return sorted(int(name.removeprefix("F1@")) for name in metrics["gzsl"] if "F1@" in name)


if __name__ == "__main__":
    sys.exit(main())
