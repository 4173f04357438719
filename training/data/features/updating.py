"""Brings a feature store up to date: extracts only photos that are new or have changed."""

import os
from collections.abc import Sequence
from typing import Protocol

from biam_tf.errors import UserError
from training.data.features import storage
from training.data.features.finding import Found, find_photos
from training.data.features.manifest import MANIFEST, PARTIAL, StoreManifest
from training.data.features.photo_files import PhotoFiles
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import (
    ADDED,
    UnfinishedStore,
    added_folders,
    check_same_job,
)
from training.data.input.broken_photos import BrokenPhoto

_MOST_ATTEMPTS = 4


class ExtractPart(Protocol):
    """Extracts the features of some photos into a part of a store."""

    def __call__(
        self,
        folder: str,
        job: StoreManifest,
        images: Sequence[str],
        total: int,
        broken: tuple[BrokenPhoto, ...] = (),
    ) -> None:
        """Extracts, or resumes the extraction.

        Args:
            folder: the part's folder, which exists.
            job: its manifest without shards.
            images: its photos.
            total: number of photos of the data set.
            broken: photos of the data set outside of the part that are known to be broken.
        """


def bring_up_to_date(
    path: str,
    job: StoreManifest,
    photos_directory: str | os.PathLike,
    images: Sequence[str],
    extract: ExtractPart,
    hash_all: bool = False,
) -> FeatureStore:
    """Returns a store with the features of `images` as they are now.

    Photos whose contents are in the store are not extracted again. If several processes call this
    for the same local folder, the others wait for the first; a store that has everything is not
    written to.

    Args:
        path: the store's folder; need not exist.
        job: the manifest of a store of `images`, without shards.
        photos_directory: the folder of the photos.
        images: (N,) unique relative paths, in the order of the records.
        extract: extracts the photos that are missing.
        hash_all: whether to compare the contents of all photos, see `find_photos`.

    Raises:
        UserError: the folder has features of another backbone; or as `extract` does.
    """
    _remove_leftovers(path)
    store, found = _open(path, job, photos_directory, images, hash_all)
    if store is None or found is None or found.missing:
        storage.make_folder(path)
        with storage.one_process_at_a_time(path):
            store, found = _extract_missing(path, job, photos_directory, images, extract, hash_all)
    if found.not_here:
        print(
            f"{path}: {found.not_here} of {len(images)} photos are not in {photos_directory}; "
            "their stored features are used without comparing them",
            flush=True,
        )
    return store.for_photos(found.rows, found.broken, found.sha256)


def _remove_leftovers(path: str) -> None:
    """Removes what an extraction that was stopped at its very end has left."""
    both = (storage.join(path, name) for name in (MANIFEST, PARTIAL))
    if all(map(storage.is_file, both)):
        whole = StoreManifest.read(storage.join(path, MANIFEST))
        UnfinishedStore(path, whole).remove_leftovers()


def _open(
    path: str,
    job: StoreManifest,
    photos_directory: str | os.PathLike,
    images: Sequence[str],
    hash_all: bool,
) -> tuple[FeatureStore | None, Found | None]:
    if not storage.is_file(storage.join(path, MANIFEST)):
        return None, None
    wanted = job.backbone
    store = FeatureStore.open(
        path,
        backbone_name=wanted.name,
        image_size=wanted.image_size,
        weights_fingerprint=wanted.weights,
    )
    for part in store.parts:
        check_same_job(part.path, part.manifest, job, with_photos=False)
    files = PhotoFiles(photos_directory)
    return store, find_photos(store, files, images, hash_all, job.orientation)


def _extract_missing(
    path: str,
    job: StoreManifest,
    photos_directory: str | os.PathLike,
    images: Sequence[str],
    extract: ExtractPart,
    hash_all: bool,
) -> tuple[FeatureStore, Found]:
    for _ in range(_MOST_ATTEMPTS):
        if not storage.is_file(storage.join(path, MANIFEST)):
            _end_other_job(path, job, photos_directory, images)
        store, found = _open(path, job, photos_directory, images, hash_all)
        if store is None or found is None:
            extract(path, job.for_photos(images), images, len(images))
            continue
        ended = [
            _end_other_job(folder, job, photos_directory, found.missing)
            for folder in added_folders(path)
        ]
        if any(ended):
            continue
        if not found.missing:
            return store, found
        print(
            f"{path}: has the features of {len(images) - len(found.missing)} of {len(images)} "
            f"photos; {len(found.missing)} are new or have changed" + _old_parts(store),
            flush=True,
        )
        folder = _folder_to_add(path)
        storage.make_folder(folder)
        part = job.for_photos(found.missing)
        extract(folder, part, found.missing, len(images), found.broken)
    raise UserError(
        f"{photos_directory}: photos change while their features are extracted; run the command "
        "again once nothing writes there any more"
    )


def _old_parts(store: FeatureStore) -> str:
    if all(part.records is not None for part in store.parts):
        return ""
    return (
        " (a part of the store is of a version that recorded no sizes; there, photos whose files "
        "are newer than the features count as changed)"
    )


def _end_other_job(
    folder: str, job: StoreManifest, photos_directory: str | os.PathLike, images: Sequence[str]
) -> bool:
    """Ends an unfinished part of other photos than `images`; what is finished there is kept.

    Returns:
        Whether there was such a part.
    """
    if storage.is_file(storage.join(folder, MANIFEST)):
        return False
    if not storage.is_file(storage.join(folder, PARTIAL)):
        return False
    begun = StoreManifest.read(storage.join(folder, PARTIAL))
    check_same_job(folder, begun, job, with_photos=False)
    if begun.images == job.for_photos(images).images:
        return False
    UnfinishedStore(folder, begun).end_early(photos_directory)
    return True


def _folder_to_add(path: str) -> str:
    """Returns the folder of the part to extract: the last one if it is unfinished, or a new one."""
    folders = added_folders(path)
    if folders and not storage.is_file(storage.join(folders[-1], MANIFEST)):
        return folders[-1]
    number = int(folders[-1].rpartition(ADDED)[2]) + 1 if folders else 1
    return storage.join(path, f"{ADDED}{number:05d}")
