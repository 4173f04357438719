"""Evaluates trained runs on any labeled photos: `python -m training.evaluate RUN --data DIR`."""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from training.cli import run_command

DESCRIPTION = """\
Scores the photos of a folder data set (annotations.csv, classes.csv) with a trained run and
writes mAP and F1@K, with 95 % intervals, for unseen classes (ZSL), all classes (GZSL) and seen
classes; F1 at the run's thresholds, where it has some; the trade between seen and unseen classes.

The data set's own classes.csv says which classes are scored and which count as seen (those of a
run with data.all_seen do in any case). They need not be the run's: a class it never heard of takes
its embedding from the word vectors that the run was trained with, or from --word-vectors; a system
that scores only what it was trained on refuses it.

Several runs are evaluated on the same photos and compared: how much each is better or worse than
the first one, with 95 % intervals of a paired bootstrap. Runs whose data_manifest.json tells of
other training data are no fair comparison and are refused; --allow-different-data says what differs
and compares them all the same. Other class embeddings are no other data.
"""

EXAMPLES = """\
examples:
  python -m training.evaluate runs/quickstart --data data/scenes-3000-seed0 --output scenes.json
  python -m training.evaluate runs/my-photos --data other-photos --split val \\
      --word-vectors glove.6B.300d.txt --output other.json --contact-sheet other.png
  python -m training.evaluate runs/my-photos --data other-photos --output other.json \\
      --report other.html
  python -m training.evaluate runs/glove runs/minilm --data my-photos --output compared.json
"""


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=pathlib.Path, help="folders of trained runs"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="folder data set")
    parser.add_argument("--split", default="test", metavar="NAME", help="default: test")
    parser.add_argument(
        "--output", required=True, type=pathlib.Path, metavar="FILE", help="where the JSON goes"
    )
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        help="embeddings of the classes: GloVe text, .npz or an attribute table .csv "
        "(default: the run's own, then the file the run was trained with)",
    )
    parser.add_argument(
        "--contact-sheet",
        type=pathlib.Path,
        metavar="PNG",
        help="also draw some photos with their top tags and response maps",
    )
    parser.add_argument(
        "--report", type=pathlib.Path, metavar="HTML", help="also write a report, one file"
    )
    parser.add_argument(
        "--allow-different-data",
        action="store_true",
        help="compare runs that were trained on other data; says what differs",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    if len(arguments.runs) > 1:
        _compare(arguments)
        return
    from biam_tf.files import write_json
    from biam_tf.runs import load_run
    from training.data.data_manifest import hash_of_split
    from training.data.folder.reader import read_folder
    from training.data.input.sources import PhotoSource
    from training.report.page import ReportData, write_report
    from training.scoring.evaluation import (
        as_trained,
        evaluate_split,
        evaluation_vocabulary,
        format_figures,
    )
    from training.scoring.explained_photos import PHOTOS_ON_SHEET, draw_sheet, explain_photos

    dataset = read_folder(arguments.data)
    split = dataset.split(arguments.split)
    run_folder = arguments.runs[0]
    run = load_run(run_folder)
    dataset = as_trained(dataset, run)
    vocabulary = evaluation_vocabulary(run, dataset, arguments.word_vectors)

    def make_source(images):
        return PhotoSource(dataset.directory, images, run.image_size, cache="stream")

    metrics, scores = evaluate_split(
        run, make_source(split.images), split.labels, vocabulary, about=dataset.about
    )
    metrics |= {"run": str(run_folder), "data": arguments.data, "split": arguments.split}
    metrics["data_hash"] = hash_of_split(dataset, arguments.split)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, metrics)
    print(f"\n{format_figures(metrics)}\n\nEvery class: {arguments.output}")
    if not arguments.contact_sheet and not arguments.report:
        return
    explained = explain_photos(run.backbone, run.head, dataset, split, vocabulary, PHOTOS_ON_SHEET)
    if arguments.contact_sheet:
        title = f"{run_folder}: {arguments.split} photos of {arguments.data}"
        draw_sheet(explained, arguments.contact_sheet, split, vocabulary, title)
        print(f"Look at {arguments.contact_sheet}")
    if arguments.report:
        data = ReportData(run, dataset, split, vocabulary, scores, metrics, explained, make_source)
        write_report(arguments.report, data)
        print(f"Look at {arguments.report}")


def _compare(arguments: argparse.Namespace) -> None:
    from biam_tf.errors import UserError
    from biam_tf.files import write_json
    from training.data.folder.reader import read_folder
    from training.scoring.comparison import compare_runs, format_comparison, require_same_data

    for option in ("contact_sheet", "report"):
        if getattr(arguments, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} shows one run; give one run with it")
    require_same_data(arguments.runs, arguments.allow_different_data)
    dataset = read_folder(arguments.data)
    compared = compare_runs(arguments.runs, dataset, arguments.split, arguments.word_vectors)
    compared |= {"data": arguments.data, "split": arguments.split}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, compared)
    print(f"\n{format_comparison(compared)}\n\nEverything: {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
