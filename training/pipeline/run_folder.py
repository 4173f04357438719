"""The folder of a run as training writes it: whether it may be used, and its first files."""

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

# Settings of where or how fast, not of what: a run may be resumed with other values.
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
    """The folder of a run in progress."""

    def check_free_for(self, config: RunConfig) -> None:
        """Checks that the folder is new, empty, or of a run with the same settings.

        Raises:
            UserError: it contains something else; nothing is ever overwritten.
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

    def write_data_manifest(self, manifest: DataManifest) -> None:
        """Writes which data the run uses, or checks that a resumed run uses the same.

        Raises:
            UserError: the run that is being resumed was started with other data.
        """
        if self.data_manifest.exists():
            differing = DataManifest.read(self.data_manifest).differences(manifest)
            if differing:
                raise UserError(
                    f"{self.path} was started with other data: {'; '.join(differing)}. Restore "
                    "the data, or start again in another folder with --set output=PATH"
                )
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
