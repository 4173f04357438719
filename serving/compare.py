"""Compares the tags that two models give the same photos: `python -m serving.compare`."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from biam_tf.progress import progress
from serving.prediction.class_options import add_class_options, add_photos, named_classes
from serving.prediction.comparison import Summary, compare_photos, write_changes
from serving.prediction.photo_list import find_photos
from serving.prediction.question import Question
from serving.prediction.tables import require_writable
from serving.prediction.taggers import LocalTagger

TOO_MANY_CHANGES = 1
_SHOWN = 10

DESCRIPTION = """\
Tags photos with two models and prints what the new one would change: the tags that are lost and
gained, the classes and the photos that change most. Run it on photos of your own before a new model
is served. Each model decides by its own thresholds which tags are present, or, with --top, by its
highest scores.

Exit status: 0, or 1 if more tags change than --most-changes allows, 2 if nothing could be compared.
"""

EXAMPLES = """\
examples:
  two versions of a model, with the classes that both were trained on
    python -m serving.compare models/tagger/1 models/tagger/2 ~/Pictures
  a run against the served model; every changed tag in a table
    python -m serving.compare models/tagger runs/new ~/Pictures --csv changes.csv
  in a pipeline that stops when more than one tag in ten changes
    python -m serving.compare models/tagger/1 models/tagger/2 photos --most-changes 10
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.compare",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("OLD", "NEW"):
        parser.add_argument(
            name.lower(),
            metavar=name,
            help="folder of a run, of an exported model or of one of its versions",
        )
    add_photos(parser, "PHOTO_OR_FOLDER")
    add_class_options(parser)
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="compare the N highest scores of each photo, for models without thresholds "
        "(default: the classes that are present)",
    )
    parser.add_argument("--csv", metavar="FILE", help="one line per changed tag")
    parser.add_argument(
        "--most-changes",
        type=float,
        metavar="PERCENT",
        help="exit with status 1 if a larger share of the tags that either model gives changes",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> int:
    if arguments.top is not None and arguments.top < 1:
        raise UserError(f"--top {arguments.top}: use at least 1")
    most = arguments.most_changes
    if most is not None and not 0 <= most <= 100:
        raise UserError(f"--most-changes {most:g}: use a number of per cent, from 0 to 100")
    photos = find_photos(arguments.photos)
    classes = named_classes(arguments)
    questions = [
        Question(model=path, classes=None if classes is None else tuple(classes), top=None)
        for path in (arguments.old, arguments.new)
    ]
    for question in questions:
        question.identity()  # there is a model
    if arguments.csv:
        require_writable("--csv", arguments.csv)

    from biam_tf import Tagger  # brings TensorFlow

    models = [Tagger.load(path) for path in (arguments.old, arguments.new)]
    if classes is None:
        questions = _with_shared_classes(questions, [model.vocabulary.names for model in models])
    old, new = map(LocalTagger, questions, models)
    for tagger, path in ((old, arguments.old), (new, arguments.new)):
        if arguments.top is None and not tagger.has_thresholds:
            raise UserError(
                f"{path} has no thresholds, as it was trained without validation photos; compare "
                "the best tags with --top N"
            )
    summary = Summary()
    compared = compare_photos(old, new, photos, arguments.top)
    if arguments.csv:
        compared = write_changes(arguments.csv, compared)
    with progress(len(photos), "Comparing", "photo") as bar:
        for photo in compared:
            summary.add(photo, _SHOWN)
            bar.update(1)
    for photo in summary.problems[:_SHOWN]:
        print(f"{photo.path}: {photo.problem}", file=sys.stderr)
    if len(summary.problems) > _SHOWN:
        print(f"and {len(summary.problems) - _SHOWN} more broken photos", file=sys.stderr)
    if not summary.photos:
        raise UserError("no photo could be compared; see the lines above")
    print(f"OLD: {arguments.old}\nNEW: {arguments.new}\n")
    print("\n".join(summary.lines(_SHOWN)))
    if most is not None and 100 * summary.changed_share > most:
        print(f"\nMore than {most:g} % of the tags change (--most-changes).", file=sys.stderr)
        return TOO_MANY_CHANGES
    return 0


def _with_shared_classes(
    questions: Sequence[Question], classes: Sequence[Sequence[str]]
) -> list[Question]:
    """Returns the questions with the class names that both models were trained or exported with.

    Raises:
        UserError: there is none.
    """
    old, new = classes
    shared = tuple(name for name in old if name in set(new))
    if not shared:
        raise UserError("the models have no class in common; name some with --classes")
    for names, path in ((old, questions[0].model), (new, questions[1].model)):
        if len(names) > len(shared):
            print(
                f"{len(names) - len(shared)} classes of {path} are left out: the other model does "
                "not have them; --classes names others",
                file=sys.stderr,
            )
    return [dataclasses.replace(question, classes=shared) for question in questions]


if __name__ == "__main__":
    sys.exit(main())
