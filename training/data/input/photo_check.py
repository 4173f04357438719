"""Which photos of a data set a run goes without, where its backbone reads the photos themselves."""

import pathlib

from biam_tf.progress import progress
from training.data.dataset import TaggingDataset
from training.data.input.broken_photos import BrokenPhoto, check_share, from_csv, report
from training.data.input.photo_reader import find_broken


def broken_photos(
    dataset: TaggingDataset, image_size: int, max_share: float, listed_in: pathlib.Path
) -> tuple[BrokenPhoto, ...]:
    """Returns the photos of all splits that cannot be read: as listed, or found by reading all.

    A run that resumes takes its list, so that it goes on with the same photos whatever has
    happened to the others.

    Args:
        dataset: the photos.
        image_size: side in pixels.
        max_share: `data.max_broken_share`; with 0 nothing is looked for.
        listed_in: the run's list, as `broken_photos.to_csv` writes it; need not be there.

    Raises:
        UserError: more than `max_share` of the photos are broken; all are named.
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
