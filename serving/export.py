"""A trained run as a folder for TensorFlow Serving: `python -m serving.export RUN MODEL_DIR`."""

import argparse
import dataclasses
import os
import pathlib
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from biam_tf.command_line import run_command
from biam_tf.errors import UserError

DESCRIPTION = """\
Writes MODEL_DIR/<version>/, a SavedModel that TensorFlow Serving loads as it is and that scores
photos against whatever classes each request names.

Every signature is run and compared with the Keras model before the folder gets its name, so a
server that watches MODEL_DIR never sees half a version, nor a wrong one.
"""

EXAMPLES = """\
examples:
  python -m serving.export runs/quickstart models/quickstart
  python -m serving.export runs/my-photos models/my-photos --word-vectors glove.6B.300d.txt
  python -m serving.export runs/my-photos models/my-photos --max-batch-size 64 \\
      --batch-timeout-ms 5 --max-pixels 20000000
"""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the version's folder.
        signatures: names of the signatures, sorted.
        differences: largest difference of each signature's outputs from the Keras model's.
    """

    path: pathlib.Path
    signatures: tuple[str, ...]
    differences: dict[str, float]


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.export",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=pathlib.Path, help="folder of a trained run")
    parser.add_argument(
        "model_dir", metavar="MODEL_DIR", type=pathlib.Path, help="holds a folder for each version"
    )
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        type=pathlib.Path,
        help="what signature 'tag' looks class names up in: GloVe text, .npz or an attribute "
        "table .csv (default: the file the run was trained with, if it is still there; the "
        "run's own classes are always known)",
    )
    parser.add_argument(
        "--top-k", type=int, default=5, metavar="K", help="tags of 'tag_known' (default: 5)"
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="larger photos are refused before they are decoded (default: 64 million)",
    )
    parser.add_argument(
        "--version", type=int, metavar="N", help="default: one more than the newest"
    )
    batching = parser.add_argument_group(
        "batching", "photos of requests that come in together share one call of the backbone"
    )
    batching.add_argument(
        "--max-batch-size", type=int, metavar="N", help="default: 16, with a GPU here 64"
    )
    batching.add_argument(
        "--batch-timeout-ms",
        type=float,
        metavar="MS",
        help="how long a photo may wait for company (default: 0, with a GPU here 2)",
    )
    batching.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="calls of the backbone at a time (default: 1, with a GPU here 2)",
    )
    batching.add_argument("--no-batching", action="store_true", help="every request on its own")
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    _check(arguments)
    from biam_tf.runs import load_run
    from serving.graph.signatures import GraphSettings

    settings = GraphSettings(top_k=arguments.top_k, batching=_batching(arguments))
    if arguments.max_pixels is not None:
        settings = dataclasses.replace(settings, max_pixels=arguments.max_pixels)
    exported = export(
        load_run(arguments.run),
        arguments.model_dir,
        settings,
        word_vectors=arguments.word_vectors,
        version=arguments.version,
    )
    print(f"{exported.path}: largest difference from the Keras model")
    for name in exported.signatures:
        print(f"  {name:16}{exported.differences[name]:.1e}")
    for name in sorted({*_REASONS} - {*exported.signatures}):
        print(f"  {name:16}left out: {_REASONS[name]}")


_NO_NAMES = "no class names are known; give --word-vectors FILE"
_REASONS = {
    "explain": "the head classifies no regions",
    "embed": _NO_NAMES,
    "tag": _NO_NAMES,
    "tag_known": "the run has no vocabulary",
}


def _check(arguments: argparse.Namespace) -> None:
    for option in ("top_k", "max_pixels", "version"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} {value}: use at least 1")
    chosen = (arguments.max_batch_size, arguments.batch_timeout_ms, arguments.threads)
    if arguments.no_batching and any(value is not None for value in chosen):
        raise UserError("--no-batching leaves nothing for the other options of batching to set")


def _batching(arguments: argparse.Namespace):
    from serving.graph.batching import Batching

    if arguments.no_batching:
        return None
    given = {
        "max_batch_size": arguments.max_batch_size,
        "timeout_ms": arguments.batch_timeout_ms,
        "threads": arguments.threads,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(Batching.for_this_device(), **given)


def export(
    run,
    model_dir: str | os.PathLike,
    settings=None,
    *,
    word_vectors: str | os.PathLike | None = None,
    version: int | None = None,
) -> Exported:
    """Writes a version of a model and checks it before it gets its name.

    Args:
        run: a `biam_tf.runs.TrainedRun`.
        model_dir: holds a folder for each version; made if it isn't there.
        settings: a `serving.graph.signatures.GraphSettings`; `None`: its defaults, with the
            batching that suits this machine.
        word_vectors: file that `tag` looks class names up in; `None`: the one the run was
            trained with, if it is still there.
        version: number of the new version; `None`: one more than the newest.

    Raises:
        UserError: the version is there already, or the word vectors can't be used; or there are
            any, and the run scores no classes but its own.
        RuntimeError: the exported model does not give what the Keras model gives.
    """
    import tensorflow as tf

    from serving.graph.assets import write_assets
    from serving.graph.batching import Batching
    from serving.graph.name_table import Embeddings, NameTable
    from serving.graph.self_check import compare, sample_requests
    from serving.graph.signatures import GraphSettings, TaggerGraph
    from serving.graph.warmup import require_protos

    require_protos()
    settings = settings or GraphSettings(batching=Batching.for_this_device())
    model_dir = pathlib.Path(model_dir)
    target = _version_folder(model_dir, version)
    embeddings = Embeddings.read(run.vocabulary, _word_vectors(run, word_vectors))

    model_dir.mkdir(parents=True, exist_ok=True)
    # Not a number: a server that watches the folder takes no notice of it.
    aside = model_dir / f".partial-{target.name}-{os.getpid()}"
    try:
        aside.mkdir()
        names = NameTable(embeddings, aside) if len(embeddings) else None
        graph = TaggerGraph(run, names, settings)
        signatures = graph.signatures()
        written = aside / "model"
        tf.saved_model.save(graph, written, signatures=signatures)
        requests = sample_requests(run, embeddings, signatures)
        differences = compare(run, embeddings, written, requests)
        write_assets(written / "assets.extra", run, embeddings, settings, requests, differences)
        _give_name(written, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Exported(target, tuple(sorted(signatures)), differences)


def _version_folder(model_dir: pathlib.Path, version: int | None) -> pathlib.Path:
    if model_dir.exists() and not model_dir.is_dir():
        raise UserError(f"{model_dir} is a file; name a folder for the versions of a model")
    there = [int(path.name) for path in model_dir.glob("*") if path.name.isdecimal()]
    if version is None:
        version = max(there, default=0) + 1
    if version in there:
        raise UserError(
            f"{model_dir} has a version {version} already, which is never overwritten; leave out "
            f"--version to write {max(there) + 1}"
        )
    return model_dir / str(version)


def _word_vectors(run, path: str | os.PathLike | None) -> pathlib.Path | None:
    if not run.open_vocabulary:
        if path is not None:
            raise UserError(
                f"--word-vectors {path}: the head of {run.folder.path} ({run.system}) scores the "
                "classes it was trained on and no others, whose embeddings the run holds"
            )
        return None
    if path is None and run.word_vectors is not None and pathlib.Path(run.word_vectors).is_file():
        path = run.word_vectors
    return None if path is None else pathlib.Path(path)


def _give_name(written: pathlib.Path, target: pathlib.Path) -> None:
    try:
        os.rename(written, target)
    except OSError as error:
        raise UserError(f"{target} can't be given its name: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
