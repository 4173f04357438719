"""The paper's tables and figures on your own data: `python -m training.reproduce --table 1`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.cli import add_config_arguments, require_one_process, run_command

if TYPE_CHECKING:
    from training.config import RunConfig

DESCRIPTION = """\
Trains what a table or figure of the paper compares and prints it in the paper's layout: mean and
spread over the seeds, the paper's own figures (on NUS-WIDE or Open Images), and the difference of
each system from BiAM, with the interval of a paired bootstrap over the test photos.

  table 1, 2   BiAM and other systems, also later ones, ZSL and GZSL (2: in the paper, Open Images)
  table 3      contribution of each block
  table 4      attention variants
  table 5      costs: time, operations, memory, on this machine
  table 6, 7   standard multi-label classification: all classes are seen
  table 8      another backbone, ResNet-50 of DINO (--set backbone.weights=FILE.pth)

With the backbone and the class embeddings of an image-text model (docs/image_text_models.md),
tables 1, 2, 6 and 7 also have rows of that model without training.

  figure 5     region-based and pooled classification
  figure 6     t-SNE of the features that both classify (needs scikit-learn)
  figure 7     the number of heads, of averaged regions, and of regions
  figure 8     photos with each system's top tags and response maps (like 9 to 11)

Every system gets the same budget: with --budget N, N settings (learning rates, or regularization of
a closed form) are trained with one seed, and the best on validation photos is trained with the
other seeds. Runs are named by their settings: complete ones are reused, also from another table,
and a stopped one is resumed, so the same command continues.

Output: tableN.md or figureN.md, a .csv (every seed; table 5: the costs), the picture (needs
matplotlib, the extra [report]), a .json (the runs, the settings tried and chosen), runs/ and the
stored features.
"""

EXAMPLES = """\
examples:
  python -m training.reproduce --table 1 --config configs/corel5k.yaml --data data/corel5k \\
      --set vocabulary.word_vectors=glove.6B.100d.txt
  python -m training.reproduce --table 3 --budget 1 --config configs/nus_wide_paper.yaml \\
      --data NUS-WIDE --set vocabulary.word_vectors=glove.6B.300d.txt
  python -m training.reproduce --table 1 --rows clip,recommended --budget 1 \\
      --config configs/siglip2.yaml --data MY_PHOTOS
  python -m training.reproduce --table 1 --rows eszsl,mkt,ot_match,biam --budget 1 \\
      --config configs/corel5k.yaml --data data/corel5k \\
      --set vocabulary.word_vectors=glove.6B.100d.txt
"""

# Has the paper's head, in contrast to `recommended`.
_FOLDERS_CONFIGURATION = "corel5k"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if a row could not be made."""
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
        "--seeds", type=int, default=3, metavar="N", help="runs per system (default: 3)"
    )
    parser.add_argument(
        "--budget",
        type=int,
        default=3,
        metavar="N",
        help="settings tried per system on validation photos; 1: as configured (default: 3)",
    )
    parser.add_argument(
        "--rows",
        metavar="NAME,…",
        help="of a table, only these rows, such as sdl,mkt,recommended,biam, or other systems by "
        "their names; the last one is what the others are compared with (default: all rows)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/reproduction"),
        metavar="DIR",
        help="folder for all output (default: runs/reproduction)",
    )
    add_config_arguments(
        parser,
        config="YAML settings of all systems: a file, or the name of one that comes with the "
        "project (default: the quickstart's; corel5k if --data is a folder of photos)",
    )
    return run_command(parser, _command, argv, resumable=True)


def _command(arguments: argparse.Namespace) -> int:
    from biam_tf.errors import UserError
    from training.config import load_config
    from training.data.scenes.reader import is_photo_folder

    for option in ("seeds", "budget"):
        if getattr(arguments, option) < 1:
            raise UserError(f"--{option} {getattr(arguments, option)}: expected at least 1")
    if any(setting.partition("=")[0].strip() == "output" for setting in arguments.set):
        raise UserError("--set output: every run has its own folder below --output; leave this out")
    settings, file = list(arguments.set), arguments.config
    if file is None and arguments.data is not None and is_photo_folder(arguments.data):
        file = _FOLDERS_CONFIGURATION
        print(f"{arguments.data} is a folder of photos: --config {file}", flush=True)
    if arguments.data is not None:
        settings.append(f"data.directory={arguments.data}")

    config = load_config(file, settings)  # before TensorFlow is imported

    from training.reproduction.documents import reproduce_figure, reproduce_table
    from training.reproduction.entries import Study
    from training.reproduction.paper_tables import make_table

    if config.head.system != "biam":
        print(f"the configured head is {config.head.system}: BiAM's rows have its preset paper")
        settings.append("head={system: biam, preset: paper}")
    table = None
    if arguments.table is not None:
        table = make_table(
            arguments.table,
            arguments.table in (1, 2) and _has_classes(config),
            arguments.table in (1, 2, 6, 7) and _is_image_text(config),
        )
        if arguments.rows is not None:
            table = table.with_rows([key.strip() for key in arguments.rows.split(",")])
    elif arguments.rows is not None:
        raise UserError("--rows: a figure has no rows; use it with --table")
    settings += table.settings if table else ()
    require_one_process(load_config(file, settings), "a table")
    study = Study(file, tuple(settings), arguments.output, arguments.seeds, arguments.budget)
    if table is None:
        complete = reproduce_figure(arguments.figure, study)
    else:
        complete = reproduce_table(table, study)
    return 0 if complete else 1


def _is_image_text(config: "RunConfig") -> bool:
    """Returns whether features and class embeddings are of an image-text model."""
    from biam_tf.backbones import is_in_space_of_texts

    return is_in_space_of_texts(config.backbone.name, config.backbone.regions)


def _has_classes(config: "RunConfig") -> bool:
    """Returns whether the backbone knows classes by name; prints why not."""
    from biam_tf.backbones import load_classifier
    from biam_tf.errors import UserError

    try:
        load_classifier(config.backbone.name, config.backbone.weights)
    except UserError as error:
        print(f"without a row for the backbone's own classes: {error}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
