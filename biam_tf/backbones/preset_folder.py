"""The folder of a preset of KerasHub: its files, and the model that is built from it.

A preset is a folder: the user's, or that of a listed name in the cache of kagglehub. Nothing is
downloaded here: the error for a preset that is not on this machine says how to get it.
"""

import inspect
import json
import os
import pathlib
from types import ModuleType
from typing import Any

import keras

from biam_tf.errors import UserError, did_you_mean

PREFIX = "keras_hub:"
MODEL, CONVERTER = "config.json", "image_converter.json"
TOKENIZER, PREPROCESSOR = "tokenizer.json", "preprocessor.json"
WEIGHTS = ("model.weights.h5", "model.weights.json")  # the latter lists several files
INSTALL = "pip install 'biam-tf[keras-hub]'"


def import_keras_hub() -> ModuleType:
    """Returns the package, whose import registers its layers with Keras.

    Raises:
        UserError: the package, or one of its dependencies, is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(
            f"presets {PREFIX}PRESET need the package keras-hub ({error}); run {INSTALL}"
        ) from error
    return keras_hub


class PresetFolder:
    """A preset, whose configuration is read and whose model is built on demand.

    Args:
        name: `keras_hub:PRESET`; PRESET is a folder, as `save_to_preset` writes it, or a name in
            KerasHub's list.
        role: what it is used as; begins the errors.

    Attributes:
        name: as given.
        folder: the preset's folder.
        kind: the class of its model.
        config: the settings of the model.

    Raises:
        UserError: KerasHub is not installed, the preset is not on this machine, or the folder is
            not that of a preset.
    """

    def __init__(self, name: str, role: str = "backbone"):
        self.name, self._role = name, role
        self.folder = self._find()
        model = self.read(MODEL)
        if not isinstance(model, dict) or "registered_name" not in model:
            raise self.error(
                f"{self.folder / MODEL} is not part of a KerasHub preset; load the model with "
                "KerasHub and write it with save_to_preset"
            )
        self.kind = keras.saving.get_registered_object(model["registered_name"])
        if not inspect.isclass(self.kind):
            raise self.error(
                f"this KerasHub has no {model['registered_name']}; a newer version may have it"
            )
        self.config: dict[str, Any] = model["config"]

    def build_model(self, **settings: Any) -> keras.Model:
        """Builds the preset's model with random weights.

        Args:
            **settings: that replace the preset's.

        Raises:
            ValueError: it cannot be built with these settings.
            TypeError: likewise.
            KeyError: likewise.
        """
        # An absolute path is not a name in KerasHub's list, so that nothing is downloaded.
        # The current policy, whatever the dtype of the stored weights.
        return import_keras_hub().models.Backbone.from_preset(
            str(self.folder.absolute()),
            load_weights=False,
            dtype=keras.config.dtype_policy().name,
            **settings,
        )

    @property
    def weights_file(self) -> pathlib.Path:
        """The file of weights, or the list of such files.

        Raises:
            UserError: there is none.
        """
        for name in WEIGHTS:
            if (self.folder / name).exists():
                return self.folder / name
        raise self.error(f"no weights in {self.folder}; expected {' or '.join(WEIGHTS)}")

    def load_weights(self, model: keras.Model, built_for: str = "", hint: str = "") -> None:
        """Loads the weights into a model of `build_model`.

        Args:
            model: the model.
            built_for: what it was built for, for errors.
            hint: added to the error for weights that do not fit.

        Raises:
            UserError: there are none, or they do not fit.
        """
        file = self.weights_file
        try:
            model.load_weights(file)
        except (ValueError, OSError, KeyError) as error:
            raise self.error(
                f"{file} does not fit {self.kind.__name__}{built_for}{hint} ({first_line(error)})"
            ) from error

    def read(self, name: str) -> Any:
        """Returns the contents of one of its JSON files.

        Raises:
            UserError: it is missing or damaged.
        """
        file = self.folder / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self.error(
                f"{self.folder} has no {name}; a preset has {MODEL}, {CONVERTER} and weights, "
                "written by save_to_preset of a model of KerasHub and of its image converter"
            ) from None
        except (OSError, ValueError) as error:
            raise self.error(f"{file} cannot be read ({error})") from error

    def error(self, problem: str) -> UserError:
        """Returns an error that begins with the name of the preset."""
        return UserError(f"{self._role} {self.name}: {problem}")

    def _find(self) -> pathlib.Path:
        preset = self.name.removeprefix(PREFIX)
        listed = import_keras_hub().models.Backbone.presets
        folder = pathlib.Path(os.path.expanduser(preset))
        if preset and folder.is_dir():
            return folder
        if preset not in listed:
            hint = did_you_mean(preset, listed) if preset and len(folder.parts) == 1 else ""
            raise self.error(
                f"{preset!r} is neither a folder nor the name of a preset of the installed "
                f"KerasHub{hint}"
            )
        handle = preset_handle(listed[preset])
        folder = cache_of_presets() / handle
        if not folder.is_dir():
            raise self.error(
                f"the preset is not on this machine ({folder}), and is not downloaded "
                "automatically. Download it with\n"
                f"  python -m training.get_preset {preset}\n"
                "or, where there is no internet access, with\n"
                f"  python -c \"import kagglehub; print(kagglehub.model_download('{handle}'))\"\n"
                "on a machine that has it, copy the folder that it prints, and name it as "
                f"{PREFIX}FOLDER"
            )
        return folder


def preset_handle(listed: dict[str, Any]) -> str:
    """Returns the handle of a listed preset at Kaggle."""
    return listed["kaggle_handle"].removeprefix("kaggle://")


def cache_of_presets() -> pathlib.Path:
    """Returns the folder in which kagglehub keeps the models that it has downloaded."""
    cache = os.environ.get("KAGGLEHUB_CACHE", "~/.cache/kagglehub")
    return pathlib.Path(cache).expanduser() / "models"


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message."""
    return (str(error).strip() or repr(error)).splitlines()[0]
