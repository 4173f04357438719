"""Chooses the folder of a run's features among the stores that lie beside each other."""

import hashlib
import re
from collections.abc import Sequence

from biam_tf.errors import UserError
from training.data.dataset import add_texts
from training.data.features import storage
from training.data.features.finding import find_photos
from training.data.features.manifest import MANIFEST, PARTIAL, StoreManifest
from training.data.features.photo_files import PhotoFiles
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import UnfinishedStore


def choose_store(
    beside: str, job: StoreManifest, files: PhotoFiles, images: Sequence[str]
) -> str | None:
    """Returns the store that has the features of most of the photos; None if none has any.

    Stores of other backbones, and damaged ones, do not count.

    Args:
        beside: the folder of the stores; need not exist.
        job: the manifest of a store of `images`, without shards.
        files: the photos.
        images: relative paths, each once.
    """
    most, chosen = 0, None
    for name in sorted(storage.names_in(beside)):
        folder = storage.join(beside, name)
        try:
            count = _count(folder, job, files, images)
        except UserError:
            continue
        if count > most:
            most, chosen = count, folder
    return chosen


def _count(folder: str, job: StoreManifest, files: PhotoFiles, images: Sequence[str]) -> int:
    """Returns the number of photos whose features a store has."""
    for name in (MANIFEST, PARTIAL):
        if storage.is_file(storage.join(folder, name)):
            begun = StoreManifest.read(storage.join(folder, name))
            break
    else:
        return 0
    if begun.differences(job, with_photos=False):
        return 0
    if name == PARTIAL:
        unfinished = UnfinishedStore(folder, begun)
        photos = unfinished.photos_of(unfinished.all_finished(files.directory))
        return len(set(photos).intersection(images))
    found = find_photos(FeatureStore.open(folder), files, images, orientation=job.orientation)
    compared = len(found.rows) - found.not_here
    # Photos that are not here cannot tell whether a store is theirs, unless it has all of them.
    return compared or (len(found.rows) if not found.missing else 0)


def new_store_name(job: StoreManifest, files: PhotoFiles, images: Sequence[str]) -> str:
    """Returns the name of a new store's folder, which depends on the photos and the backbone."""
    digest = hashlib.sha256()
    add_texts(digest, [job.backbone.weights, job.preprocessing, *images])
    add_texts(digest, (f"{size} {time}" for size, time in files.states(images)))
    backbone = re.sub(r"[^\w.-]+", "-", job.backbone.name)  # it may be a path
    return f"{digest.hexdigest()[:16]}-{backbone}-{job.backbone.image_size}"
