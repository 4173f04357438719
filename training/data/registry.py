"""Which reader a configuration's `data.name` means."""

import pathlib
from collections.abc import Callable

from biam_tf.errors import UserError
from training.config import DataConfig
from training.data.dataset import TaggingDataset
from training.data.folder import read_folder
from training.data.scenes import draw_scenes

# Named in configurations that are complete but for their reader.
WITHOUT_READER = {"nus_wide": "NUS-WIDE", "open_images": "Open Images"}


def load_dataset(
    config: DataConfig,
    progress: Callable[[int, int], None] | None = None,
    look_for_photos: bool = True,
) -> TaggingDataset:
    """Returns the data set that a configuration asks for; scenes are drawn where they are not yet.

    Args:
        config: the `data` section.
        progress: called with (pictures done, pictures in all) while pictures are drawn.
        look_for_photos: whether a missing photo is an error; never where some may be broken,
            as it is counted with those.

    Raises:
        UserError: the data set is not there, is broken, or has no reader in this version.
    """
    if config.name in WITHOUT_READER:
        raise UserError(
            f"data.name: {config.name}: the reader for {WITHOUT_READER[config.name]} is not part "
            "of this version; its photos can be used as a folder data set: write annotations.csv "
            "and classes.csv beside them, then set data.name: folder and data.directory"
        )
    look_for_photos = look_for_photos and config.max_broken_share == 0
    if config.name == "scenes":
        directory = scenes_directory(config)
        draw_scenes(directory, config.pictures, config.seed, progress=progress)
        return read_folder(directory, look_for_photos)
    if not config.directory:
        raise UserError("data.directory: not set; a folder data set needs its folder")
    return read_folder(config.directory, look_for_photos)


def scenes_directory(config: DataConfig) -> pathlib.Path:
    """Returns where scenes are drawn: `data.directory`, or a folder of their own below `data/`.

    Its name holds what the pictures depend on, so that other scenes do not get in the way.
    """
    if config.directory:
        return pathlib.Path(config.directory)
    return pathlib.Path("data") / f"scenes-{config.pictures}-seed{config.seed}"
