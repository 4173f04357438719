"""Finds the photos that a run must leave out because they cannot be read."""

import pathlib

from biam_tf.progress import progress
from training.data.dataset import TaggingDataset
from training.data.input.broken_photos import BrokenPhoto, check_share, from_csv, report
from training.data.input.photo_reader import find_broken


def broken_photos(
    dataset: TaggingDataset, image_size: int, max_share: float, listed_in: pathlib.Path
) -> tuple[BrokenPhoto, ...]:
    """Returns the unreadable photos of all splits, from an existing list or by reading all photos.

    A resumed run uses its list, and so the same photos, even if other photos have changed since.

    Args:
        dataset: the data set.
        image_size: side of the decoded photos in pixels.
        max_share: `data.max_broken_share`; 0 skips the check.
        listed_in: the list of the run, written by `broken_photos.to_csv`; need not exist.

    Raises:
        UserError: more than `max_share` of the photos are broken; the message lists them.
    """
    if not max_share:
        return ()
    images = dataset.images
    if listed_in.exists():
        broken = from_csv(listed_in.read_text(encoding="utf-8"))
    else:
        with progress(len(images), "Checking photos", "photo") as bar:
            broken = find_broken(dataset.directory, images, image_size, bar.update)
    check_share(broken, len(images), max_share, dataset.directory)
    if broken:
        print(report(broken, len(images), str(listed_in)), flush=True)
    return broken
