"""The model card: what a person who gets only the exported folder has to know."""

from collections.abc import Mapping

from biam_tf import __version__
from biam_tf.metrics import format_table
from biam_tf.runs import TrainedRun
from serving.graph.name_table import Embeddings
from serving.graph.signatures import GraphSettings

_LISTED_CLASSES = 40


def model_card(
    run: TrainedRun,
    embeddings: Embeddings,
    settings: GraphSettings,
    metrics: Mapping | None,
    differences: Mapping[str, float],
) -> str:
    """Returns the card as Markdown, made of the run's own facts.

    Args:
        run: what was exported.
        embeddings: what `tag` looks names up in.
        settings: of the export.
        metrics: the run's figures; `None`: it has none.
        differences: of each signature's outputs from the Keras model's.
    """
    return "\n".join(
        [
            f"# {run.folder.path.resolve().name}",
            "",
            f"{_purpose(run)} Made by biam-tf {__version__}.",
            "",
            *_model(run),
            *_figures(run, metrics),
            *_signatures(run, embeddings, settings, differences),
            *_limits(run, settings),
        ]
    )


def _purpose(run: TrainedRun) -> str:
    if run.open_vocabulary:
        return "Tags photos with any classes: a request brings the class list."
    return (
        f"Tags photos with the {len(run.vocabulary)} classes that it was trained on: a request may "
        "name some of them, and is refused if it names others."
    )


def _model(run: TrainedRun) -> list[str]:
    settings = run.settings
    size, length = run.image_size, run.vocabulary.embedding_size
    head = ", ".join(f"{key} {value}" for key, value in settings.get("head", {}).items())
    backbone = settings["backbone"]
    weights = "trained with the head" if backbone["trainable"] else f"weights {backbone['weights']}"
    return [
        "## Model",
        "",
        f"- backbone: {backbone['name']}, photos resized to {size}x{size} without cropping, "
        f"{weights}",
        f"- head: {head or 'defaults'}",
        f"- class embeddings: {length} numbers each, of length 1, from "
        f"{run.word_vectors or 'the attributes of the data set'}",
        f"- trained on: {settings.get('data', {}).get('name', 'unknown')}",
        "",
    ]


def _figures(run: TrainedRun, metrics: Mapping | None) -> list[str]:
    names, groups = run.vocabulary.names, run.vocabulary.groups
    lines = ["## Classes it was trained and evaluated with", ""]
    for group in ("seen", "unseen"):
        members = [name for name, its in zip(names, groups, strict=True) if its == group]
        listed = ", ".join(members[:_LISTED_CLASSES])
        more = f" and {len(members) - _LISTED_CLASSES} more" * (len(members) > _LISTED_CLASSES)
        lines.append(f"- {len(members)} {group}: {listed or 'none'}{more}")
    lines += ["", "## Figures", ""]
    if metrics is None:
        return [*lines, "None: the run was not evaluated.", ""]
    described = f"{metrics.get('images', 'unknown')} photos of split {metrics.get('split', 'test')}"
    return [*lines, f"On {described}:", "", "```", format_table(metrics), "```", ""]


def _signatures(run, embeddings, settings, differences) -> list[str]:
    regions = run.backbone.output["region_features"].shape[1:]
    scene = run.backbone.output["scene_feature"].shape[-1]
    h, w, d = regions
    length = run.vocabulary.embedding_size
    known = min(settings.top_k, len(run.vocabulary))
    images, classes = "`images` string (B,)", f"`class_embeddings` float (C, {length})"
    features = f"`region_features` float (B, {h}, {w}, {d}), `scene_feature` float (B, {scene})"
    rows = {
        "serving_default": (f"{images}, {classes}", "`scores` float (B, C)"),
        "tag": (f"{images}, `class_names` string (C,)", "`scores` float (B, C)"),
        "embed": ("`class_names` string (C,)", classes),
        "tag_known": (images, f"`names` string (B, {known}), `scores` float (B, {known})"),
        "explain": (
            f"{images}, {classes}",
            f"`scores` float (B, C), `response_maps` float (B, {h}, {w}, C)",
        ),
        "features": (images, features),
        "rescore": (f"{features}, {classes}", "`scores` float (B, C)"),
    }
    lines = [
        "## Signatures",
        "",
        "| signature | inputs | outputs | off the Keras model by |",
        "|---|---|---|---|",
    ]
    for name, (inputs, outputs) in rows.items():
        if name in differences:
            lines.append(f"| `{name}` | {inputs} | {outputs} | {differences[name]:.0e} |")
    names = f"{len(embeddings.vocabulary)} class names"
    if embeddings.words:
        names += f" and, word by word, names made of {len(embeddings.words)} words"
    return [*lines, "", f"`tag` knows {names}.", ""]


def _limits(run: TrainedRun, settings: GraphSettings) -> list[str]:
    batching = settings.batching
    said = "every request calls the backbone on its own"
    if batching is not None:
        said = (
            f"up to {batching.max_batch_size} photos of any requests share a call of the "
            f"backbone, {batching.threads} calls at a time; a photo waits at most "
            f"{batching.timeout_ms:g} ms for company"
        )
    return [
        "## Limits",
        "",
        f"- photos: JPEG, PNG, GIF (first frame) and BMP of at most {settings.max_pixels} pixels",
        f"- batching: {said}",
        "- scores only rank: they are no probabilities, and those of classes that were not "
        "trained run lower than those of trained ones"
        + "; thresholds.json has a threshold and a calibration of each class"
        * bool(run.thresholds),
        "",
    ]
