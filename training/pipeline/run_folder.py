"""A run's folder as training writes it: when it may be taken, and files written whole."""

import pathlib
from typing import Any

import keras

from biam_tf.errors import UserError
from biam_tf.files import replacing, write_json, write_text, writing_to
from biam_tf.runs import RunPaths
from training.config import (
    BackboneConfig,
    RunConfig,
    config_to_yaml,
    config_values,
    load_config,
)
from training.data.data_manifest import DataManifest

# Settings that say where or how fast, not what: a run may go on with other ones.
FREE_TO_CHANGE = (
    "output",
    "data.feature_store",
    "data.hash_photos",
    "backbone.batch_size",
    "training.checkpoint_minutes",
    "training.tensorboard",
    "training.report",
)


class RunFolder(RunPaths):
    """The folder of a run that is being made."""

    def check_free_for(self, config: RunConfig) -> None:
        """Checks that the folder is new, empty, or holds this very run.

        Raises:
            UserError: it holds something else; nothing is ever overwritten.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not self.config.exists():
            raise UserError(
                f"{self.path} exists and is not the folder of a run (it has no "
                f"{self.config.name}); choose another one with --set output=PATH"
            )
        differing = _differences(load_config(self.config), config)
        if differing:
            raise UserError(
                f"{self.path} holds a run with other settings: {'; '.join(differing)}. Choose "
                "another folder with --set output=PATH, or delete this one to start again"
            )

    def claim(self, config: RunConfig) -> None:
        """Makes the folder this run's: writes its configuration, unless it is there already."""
        self.check_free_for(config)
        if not self.config.exists():
            with writing_to(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.config, config_to_yaml(config))

    def write_data_manifest(self, manifest: DataManifest) -> None:
        """Says which data the run uses, or checks that it is still what it began with.

        Raises:
            UserError: the run that is being resumed began with other data.
        """
        if self.data_manifest.exists():
            differing = DataManifest.read(self.data_manifest).differences(manifest)
            if differing:
                raise UserError(
                    f"{self.path} began with other data than there is now: "
                    f"{'; '.join(differing)}. Put the data back as it was, or start again in "
                    "another folder with --set output=PATH"
                )
            return
        write_text(self.data_manifest, manifest.to_json())

    def write_backbone_identity(self, config: BackboneConfig, backbone: keras.Model) -> None:
        """Says which backbone the head belongs to, so that a frozen one is not stored again."""
        from biam_tf.backbones import weights_fingerprint

        write_json(
            self.backbone_identity,
            {
                "name": config.name,
                "image_size": backbone.input_shape[1],
                "weights": config.weights,
                "weights_fingerprint": None if config.trainable else weights_fingerprint(backbone),
            },
        )


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
    keys = {*before, *after}
    if old.head.system != new.head.system:  # whose other settings are different ones
        keys = {key for key in keys if key == "head.system" or not key.startswith("head.")}
    return [
        f"{key}: {before.get(key)!r} there, {after.get(key)!r} now"
        for key in sorted(keys)
        if before.get(key) != after.get(key)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = prefix + key
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat
