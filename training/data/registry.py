"""The data sets by `data.name`; add new ones to `DATA_SOURCES`."""

import pathlib
from collections.abc import Callable

from biam_tf.errors import UserError
from training.config.schema import DataConfig
from training.data.dataset import TaggingDataset
from training.data.folder.reader import FOLDER
from training.data.from_tfds.reader import TFDS
from training.data.nus_wide.reader import NUS_WIDE
from training.data.open_images.reader import OPEN_IMAGES
from training.data.scenes.reader import SCENES
from training.data.source import DataSource, ReadRequest

DATA_SOURCES: dict[str, DataSource] = {
    source.name: source for source in (SCENES, FOLDER, NUS_WIDE, OPEN_IMAGES, TFDS)
}


def require_directory(config: DataConfig) -> None:
    """Raises the error of `load_dataset` for a folder that does not exist, before all other work.

    Raises:
        UserError: the data set needs a folder, and there is none.
    """
    is_there = bool(config.directory) and pathlib.Path(str(config.directory)).is_dir()
    if DATA_SOURCES[config.name].needs_directory and not is_there:
        load_dataset(config)


def load_dataset(
    config: DataConfig,
    progress: Callable[[int, int], None] | None = None,
    look_for_photos: bool = True,
) -> TaggingDataset:
    """Reads the data set of a configuration; generates scenes if they do not exist.

    Args:
        config: the `data` section.
        progress: called with (done, total) while pictures are generated or labels are read.
        look_for_photos: whether to check that the photos exist.

    Raises:
        UserError: the data set does not exist or is invalid.
    """
    source = DATA_SOURCES[config.name]
    if source.needs_directory and not config.directory:
        raise UserError(
            f"data.directory: not set; {source.needs_directory}; set it with "
            "--set data.directory=PATH"
        )
    dataset = source.read(
        ReadRequest(
            directory=pathlib.Path(config.directory) if config.directory else None,
            settings=source.settings_type() if config.settings is None else config.settings,
            progress=progress,
            look_for_photos=look_for_photos,
            missing_is_error=look_for_photos and config.max_broken_share == 0,
        )
    )
    return dataset.counting_as_seen(dataset.names) if config.all_seen else dataset
