"""Tags photos and whole folders: `python -m serving.predict`."""

import argparse
import functools
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from biam_tf.locks import locked
from serving.prediction import tables
from serving.prediction.class_options import (
    add_class_options,
    add_model_name,
    add_photos,
    add_selection_options,
    named_classes,
    selection_of,
)
from serving.prediction.journal import Journal
from serving.prediction.keyword_output import NOT_PRESENT, check_keyword_output, write_keywords
from serving.prediction.photo_list import ListedPhoto, find_photos
from serving.prediction.question import DEFAULT_TOP, Question
from serving.prediction.taggers import PhotoTagger, open_tagger
from serving.prediction.tagging import repaired, tag_photos

DEFAULT_PRESET = "efficientnet_lite0_imagenet_minilm"
# Exit status if photos could not be tagged, or their keywords not be written.
SOME_FAILED = 1
_PROBLEMS_SHOWN = 20

DESCRIPTION = f"""\
Tags photos, and folders of photos with all that lies below, and prints the best tags of each photo.
Without --model, --preset or --server, the model is the pretrained tagger
{DEFAULT_PRESET}, which needs no training
(docs/pretrained_taggers.md).

Stop it at any time with Ctrl-C: the same command continues where it stopped. Photos that have not
changed are not tagged again, whatever output is asked for; those that changed are. A broken photo
is named and left out.

Exit status: 0 if all photos were tagged, 1 if some could not be, 2 if nothing could be done.
"""

EXAMPLES = """\
examples:
  what is in my photos
    python -m serving.predict ~/Pictures
  which of these, as a table for a spreadsheet
    python -m serving.predict ~/Pictures --classes "dog, red car, beach" --csv tags.csv
  with a model of your own, drawing where each tag was found
    python -m serving.predict ~/Pictures --model runs/my-photos --draw drawn
  keywords for digiKam, Lightroom and others, under "auto"; first only show what would change
    python -m serving.predict ~/Pictures --xmp sidecar --xmp-prefix auto --dry-run
    python -m serving.predict ~/Pictures --xmp sidecar --xmp-prefix auto
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.predict",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_photos(parser, "PHOTO_OR_FOLDER")
    _add_model_options(parser)
    add_class_options(parser)
    _add_tag_options(parser)
    _add_output_options(parser)
    parser.add_argument(
        "--beam",
        action="store_true",
        help="tag with an Apache Beam pipeline, on many machines if its options say so (extra "
        "[beam]); the other outputs are written by this process",
    )
    parser.add_argument(
        "--beam-options",
        metavar="TEXT",
        help='options of the pipeline: --beam-options="--runner=FlinkRunner --parallelism=8"',
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="forget what was answered before and tag all photos again",
    )
    return run_command(parser, _command, argv, resumable=True)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model").add_mutually_exclusive_group()
    group.add_argument("--model", metavar="DIR", help="folder of a run or of an exported model")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help=f"a pretrained tagger (default: {DEFAULT_PRESET})",
    )
    group.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="a running server: TensorFlow Serving, or python -m serving.server (extra [client])",
    )
    add_model_name(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="limit for each request to the server (default: 60)",
    )


def _add_tag_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "tags",
        "Without these options, the best are listed, and those that reach the model's own "
        "thresholds are marked as present.",
    )
    group.add_argument(
        "--top",
        type=int,
        metavar="N",
        help=f"largest number of tags of a photo (default: {DEFAULT_TOP}; with --present, "
        "--probability or --threshold no limit)",
    )
    add_selection_options(parser)


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "output", "Any of these; without one, a table is printed on the screen."
    )
    group.add_argument("--table", action="store_true", help="print the table all the same")
    group.add_argument(
        "--csv", metavar="FILE", help="one line per tag: photo, tag, score, probability, present"
    )
    group.add_argument("--jsonl", metavar="FILE", help="one JSON object per photo and line")
    group.add_argument(
        "--draw",
        metavar="FOLDER",
        type=pathlib.Path,
        help="draw each photo with its tags and where they were found, into this folder",
    )
    group.add_argument(
        "--xmp",
        choices=("sidecar", "embed"),
        help="write the present tags as keywords, which photo software reads: into a sidecar "
        "beside each photo (extra [xmp]), or into the photo itself (program exiftool); other "
        "keywords stay",
    )
    group.add_argument(
        "--xmp-prefix",
        metavar="PATH",
        default="",
        help='levels above the keywords in the tree of tags, such as "auto" or "auto/objects"',
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="with --xmp: show what would change, write nothing",
    )


def _command(arguments: argparse.Namespace) -> int:
    question = _question(arguments)
    _check_outputs(arguments)
    photos = find_photos(arguments.photos)
    if arguments.xmp:
        check_keyword_output(arguments.xmp, photos, arguments.dry_run)
    journal = Journal(question.identity(), arguments.again)
    print(f"{len(photos)} photos, {question.name}", file=sys.stderr)

    @functools.cache
    def load() -> PhotoTagger:
        tagger = open_tagger(question)
        if arguments.xmp and not (tagger.has_thresholds or question.threshold is not None):
            raise UserError(f"--xmp: {question.name} {NOT_PRESENT}")
        return tagger

    with locked(journal.lock, "photos are being tagged with this model and these classes"):
        journal.open()
        keys = [photo.key for photo in photos]
        to_do = journal.to_do(keys)
        waiting = set(to_do)
        to_do += repaired(journal, [key for key in keys if key not in waiting])
        if arguments.beam:
            from serving.prediction.beam_tagging import tag_with_beam

            tag_with_beam(journal, to_do, question, shlex.split(arguments.beam_options or ""))
        else:
            tag_photos(journal, to_do, len(keys), load)
        if arguments.csv:
            tables.write_csv(arguments.csv, _rows(journal, photos))
        if arguments.jsonl:
            tables.write_jsonl(arguments.jsonl, _rows(journal, photos))
        if arguments.draw:
            _draw(arguments.draw, journal, photos, load)
        others = (arguments.csv, arguments.jsonl, arguments.xmp, arguments.draw)
        if arguments.table or not any(others):
            tables.print_table(_rows(journal, photos))
        refused = 0
        if arguments.xmp:
            refused = write_keywords(
                arguments.xmp, arguments.xmp_prefix, arguments.dry_run, journal, photos
            )
        return _report(journal, photos) or (SOME_FAILED if refused else 0)


def _draw(
    folder: pathlib.Path,
    journal: Journal,
    photos: Sequence[ListedPhoto],
    load: Callable[[], PhotoTagger],
) -> None:
    from serving.prediction.drawing import draw_photos, places_to_draw, to_draw

    places = places_to_draw(folder, photos)
    left = to_draw(places, journal, photos)
    if left:
        draw_photos(load(), places, journal, left)
    drawn = sum(bool(journal.get(photo.key).tags) for photo in photos)
    print(f"{folder}: {drawn} pictures, {len(left)} of them new", file=sys.stderr)


def _rows(journal: Journal, photos: Sequence[ListedPhoto]) -> "Iterator":
    return ((photo.path, journal.get(photo.key)) for photo in photos)


def _question(arguments: argparse.Namespace) -> Question:
    selection = selection_of(arguments, arguments.top)
    if arguments.top is not None and arguments.top < 1:
        raise UserError(f"--top {arguments.top}: use at least 1")
    if arguments.timeout <= 0:
        raise UserError(f"--timeout {arguments.timeout}: use a positive number")
    names = named_classes(arguments)
    preset = arguments.preset
    if not (arguments.model or preset or arguments.server):
        preset = DEFAULT_PRESET
    return Question(
        model=None if arguments.model is None else os.path.abspath(arguments.model),
        preset=preset,
        server=arguments.server,
        model_name=arguments.model_name,
        timeout=arguments.timeout,
        classes=None if names is None else tuple(names),
        top=arguments.top or (None if selection.leaves_out else DEFAULT_TOP),
        present=arguments.present,
        threshold=arguments.threshold,
        probability=arguments.probability,
    )


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuses files that cannot be written, before minutes of work."""
    if arguments.beam_options is not None and not arguments.beam:
        raise UserError("--beam-options are those of a Beam pipeline; add --beam")
    if arguments.dry_run and not arguments.xmp:
        raise UserError("--dry-run shows what --xmp would change; add --xmp sidecar or --xmp embed")
    if arguments.dry_run and (arguments.csv or arguments.jsonl or arguments.draw):
        raise UserError("--dry-run writes nothing; leave out --csv, --jsonl and --draw")
    if arguments.draw is not None:
        folder = arguments.draw.absolute()
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise UserError(f"--draw {arguments.draw}: {folder} is a file; name a folder")
        if not os.access(folder, os.W_OK):
            raise UserError(
                f"--draw {arguments.draw}: {folder} may not be written; name another folder"
            )
    for option, path in (("--csv", arguments.csv), ("--jsonl", arguments.jsonl)):
        if path is not None:
            tables.require_writable(option, path)


def _report(journal: Journal, photos: Sequence[ListedPhoto]) -> int:
    """Names the photos that were not tagged, and returns the exit status."""
    broken = [(path, answer.problem) for path, answer in _rows(journal, photos) if answer.problem]
    for path, problem in broken[:_PROBLEMS_SHOWN]:
        print(f"not tagged: {path}: {problem}", file=sys.stderr)
    if len(broken) > _PROBLEMS_SHOWN:
        print(f"not tagged: and {len(broken) - _PROBLEMS_SHOWN} more", file=sys.stderr)
    if broken:
        print(f"{len(broken)} of {len(photos)} photos were not tagged", file=sys.stderr)
    return SOME_FAILED if broken else 0


if __name__ == "__main__":
    sys.exit(main())
