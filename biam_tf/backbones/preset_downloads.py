"""Downloads presets of KerasHub into the cache of kagglehub."""

from collections.abc import Iterator

from biam_tf.backbones.preset_folder import (
    INSTALL,
    PREFIX,
    PresetFolder,
    cache_of_presets,
    first_line,
    import_keras_hub,
    preset_handle,
)
from biam_tf.errors import UserError, did_you_mean
from biam_tf.files import sha256_of, size_in_words


def download_preset(name: str) -> Iterator[str]:
    """Downloads a preset, unless it is in the cache, and yields what is to be known of it.

    Args:
        name: a name of KerasHub's list, with or without `keras_hub:`.

    Raises:
        UserError: KerasHub is not installed, there is no such preset, or it cannot be downloaded:
            the message says what to do instead.
    """
    name = name.removeprefix(PREFIX)
    listed = import_keras_hub().models.Backbone.presets
    if name not in listed:
        raise UserError(
            f"{name!r} is not the name of a preset of the installed KerasHub"
            f"{did_you_mean(name, listed)}"
        )
    about, handle = listed[name].get("metadata", {}), preset_handle(listed[name])
    yield f"{name}: {about.get('description', 'no description')}"
    page = f"https://www.kaggle.com/models/{handle.rpartition('/')[0].rpartition('/')[0]}"
    yield f"licence: as stated at {page} and {about.get('model_card') or 'its model card'}"
    folder = cache_of_presets() / handle
    if folder.is_dir():
        yield f"{folder} is there already"
    else:
        _download(name, handle)  # which shows its progress
    preset = PresetFolder(PREFIX + name)
    files = [file for file in preset.folder.rglob("*") if file.is_file()]
    yield f"{preset.folder}: {size_in_words(sum(file.stat().st_size for file in files))}"
    yield f"SHA-256 of {preset.weights_file.name}: {sha256_of(preset.weights_file)}"
    yield f"use it as {PREFIX}{name}"


def _download(name: str, handle: str) -> None:
    try:
        import kagglehub
    except ImportError as error:
        raise UserError(f"kagglehub is not installed ({error}); run {INSTALL}") from error
    try:
        kagglehub.model_download(handle)
    except Exception as error:  # of its own kinds, and of the libraries that it downloads with
        raise UserError(
            f"{name} cannot be downloaded ({first_line(error)}). Without internet access, run\n"
            f"  python -c \"import kagglehub; print(kagglehub.model_download('{handle}'))\"\n"
            "on a machine that has it, copy the folder that it prints, and name it as "
            f"{PREFIX}FOLDER; or convert a model of Hugging Face with --from-hugging-face FOLDER"
        ) from error
