"""The operations of tensorflow-text, which some exported models have in their graphs."""

import importlib
import json
import os
import pathlib
from types import ModuleType
from typing import Any

import tensorflow as tf

from biam_tf.errors import UserError

TENSORFLOW_TEXT = "tensorflow-text"
FACTS = "assets.extra/sentence_encoder.json"


def import_tensorflow_text() -> ModuleType:
    """Returns the package, whose import registers its operations with TensorFlow.

    Raises:
        UserError: it is not installed, or made for another TensorFlow.
    """
    install = f"pip install 'tensorflow-text=={'.'.join(tf.__version__.split('.')[:2])}.*'"
    try:
        return importlib.import_module("tensorflow_text")
    except ImportError as error:
        raise UserError(
            "the text encoder of this model has operations of the package tensorflow-text, which "
            f"is not installed ({error}); run {install}, or export the model with --text-tower none"
        ) from error
    except (tf.errors.NotFoundError, OSError) as error:
        raise UserError(
            f"the installed tensorflow-text does not fit TensorFlow {tf.__version__} "
            f"({str(error).splitlines()[0]}); run {install}"
        ) from error


def load_saved_model(folder: str | os.PathLike) -> Any:
    """Loads an exported model, as `tf.saved_model.load` does, with the operations that it needs.

    Raises:
        UserError: it needs tensorflow-text, which is not installed or does not fit TensorFlow.
        OSError: there is no such model.
        ValueError: it cannot be loaded.
    """
    register_operations(folder)
    return tf.saved_model.load(str(folder))


def register_operations(folder: str | os.PathLike) -> None:
    """Registers the operations that the graph of an exported model has, beside TensorFlow's own.

    Raises:
        UserError: it needs tensorflow-text, which is not installed or does not fit TensorFlow.
    """
    try:
        facts = json.loads((pathlib.Path(folder) / FACTS).read_text(encoding="utf-8"))
        needs = facts.get("needs", ())
    except (OSError, ValueError, AttributeError):  # an earlier export, or a model of others
        return
    if TENSORFLOW_TEXT in needs:
        import_tensorflow_text()
