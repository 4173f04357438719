"""The folder of a run as training writes it: whether it may be used, and its first files."""

import os
import pathlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import read_json, replacing, write_json, write_text, writing_to
from biam_tf.locks import locked
from biam_tf.runs import RunPaths
from biam_tf.vocabulary import Vocabulary
from training.config import (
    BackboneConfig,
    RunConfig,
    config_to_yaml,
    config_values,
    load_config,
)
from training.config.typed_yaml import Settings
from training.data.data_manifest import DataManifest, describe_data
from training.data.dataset import TaggingDataset
from training.data.input.broken_photos import without_photos

# Where data are. They are compared by their contents, so that they may be moved or renamed.
PLACES = ("data.directory", "vocabulary.word_vectors")
# Settings of where or how fast, not of what: a run may be resumed with other values.
FREE_TO_CHANGE = (
    "output",
    "data.feature_store",
    "data.service",
    "data.hash_photos",
    "backbone.batch_size",
    "backbone.runtime",
    "training.checkpoint_minutes",
    "training.fetch_every",
    "training.steps_per_call",
    "training.tensorboard",
    "training.report",
)


class RunFolder(RunPaths):
    """The folder of a run in progress."""

    def check_free_for(self, config: RunConfig) -> None:
        """Checks that the folder is new, empty, or of a run with the same settings.

        Raises:
            UserError: it contains something else; nothing is ever overwritten.
        """
        if not self.path.exists():
            return
        if self.path.is_dir() and all(path == self.lock for path in self.path.iterdir()):
            return
        if not self.config.exists():
            raise UserError(
                f"{self.path} exists and is not the folder of a run (it has no "
                f"{self.config.name}); choose another one with --set output=PATH"
            )
        differing = _differences(load_config(self.config), config)
        if "thresholds" not in Settings.read(self.config).values:  # as in all early runs
            differing = [text for text in differing if not text.startswith("thresholds.")]
        if differing:
            raise UserError(
                f"{self.path} has a run with other settings: {'; '.join(differing)}. Choose "
                "another folder with --set output=PATH, or delete this one to start again"
            )

    def claim(self, config: RunConfig) -> None:
        """Creates the folder with the run's configuration, unless it exists already."""
        self.check_free_for(config)
        if not self.config.exists():
            with writing_to(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.config, config_to_yaml(config))

    def training_here(self) -> AbstractContextManager[None]:
        """Locks the folder against other processes that train the same run."""
        return locked(self.lock, f"{self.path} is being trained")

    def check_same_data(
        self, config: RunConfig, dataset: TaggingDataset, vocabulary: Vocabulary
    ) -> None:
        """Checks that a run that exists was started with the same photos, labels and classes.

        Photos are compared by names and sizes, and by contents with `data.hash_photos`.

        Args:
            config: settings of the run.
            dataset: the data set as it was read, with photos that cannot be read.
            vocabulary: the embeddings of its classes.

        Raises:
            UserError: they differ; the message says in what.
        """
        if not self.data_manifest.exists():
            return
        stored = DataManifest.read(self.data_manifest)
        readable = without_photos(dataset, {photo.image for photo in stored.excluded})
        hashed = config.data.hash_photos
        now = describe_data(config.data.name, readable, vocabulary, stored.excluded, hashed)
        differing = stored.differences(now)
        if self.vocabulary.exists():
            differing += _class_differences(Vocabulary.load(self.vocabulary), vocabulary)
        self._refuse(differing)

    def check_same_backbone(self, config: BackboneConfig, backbone: keras.Model) -> None:
        """Checks that a run that exists was started with a frozen backbone of the same weights.

        Raises:
            UserError: they differ.
        """
        from biam_tf.backbones import weights_fingerprint

        if config.trainable or not self.backbone_identity.exists():
            return
        before = read_json(self.backbone_identity).get("weights_fingerprint")
        now = weights_fingerprint(backbone)
        if before not in (None, now):
            raise UserError(
                f"backbone.weights: {self.path} was started with the weights {before} of "
                f"{config.name}, which now are {now} ({config.weights}). Restore the file, or "
                f"start again in another folder with --set output=PATH{_of_tokens(backbone)}"
            )

    def _refuse(self, differing: Sequence[str]) -> None:
        if differing:
            raise UserError(
                f"{self.path} was started with other data: {'; '.join(differing)}. Restore "
                "the data, or start again in another folder with --set output=PATH"
            )

    def write_data_manifest(self, manifest: DataManifest) -> None:
        """Writes which data the run uses, or checks that a resumed run uses the same.

        Raises:
            UserError: the run that is being resumed was started with other data.
        """
        if self.data_manifest.exists():
            self._refuse(DataManifest.read(self.data_manifest).differences(manifest))
            return
        write_text(self.data_manifest, manifest.to_json())

    def write_backbone_identity(self, config: BackboneConfig, backbone: keras.Model) -> None:
        """Writes which backbone the head belongs to; the weights of a frozen one are not saved."""
        from biam_tf.backbones import weights_fingerprint

        write_json(
            self.backbone_identity,
            {
                "name": config.name,
                "image_size": backbone.input_shape[1],
                "weights": config.weights,
                "regions": _regions_of(backbone),
                "weights_fingerprint": None if config.trainable else weights_fingerprint(backbone),
            },
        )


def _of_tokens(backbone: keras.Model) -> str:
    """Returns a hint for runs from before there were features in the space of texts."""
    if _regions_of(backbone) == "tokens":
        return ""
    return "; or, if its features were those of tokens, set backbone.regions: tokens"


def _regions_of(backbone: keras.Model) -> str:
    """Returns what the region features of a built backbone are."""
    from biam_tf.backbones.joint_space import joint_space
    from biam_tf.backbones.spec import JOINT, TOKENS

    return TOKENS if joint_space(backbone) is None else JOINT


def save_model(path: pathlib.Path, model: keras.Model) -> None:
    """Saves a model in Keras format, whole or not at all."""
    with replacing(path) as partial:
        model.save(partial)


def flat_settings(config: RunConfig) -> dict[str, Any]:
    """Returns the settings that identify a run, by key path; without `FREE_TO_CHANGE`."""
    flat = _flat(config_values(config))
    return {key: value for key, value in flat.items() if key not in FREE_TO_CHANGE}


def _differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Returns `key: old there, new now` for each setting that makes another run."""
    before, after = flat_settings(old), flat_settings(new)
    keys = {*before, *after}.difference(PLACES)
    if not new.backbone.trainable and _are_files(old.backbone.weights, new.backbone.weights):
        keys.discard("backbone.weights")  # compared once they are read
    if old.head.system != new.head.system:  # whose other settings are different ones
        keys = {key for key in keys if key == "head.system" or not key.startswith("head.")}
    return [
        f"{key}: {before.get(key)!r} there, {after.get(key)!r} now"
        for key in sorted(keys)
        if before.get(key) != after.get(key) and not _same_place(before.get(key), after.get(key))
    ]


def _are_files(*weights: str | None) -> bool:
    return all(w is not None and w not in ("default", "imagenet", "none") for w in weights)


def _same_place(one: Any, other: Any) -> bool:
    """Returns whether two settings are spellings of the path of one file or folder."""
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _class_differences(before: Vocabulary, now: Vocabulary) -> list[str]:
    """Names the classes that were added or left out, or whose group is another."""
    found = []
    for what, names in (
        ("without the class", [name for name in before.names if name not in now.names]),
        ("with the new class", [name for name in now.names if name not in before.names]),
    ):
        if names:
            found.append(f"{what}{'es' * (len(names) > 1)} {_some(names)}")
    groups = dict(zip(before.names, before.groups, strict=True))
    moved = [
        f"{name} is {group}, was {groups[name]}"
        for name, group in zip(now.names, now.groups, strict=True)
        if groups.get(name, group) != group
    ]
    if moved:
        found.append(_some(moved))
    other = _other_embeddings(before, now)
    if other:
        found.append(
            f"other embeddings of {len(other)} of {len(now.names)} classes, such as {other[0]} "
            "(vocabulary.word_vectors)"
        )
    return found


def _other_embeddings(before: Vocabulary, now: Vocabulary) -> list[str]:
    """Returns the classes whose embeddings differ by more than rounding."""
    if before.embedding_size != now.embedding_size:
        return list(now.names)
    rows = {name: row for row, name in enumerate(before.names)}
    return [
        name
        for name, embedding in zip(now.names, now.embeddings, strict=True)
        if name in rows and not np.allclose(embedding, before.embeddings[rows[name]], atol=1e-5)
    ]


def _some(texts: Sequence[str], most: int = 5) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = prefix + key
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat
