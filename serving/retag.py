"""Scores indexed photos against any classes: `python -m serving.retag`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving.indexing.class_query import ClassQuery
from serving.indexing.match_table import (
    WRITERS,
    best_classes,
    best_photos,
    best_rows,
    write_table,
)
from serving.indexing.nearest_photos import NearestPhotos
from serving.indexing.photo_index import PhotoIndex
from serving.indexing.search_photos import ranking_rows, search_photos, write_ranking
from serving.prediction.class_options import (
    add_class_options,
    add_selection_options,
    named_classes,
    selection_of,
)
from serving.rpc.photo_tagging import calibrated_columns, tick_for

DESCRIPTION = """\
Scores the photos of an index (python -m serving.index) against any classes, without the model and
without the photos, and prints the best tags of each photo: score, probability, and a tick for a
class that reaches its threshold. With --search it prints the best photos of each class instead.
Without --classes it uses those of the training run.

With --query it prints the photos that show what a query says: classes joined by and, or, not and
brackets, each decided by its threshold. A name that contains one of these words, a comma or a
bracket is put in double quotes.
"""

EXAMPLES = """\
examples:
  python -m serving.retag pictures.index --classes "dog, beach" --word-vectors glove.6B.300d.txt
  python -m serving.retag pictures.index --classes "red car" --search --top 20
  python -m serving.retag pictures.index --classes "red car" --search --nearest
  python -m serving.retag pictures.index --classes-file classes.txt --output tags.csv
  python -m serving.retag pictures.index --classes "dog, beach" --present
  python -m serving.retag pictures.index --query 'beach and (dog or horse) and not people'
  python -m serving.retag pictures.index --query '"salt and pepper"' --output photos.csv
"""


_DEFAULT_TOP = 5

NO_THRESHOLDS = (
    "the index has no thresholds: the run of its model had no validation photos, or the index was "
    "made by an early version and the model is gone"
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.retag",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", metavar="INDEX", type=pathlib.Path, help="folder of an index")
    add_class_options(parser)
    parser.add_argument(
        "--query",
        metavar="QUERY",
        help="list the photos that show this: class names joined by and, or, not and brackets",
    )
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        help="embeddings of classes that the model was not trained with: GloVe text, .npz or an "
        "attribute table .csv",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="list the best photos of each class instead of the best tags of each photo",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="tags per photo, or photos per class (default: 5; with --query: all that show it)",
    )
    parser.add_argument(
        "--nearest",
        action="store_true",
        help="with --search: look at the photos nearest to each class alone, which python -m "
        "serving.nearest prepared, in place of all; for large indexes",
    )
    add_selection_options(parser)
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="write the result into a .csv or .json file instead of printing it",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    if arguments.top is not None and arguments.top < 1:
        raise UserError(f"--top {arguments.top}: use at least 1")
    if arguments.output and arguments.output.suffix.lower() not in WRITERS:
        raise UserError(f"--output {arguments.output}: end the name with .csv or .json")
    if arguments.nearest and not arguments.search:
        raise UserError("--nearest goes with --search: other answers need all photos")
    if arguments.query is not None:
        for name in ("classes", "classes_file", "search", "present", "probability", "threshold"):
            if getattr(arguments, name) not in (None, False):
                raise UserError(
                    f"--query excludes --{name.replace('_', '-')}: it names its own classes, each "
                    "decided by its threshold"
                )
    index = PhotoIndex(arguments.index)
    if arguments.query is None:
        _list_classes(arguments, index)
    else:
        _list_query(arguments, index)
    if damage := index.damage_in_words():
        print(damage, file=sys.stderr)


def _list_classes(arguments: argparse.Namespace, index: PhotoIndex) -> None:
    selection = selection_of(arguments, arguments.top or _DEFAULT_TOP)
    names = named_classes(arguments) or list(index.vocabulary.names)
    class_embeddings = index.embed(names, arguments.word_vectors)
    its = index.calibration(names, class_embeddings)
    if its is None:
        if selection.needs_calibration:
            raise UserError(f"{arguments.index}: {NO_THRESHOLDS}")
        print(f"scores only: {NO_THRESHOLDS}", file=sys.stderr)
    vectors = index.class_vectors(class_embeddings)
    if arguments.search:
        headings = ("class", "photo")
        count = min(arguments.top or _DEFAULT_TOP, max(1, len(index)))
        if arguments.nearest:
            found = list(NearestPhotos.open(index).search(vectors, count))
        else:
            found = best_rows(index.score_blocks(vectors), len(names), count)
        matches = best_photos(found, index.photos, names, selection, its)
    else:
        headings = ("photo", "tag")
        blocks = index.score_blocks(vectors)
        matches = best_classes(blocks, index.photos, names, selection, its)
    if arguments.output:
        write_table(arguments.output, headings, matches, its is not None)
        print(f"{arguments.output}: {len(index)} photos, {len(names)} classes")
        return
    tick = tick_for(sys.stdout)
    for number, (name, best) in enumerate(matches):
        print(("\n" if number else "") + name)
        for tag in best:
            print(f"  {tag.score:8.3f}  {calibrated_columns(tag, tick)}{tag.name}")


def _list_query(arguments: argparse.Namespace, index: PhotoIndex) -> None:
    query = ClassQuery.parse(arguments.query, index.vocabulary.index.rows)
    ranking = search_photos(index, query, index.embed(query.names, arguments.word_vectors))
    if ranking.decided is None:
        shown = ranking.first(arguments.top or _DEFAULT_TOP)
        said = f"the best {len(shown.rows)} of {len(index):,} photos; {NO_THRESHOLDS}"
    else:
        shown = ranking.first(min(ranking.decided, arguments.top or ranking.decided))
        said = f"{ranking.decided:,} of {len(index):,} photos"
        if len(shown.rows) < ranking.decided:
            said += f", of which the best {len(shown.rows)}"
    rows = ranking_rows(index, query.names, shown)
    if arguments.output:
        write_ranking(arguments.output, query.names, rows)
        print(f"{arguments.output}: {said}")
        return
    print(f"{arguments.query}: {said}")
    for row in rows:
        print(f"  {row['rank by']:8.3f}  {row['photo']}")


if __name__ == "__main__":
    sys.exit(main())
