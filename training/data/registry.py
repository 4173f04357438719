"""Which reader a configuration's `data.name` means."""

import pathlib
from collections.abc import Callable

from biam_tf.errors import UserError
from training.config import DataConfig
from training.data.dataset import TaggingDataset
from training.data.folder.reader import read_folder
from training.data.from_tfds.reader import read_tfds
from training.data.nus_wide.reader import read_nus_wide
from training.data.open_images.reader import read_open_images
from training.data.scenes.reader import draw_scenes

FOLDER_OF = {
    "folder": "a folder data set needs its folder",
    "nus_wide": "NUS-WIDE needs the folder of its unpacked archives, see docs/datasets.md",
    "open_images": "Open Images needs the folder of its files, see docs/datasets.md",
}


def load_dataset(
    config: DataConfig,
    progress: Callable[[int, int], None] | None = None,
    look_for_photos: bool = True,
) -> TaggingDataset:
    """Returns the data set that a configuration asks for; scenes are drawn where they are not yet.

    Args:
        config: the `data` section.
        progress: called with (done, in all) while pictures are drawn or labels are read.
        look_for_photos: whether a missing photo is an error; never where some may be broken,
            as it is counted with those.

    Raises:
        UserError: the data set is not there, or is broken.
    """
    dataset = _read(config, progress, look_for_photos)
    return dataset.counting_as_seen(dataset.names) if config.all_seen else dataset


def _read(config: DataConfig, progress, look_for_photos: bool) -> TaggingDataset:
    if config.name == "scenes":
        directory = scenes_directory(config)
        draw_scenes(directory, config.pictures, config.seed, progress=progress)
        return read_folder(directory, look_for_photos and config.max_broken_share == 0)
    if config.name == "tfds":
        return read_tfds(
            config.builder,
            config.label_feature,
            config.directory,
            config.absent_feature,
            config.zero_shot_split,
            progress,
            look_for_photos and config.max_broken_share == 0,
        )
    if not config.directory:
        raise UserError(f"data.directory: not set; {FOLDER_OF[config.name]}")
    if config.name == "nus_wide":
        return read_nus_wide(
            config.directory, config.configuration, config.unlabelled, progress, look_for_photos
        )
    if config.name == "open_images":
        return read_open_images(
            config.directory,
            config.unseen_classes,
            config.machine_confidence,
            progress,
            look_for_photos,
        )
    return read_folder(config.directory, look_for_photos and config.max_broken_share == 0)


def scenes_directory(config: DataConfig) -> pathlib.Path:
    """Returns where scenes are drawn: `data.directory`, or a folder of their own below `data/`.

    Its name holds what the pictures depend on, so that other scenes do not get in the way.
    """
    if config.directory:
        return pathlib.Path(config.directory)
    return pathlib.Path("data") / f"scenes-{config.pictures}-seed{config.seed}"
