"""Brings an index in line with a folder of photos."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import is_inside, replacing, sha256_of
from biam_tf.locks import locked
from biam_tf.photos import ENDINGS
from biam_tf.progress import progress
from serving.indexing.photo_index import (
    MANIFEST,
    THRESHOLDS,
    VOCABULARY,
    IndexedPhoto,
    IndexManifest,
    Shard,
    read_shard,
)
from serving.indexing.region_embedder import RegionEmbedder
from serving.rpc.version_folders import newest_version

LOCK = ".lock"
SHARD_PHOTOS = 256
BATCH_PHOTOS = 16


def index_photos(
    model_dir: str | os.PathLike,
    photo_folder: str | os.PathLike,
    index: str | os.PathLike,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    within: str | os.PathLike | None = None,
) -> IndexManifest:
    """Brings an index in line with a folder of photos; shows progress on standard error.

    Shards of 256 photos are written whole or not at all, so that an interrupted run continues
    from the last one.

    Args:
        model_dir: folder of the model, with one sub-folder per version; the newest is used.
        photo_folder: searched with its sub-folders.
        index: folder to write or update.
        on_progress: called with the numbers of processed and of all photos. An exception that it
            raises stops the work.
        within: a folder that holds all photos that may be read: a symbolic link that leads out of
            it is listed as broken. None for no limit.

    Raises:
        UserError: there are no photos or no model, or the index belongs to another model or
            folder.
    """
    photo_folder, index = pathlib.Path(photo_folder).resolve(), pathlib.Path(index)
    if index.exists() and not index.is_dir():
        raise UserError(f"{index} exists but holds no index; name another folder")
    with locked(index / LOCK, f"{index} is being written"):
        return _index_photos(pathlib.Path(model_dir), photo_folder, index, on_progress, within)


def _index_photos(
    model_dir: pathlib.Path,
    photo_folder: pathlib.Path,
    index: pathlib.Path,
    on_progress: Callable[[int, int], None],
    within: str | os.PathLike | None,
) -> IndexManifest:
    photos = _find_photos(photo_folder)
    version = newest_version(model_dir)
    fingerprint = _fingerprint(version)
    manifest = None
    if (index / MANIFEST).exists():
        manifest = IndexManifest.read(index)
        _require_same(manifest, index, photo_folder, fingerprint)
        manifest = _remove_missing(manifest, index, photos)
    elif any(path.name != LOCK for path in index.iterdir()):
        raise UserError(f"{index} exists but holds no index; name another folder")

    done = set()
    if manifest is not None:
        done = {photo for shard in manifest.shards for photo in shard.photos}
        done |= {photo for photo, _ in manifest.broken}
    new = [photo for photo in photos if photo not in done]
    if manifest is not None and not new:
        return manifest

    model = RegionEmbedder(version)
    if manifest is None:
        outside = _outside(photo_folder, new, within)
        rule = model.scoring_rule(photo_folder, [photo for photo in new if photo not in outside])
        manifest = IndexManifest(
            photo_folder=str(photo_folder),
            model=str(version.resolve()),
            fingerprint=fingerprint,
            grid=rule.grid,
            embedding_size=model.embedding_size,
            has_bias=rule.has_bias,
            pooled=rule.pooled,
        )
        index.mkdir(parents=True, exist_ok=True)
        with replacing(index / VOCABULARY) as partial:
            partial.write_bytes(model.vocabulary_file.read_bytes())
        thresholds = model.vocabulary_file.with_name(THRESHOLDS)
        if thresholds.is_file():
            with replacing(index / THRESHOLDS) as partial:
                partial.write_bytes(thresholds.read_bytes())
        manifest.write(index)
    with progress(len(photos), "Indexing", "photo", len(photos) - len(new)) as bar:

        def on_batch(count: int) -> None:
            bar.update(count)
            on_progress(int(bar.n), len(photos))

        for start in range(0, len(new), SHARD_PHOTOS):
            chunk = new[start : start + SHARD_PHOTOS]
            outside = _outside(photo_folder, chunk, within)
            inside = [photo for photo in chunk if photo not in outside]
            embeddings, broken = _embed(model, photo_folder, inside, manifest.has_bias, on_batch)
            broken |= outside
            if outside:
                on_batch(len(outside))
            if embeddings is not None:
                readable = [photo for photo in chunk if photo not in broken]
                shard = write_shard(index, readable, embeddings)
                manifest = dataclasses.replace(manifest, shards=(*manifest.shards, shard))
            manifest = dataclasses.replace(manifest, broken=(*manifest.broken, *broken.items()))
            manifest.write(index)
    return manifest


def write_shard(
    index: pathlib.Path, photos: Sequence[IndexedPhoto], embeddings: np.ndarray
) -> Shard:
    """Writes photos and their region embeddings (n, h w, d) float16 as the index's next shard."""
    used = [int(path.stem.rpartition("-")[2]) for path in index.glob("shard-*.npy")]
    file = f"shard-{max(used, default=0) + 1:06d}.npy"
    with replacing(index / file) as partial:
        with open(partial, "wb") as opened:
            np.save(opened, embeddings)
        sha256 = sha256_of(partial)
    return Shard(file, sha256, tuple(photos))


def _find_photos(folder: pathlib.Path) -> list[IndexedPhoto]:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of photos")
    photos = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            status = path.stat()
            name = path.relative_to(folder).as_posix()
            photos.append(IndexedPhoto(name, status.st_size, status.st_mtime_ns))
    if not photos:
        raise UserError(f"{folder} holds no photo ({', '.join(ENDINGS)})")
    return photos


def _outside(
    folder: pathlib.Path, photos: Sequence[IndexedPhoto], within: str | os.PathLike | None
) -> dict[IndexedPhoto, str]:
    """Returns the photos that are links out of the folder `within`, each with that reason."""
    if within is None:
        return {}
    reason = f"a link that leads out of {within}"
    return {photo: reason for photo in photos if not is_inside(folder / photo.path, within)}


def _fingerprint(version: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in [version / "saved_model.pb", *sorted((version / "variables").glob("*"))]:
        try:
            digest.update(bytes.fromhex(sha256_of(path)))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error
    return digest.hexdigest()


def _require_same(
    manifest: IndexManifest, index: pathlib.Path, photo_folder: pathlib.Path, fingerprint: str
) -> None:
    if manifest.fingerprint != fingerprint:
        raise UserError(
            f"{index} was made with another model ({manifest.model}), whose embeddings can't be "
            "mixed with this one's; name another folder, or delete it first"
        )
    if manifest.photo_folder != str(photo_folder):
        raise UserError(f"{index} is of the photos in {manifest.photo_folder}; name another folder")


def _remove_missing(
    manifest: IndexManifest, index: pathlib.Path, photos: Sequence[IndexedPhoto]
) -> IndexManifest:
    """Removes deleted and changed photos from an index, and shard files that it doesn't list."""
    existing = set(photos)
    shards = []
    for shard in manifest.shards:
        rows = [row for row, photo in enumerate(shard.photos) if photo in existing]
        if len(rows) == len(shard.photos):
            shards.append(shard)
        elif rows:
            kept = [shard.photos[row] for row in rows]
            shards.append(write_shard(index, kept, read_shard(index, shard)[rows]))
    broken = tuple((photo, reason) for photo, reason in manifest.broken if photo in existing)
    changed = dataclasses.replace(manifest, shards=tuple(shards), broken=broken)
    if changed != manifest:
        changed.write(index)
    listed = {shard.file for shard in shards}
    for path in index.glob("shard-*.npy"):
        if path.name not in listed:
            path.unlink()
    return changed


def _embed(
    model: RegionEmbedder,
    folder: pathlib.Path,
    photos: Sequence[IndexedPhoto],
    with_bias: bool,
    on_batch: Callable[[int], None],
) -> tuple[np.ndarray | None, dict[IndexedPhoto, str]]:
    """Region embeddings (n, h w, d) of the readable photos, and why the others are unreadable."""
    batches = [photos[i : i + BATCH_PHOTOS] for i in range(0, len(photos), BATCH_PHOTOS)]
    embeddings: list[np.ndarray] = []
    broken: dict[IndexedPhoto, str] = {}
    # Two at a time: one is decoded while the other runs through the backbone.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda batch: model.embed_readable(folder, batch, with_bias), batches)
        for batch, (found, reasons) in zip(batches, results, strict=True):
            embeddings += found
            broken |= reasons
            on_batch(len(batch))
    if not embeddings:
        return None, broken
    joined = np.concatenate(embeddings)
    if not np.isfinite(joined).all():
        raise UserError(f"{model.folder}: its responses are too large for 16-bit floats")
    return joined, broken
