"""The files beside an exported model, in `assets.extra`: model card, vocabulary and others."""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from biam_tf import __version__
from biam_tf.class_sides import save_class_side
from biam_tf.embeddings.run_encoder import RunEncoder
from biam_tf.embeddings.sources import AUTO, is_text_tower
from biam_tf.files import sha256_of, write_json
from biam_tf.markdown import code, code_block, escaped
from biam_tf.metrics import format_table
from biam_tf.metrics.figures_by_part import notes_on_classes
from biam_tf.photo_decoding.file_headers import listed_formats
from biam_tf.runs import TrainedRun
from biam_tf.text_operations import TENSORFLOW_TEXT
from serving.graph.name_table import Embeddings
from serving.graph.self_check import Requests, sample_photos
from serving.graph.signatures import GraphSettings, stored_factors
from serving.graph.warmup import FILE_NAME, write_warmup_requests
from serving.rpc.version_folders import CLASS_SIDE, PHOTOS_FILE, SENTENCE_ENCODER

_LISTED_CLASSES = 40


def write_assets(
    folder: pathlib.Path,
    run: TrainedRun,
    embeddings: Embeddings,
    settings: GraphSettings,
    requests: Requests,
    differences: Mapping[str, float],
) -> None:
    """Writes vocabulary, configuration, thresholds, metrics, model card and warm-up requests.

    Args:
        folder: the folder to create.
        run: the exported run.
        embeddings: the embeddings that `tag` looks up.
        settings: settings of the export.
        requests: a sample request for each signature.
        differences: of each signature's outputs from the Keras model's.
    """
    folder.mkdir()
    run.vocabulary.save(folder / "vocabulary.npz")
    shutil.copyfile(run.folder.config, folder / "config.yaml")
    if run.folder.thresholds.exists():
        shutil.copyfile(run.folder.thresholds, folder / run.folder.thresholds.name)
    factors = stored_factors(run)
    if factors is not None:
        save_class_side(factors.class_side, folder.parent / CLASS_SIDE)
    formats = settings.decoded_formats
    facts = {"formats": [form.lower() for form in formats], "orientation": run.orientation}
    write_json(folder.parent / PHOTOS_FILE, facts)
    if embeddings.encoder is not None:
        write_json(folder.parent / SENTENCE_ENCODER, _encoder_facts(embeddings.encoder.sentences))
    metrics = None
    if run.folder.metrics.exists():
        shutil.copyfile(run.folder.metrics, folder / "metrics.json")
        metrics = run.folder.read_metrics()
    card = model_card(run, embeddings, settings, metrics, differences)
    (folder / "model_card.md").write_text(card, encoding="utf-8")

    batching = settings.batching
    # A GPU prepares for each batch size: run every size before clients need it.
    sizes = batching.batch_sizes if batching and batching.whole_powers else [1]
    batches = [
        ("features", {"images": np.array(sample_photos(size, formats), dtype=object)})
        for size in sizes
    ]
    # A table of numbers has nothing to prepare.
    others = [(name, inputs) for name, inputs in requests.items() if name != "calibrate"]
    write_warmup_requests(folder / FILE_NAME, [*batches, *others])


def _encoder_facts(encoder: RunEncoder) -> dict[str, Any]:
    """What clients read of an encoder in the graph: that there is one, and what it needs."""
    # CLIP's tokenizer is built of other operations, and so is BERT's.
    pieces = is_text_tower(encoder.source) and not hasattr(encoder.encoder.tokenizer, "merges")
    needs = [TENSORFLOW_TEXT] * pieces
    return ({"needs": needs} if needs else {}) | {
        "source": encoder.source,
        "templates": list(encoder.templates),
        "weights_sha256": sha256_of(encoder.encoder.weights_file),
    }


def model_card(
    run: TrainedRun,
    embeddings: Embeddings,
    settings: GraphSettings,
    metrics: Mapping[str, Any] | None,
    differences: Mapping[str, float],
) -> str:
    """Returns the model card as Markdown.

    Args:
        run: the exported run.
        embeddings: the embeddings that `tag` looks up.
        settings: settings of the export.
        metrics: the run's metrics; None if it was not evaluated.
        differences: of each signature's outputs from the Keras model's.
    """
    return "\n".join(
        [
            f"# {escaped(run.folder.path.resolve().name)}",
            "",
            f"{_purpose(run)} Made by biam-tf {__version__}.",
            "",
            *_model(run, settings),
            *_figures(run, metrics),
            *_signatures(run, embeddings, settings, differences),
            *_limits(run, settings),
        ]
    )


def _purpose(run: TrainedRun) -> str:
    if run.open_vocabulary:
        return "Tags photos with any classes: each request gives its class list."
    return (
        f"Tags photos with the {len(run.vocabulary)} classes that it was trained on: requests that "
        "name other classes are refused."
    )


def _model(run: TrainedRun, export: GraphSettings) -> list[str]:
    settings = run.settings
    turned = "turned upright as EXIF data say"
    if run.orientation == "ignore":
        turned = "as they are stored: EXIF orientation is ignored"
    size, length = run.image_size, run.vocabulary.embedding_size
    head = ", ".join(escaped(f"{key} {value}") for key, value in settings.get("head", {}).items())
    backbone = settings["backbone"]
    named = settings.get("head", {}).get("name_vectors")
    encoder = None if named == AUTO else named
    weights = "trained with the head"
    if not backbone["trainable"]:
        weights = f"weights {escaped(backbone['weights'])}"
    source = run.word_vectors or encoder
    described = escaped(source) if source else "the attributes of the data set"
    return [
        "## Model",
        "",
        f"- backbone: {escaped(backbone['name'])}, photos resized to {size}x{size} without "
        f"cropping, {weights}",
        f"- photos: {listed_formats(export.decoded_formats)}, {turned}",
        f"- head: {head or 'defaults'}",
        f"- class embeddings: {length} numbers each, of length 1, from {described}",
        f"- trained on: {escaped(settings.get('data', {}).get('name', 'unknown'))}",
        "",
    ]


def _figures(run: TrainedRun, metrics: Mapping[str, Any] | None) -> list[str]:
    names, groups = run.vocabulary.names, run.vocabulary.groups
    lines = ["## Classes it was trained and evaluated with", ""]
    for group in ("seen", "unseen"):
        members = [name for name, its in zip(names, groups, strict=True) if its == group]
        listed = ", ".join(map(escaped, members[:_LISTED_CLASSES]))
        more = f" and {len(members) - _LISTED_CLASSES} more" * (len(members) > _LISTED_CLASSES)
        lines.append(f"- {len(members)} {group}: {listed or 'none'}{more}")
    lines += ["", "## Figures", ""]
    if metrics is None:
        return [*lines, "None: the run was not evaluated.", ""]
    split = escaped(metrics.get("split", "test"))
    described = f"{metrics.get('images', 'unknown')} photos of split {split}"
    table = "\n".join([format_table(dict(metrics)), *notes_on_classes(metrics)])
    return [*lines, f"On {described}:", "", code_block(table), ""]


def _signatures(
    run: TrainedRun,
    embeddings: Embeddings,
    settings: GraphSettings,
    differences: Mapping[str, float],
) -> list[str]:
    regions = run.backbone.output["region_features"].shape[1:]
    scene = run.backbone.output["scene_feature"].shape[-1]
    h, w, d = regions
    length = run.vocabulary.embedding_size
    known = min(settings.top_k, len(run.vocabulary))
    images, classes = "`images` string (B,)", f"`class_embeddings` float (C, {length})"
    features = f"`region_features` float (B, {h}, {w}, {d}), `scene_feature` float (B, {scene})"
    answers = ", `probabilities` float, `present` bool, each" * (run.thresholds is not None)
    calibration = "`slopes`, `offsets`, `cuts` double (C,)"
    rows = {
        "serving_default": (f"{images}, {classes}", "`scores` float (B, C)"),
        "tag": (
            f"{images}, `class_names` string (C,)",
            f"`scores` float{answers} (B, C)",
        ),
        "embed": (
            "`class_names` string (C,)",
            classes + f", {calibration}" * bool(answers),
        ),
        "calibrate": (classes, calibration),
        "tag_known": (
            images,
            f"`names` string, `scores` float{answers} (B, {known})",
        ),
        "explain": (
            f"{images}, {classes}",
            f"`scores` float (B, C), `response_maps` float (B, {h}, {w}, C)",
        ),
        "features": (images, features),
        "region_vectors": (images, "`region_vectors` float (B, h, w, d), for a photo index"),
        "rescore": (f"{features}, {classes}", "`scores` float (B, C)"),
    }
    lines = [
        "## Signatures",
        "",
        "| signature | inputs | outputs | difference from the Keras model |",
        "|---|---|---|---|",
    ]
    for name, (inputs, outputs) in rows.items():
        if name in differences:
            lines.append(f"| `{name}` | {inputs} | {outputs} | {differences[name]:.0e} |")
    names = f"{len(embeddings.vocabulary)} class names"
    if embeddings.words:
        names += f" and, word by word, names made of {len(embeddings.words)} words"
    if embeddings.encoder is not None:
        encoder, words = embeddings.encoder.sentences, embeddings.encoder.words
        read = " and ".join(map(code, encoder.templates))
        names += (
            " and any other phrase, which the sentence encoder "
            f"{escaped(encoder.source)} in the graph reads as {read}"
        )
        if words:
            files = " and ".join(escaped(file.path.name) for file in words)
            names += f", and whose words have vectors in {files}; without them it is refused"
    return [*lines, "", f"`tag` and `embed` take {names}.", ""]


def _limits(run: TrainedRun, settings: GraphSettings) -> list[str]:
    batching = settings.batching
    sharing = "the backbone runs once per request"
    if batching is not None:
        sharing = (
            f"up to {batching.max_batch_size} photos of concurrent requests share a call of the "
            f"backbone, {batching.threads} calls at a time; a photo waits at most "
            f"{batching.timeout_ms:g} ms for others"
        )
    return [
        "## Limits",
        "",
        f"- photos: JPEG, PNG, GIF (first frame) and BMP of at most {settings.max_pixels} pixels",
        f"- a request: at most {settings.limits.max_photos} photos, "
        f"{settings.limits.max_classes} classes, and about {settings.limits.max_work_mb} MB to "
        "score",
        f"- batching: {sharing}",
        "- scores only rank: they are not probabilities, and those of classes without training "
        "photos are lower on average"
        + "; thresholds.json has a threshold and a calibration for each class, from which "
        "`probabilities` and `present` follow" * bool(run.thresholds),
        "",
    ]
