"""Writes a trained run as a version of a model: a checked SavedModel with its assets."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from biam_tf.errors import UserError
from biam_tf.files import folder_beside, size_in_words, version_number, writing_to

# Imported by `export` alone: `python -m serving.export --help` needs no TensorFlow.
if TYPE_CHECKING:
    from biam_tf.embeddings.run_encoder import JoinedSources, RunEncoder
    from biam_tf.runs import TrainedRun
    from serving.graph.signatures import GraphSettings

NO_ENCODER = "none"


@dataclasses.dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        path: the version's folder.
        signatures: names of the signatures, sorted.
        differences: largest difference of each signature's outputs from the Keras model's.
        size: of all files, in bytes.
        encoder_size: about how much of that is the sentence encoder; 0: there is none.
        encoder: the sentence encoder, or why there is none; None: nothing is known of one.
        index: what a photo index of the model holds, in one line.
    """

    path: pathlib.Path
    signatures: tuple[str, ...]
    differences: dict[str, float]
    size: int = 0
    encoder_size: int = 0
    encoder: str | None = None
    index: str = ""


def export(
    run: "TrainedRun",
    model_dir: str | os.PathLike,
    settings: "GraphSettings | None" = None,
    *,
    word_vectors: str | os.PathLike | None = None,
    version: int | None = None,
    sentence_encoder: str | os.PathLike | None = None,
    templates: Sequence[str] | None = None,
) -> Exported:
    """Writes a version of a model, checked before its folder gets its name.

    Args:
        run: the trained run.
        model_dir: folder of the model, with one sub-folder per version; created if missing.
        settings: batching, limits and the number of tags of `tag_known`; None for the defaults,
            with batching that suits this machine.
        word_vectors: file in which `tag` and `embed` look up class names; None for the file that
            the run was trained with, if it still exists.
        version: number of the new version; None for one more than the newest.
        sentence_encoder: what `tag` and `embed` embed all other names with: "minilm", the folder
            of an encoder, or "none"; None for the encoder that made the run's embeddings, if its
            weights are found.
        templates: texts that it reads, with `{name}` for a class name; None for those of the run.

    Raises:
        UserError: the version exists already, the word vectors or the encoder can't be used, or
            one of them is given although the run scores only its own classes.
        RuntimeError: the outputs of the exported model differ from the Keras model's.
    """
    import tensorflow as tf

    from serving.graph.assets import write_assets
    from serving.graph.batching import Batching
    from serving.graph.name_table import Embeddings, NameTable
    from serving.graph.self_check import compare, photos_and_classes, sample_requests
    from serving.graph.signatures import GraphSettings, TaggerGraph
    from serving.graph.warmup import require_protos

    require_protos()
    settings = settings or GraphSettings(batching=Batching.for_this_device())
    model_dir = pathlib.Path(model_dir)
    target = _version_folder(model_dir, version)
    embeddings = Embeddings.read(run.vocabulary, _word_vectors(run, word_vectors))
    encoder, told = _encoder(run, sentence_encoder, templates, bool(embeddings.words))
    embeddings = dataclasses.replace(embeddings, encoder=encoder)
    settings.limits.require_room_for(*photos_and_classes(run, settings.batching))

    with writing_to(target):
        model_dir.mkdir(parents=True, exist_ok=True)
    # The name is not a number, so that servers that watch the folder ignore it.
    with folder_beside(target) as aside:
        listed = () if run.thresholds is None else run.thresholds.names
        names = NameTable(embeddings, aside, listed) if embeddings else None
        graph = TaggerGraph(run, names, settings)
        signatures = graph.signatures()
        written = aside / "model"
        # Nothing differentiates a served model. With gradient functions, a process that loads the
        # model keeps its graphs forever: TensorFlow registers the gradients and never removes them.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        with writing_to(target):
            tf.saved_model.save(graph, written, signatures=signatures, options=options)
        requests = sample_requests(run, embeddings, signatures, settings.decoded_formats)
        differences = compare(run, embeddings, written, requests)
        with writing_to(target):
            write_assets(written / "assets.extra", run, embeddings, settings, requests, differences)
        _publish(written, target)
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        encoder_size = 0 if names is None else names.encoder_bytes
    return Exported(
        target, tuple(sorted(signatures)), differences, size, encoder_size, told, _index_of(run)
    )


def _index_of(run: "TrainedRun") -> str:
    """Returns what an index of photos holds, so that one knows before photos are indexed."""
    from biam_tf.models.factors import factors_of
    from biam_tf.models.systems import find_system

    regions, scene = (run.backbone.output[n].shape for n in ("region_features", "scene_feature"))
    factors = factors_of(run.head, find_system(run.system))
    if factors is None:
        size = size_in_words(2 * (math.prod(regions[1:]) + scene[1]))
        return (
            f"keeps the features, {size} per photo; each search runs the head, because its scores "
            "are no products of regions and classes"
        )
    h, w = factors.grid
    numbers = factors.class_side.vector_size
    size = size_in_words(2 * (h or regions[1]) * (w or regions[2]) * numbers)
    of = f"{h}x{w} regions of {numbers}" if h != 1 or w != 1 else f"{numbers}"
    return f"{of} numbers, {size} per photo; searched without the model"


def export_pretrained(name: str) -> pathlib.Path:
    """Returns the model folder of a pretrained tagger in the cache; it is exported at first.

    Raises:
        UserError: as `biam_tf.pretrained.pretrained_run` does.
    """
    from biam_tf.files import cache_folder
    from biam_tf.pretrained import pretrained_run
    from biam_tf.runs import load_run

    run = pretrained_run(name)
    model_dir = cache_folder() / "exports" / run.name
    if not (model_dir / "1").is_dir():
        try:
            export(load_run(run), model_dir, version=1)
        except UserError:
            if not (model_dir / "1").is_dir():  # else another process was faster
                raise
    return model_dir


def _version_folder(model_dir: pathlib.Path, version: int | None) -> pathlib.Path:
    if model_dir.exists() and not model_dir.is_dir():
        raise UserError(f"{model_dir} is a file; name a folder for the versions of a model")
    numbers = [version_number(path.name) for path in model_dir.glob("*")]
    existing = [number for number in numbers if number is not None]
    if version is None:
        version = max(existing, default=0) + 1
    if version in existing:
        raise UserError(
            f"{model_dir} has a version {version} already, which is never overwritten; leave out "
            f"--version to write {max(existing) + 1}"
        )
    return model_dir / str(version)


def _word_vectors(run: "TrainedRun", path: str | os.PathLike | None) -> pathlib.Path | None:
    if not run.open_vocabulary:
        if path is not None:
            raise UserError(
                f"--word-vectors {path}: the head of {run.folder.path} ({run.system}) scores only "
                "the classes that it was trained on, whose embeddings are in the run"
            )
        return None
    if path is None and run.word_vectors is not None and pathlib.Path(run.word_vectors).is_file():
        path = run.word_vectors
    return None if path is None else pathlib.Path(path)


def _encoder(
    run: "TrainedRun",
    source: str | os.PathLike | None,
    templates: Sequence[str] | None,
    has_words: bool,
) -> tuple["RunEncoder | JoinedSources | None", str | None]:
    """Returns the sentence encoder of an export, if there is one, and what to tell of it."""
    from biam_tf.embeddings.run_encoder import encoder_of_run

    source = None if source is None else str(source)
    if source in (None, NO_ENCODER) and templates:
        raise UserError("--template is a text for a sentence encoder; add --sentence-encoder")
    if source == NO_ENCODER:
        return None, None
    if source is not None and not run.open_vocabulary:
        raise UserError(
            f"--sentence-encoder {source}: the head of {run.folder.path} ({run.system}) scores "
            "only the classes that it was trained on, whose embeddings are in the run"
        )
    if source is not None and has_words:
        raise UserError(
            f"--sentence-encoder {source}: names are put together from word vectors already; "
            "leave one of the two out"
        )
    if not run.open_vocabulary or has_words:
        return None, None
    found, reason = encoder_of_run(run.settings, run.vocabulary, source, templates)
    if found is None:
        return None, None if reason is None else f"left out: {reason}"
    encoder = found.sentences
    told = f"{encoder.source}, reads {' and '.join(map(repr, encoder.templates))}"
    return found, told + "".join(f"; with the word vectors {file.path}" for file in found.words)


def _publish(written: pathlib.Path, target: pathlib.Path) -> None:
    """Gives the finished folder its name, at which servers load it."""
    try:
        os.rename(written, target)
    except OSError as error:
        raise UserError(f"{target}: can't be renamed ({error.strerror})") from error
