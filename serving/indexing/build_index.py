"""Brings an index in line with a folder of photos."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from biam_tf.class_sides import LinearClasses, save_class_side
from biam_tf.errors import UserError
from biam_tf.files import is_inside, replacing, sha256_of
from biam_tf.locks import locked
from biam_tf.photos import ENDINGS
from biam_tf.progress import progress
from serving.indexing.manifest import (
    BROKEN,
    CLASS_SIDE,
    FORMAT,
    LOCK,
    MANIFEST,
    NEVER_READ_NS,
    THRESHOLDS,
    VOCABULARY,
    IndexedPhoto,
    IndexManifest,
    Shard,
    add_broken,
    digest_of,
    next_number,
    write_broken,
    write_shard,
)
from serving.indexing.region_embedder import RegionEmbedder, ScoringRule, Store
from serving.rpc.version_folders import newest_version

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
    from the last one. Photos of damaged shards are indexed again.

    Args:
        model_dir: folder of the model, with one sub-folder per version; the newest is used.
        photo_folder: searched with its sub-folders.
        index: folder to write or update.
        on_progress: called with the numbers of processed and of all photos. An exception that it
            raises stops the work.
        within: a folder that holds all photos that may be read: a symbolic link that leads out of
            it is listed as broken. None for no limit.

    Returns:
        What the index holds; its `damaged` are the shards that were found damaged and replaced.

    Raises:
        UserError: there are no photos or no model, the index belongs to another model or folder,
            or another process writes it.
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
    found = _FolderOfPhotos(photo_folder, within)
    photos = found.photos
    version = newest_version(model_dir)
    fingerprint = _fingerprint(version)
    manifest: IndexManifest | None = None
    done: set[str] = set()
    if (index / MANIFEST).exists():
        manifest = IndexManifest.read(index)
        _require_same(manifest, index, photo_folder, fingerprint)
        manifest = _renewed(manifest, index, version)
        manifest, done = _in_line(manifest, index, found)
    elif any(path.name != LOCK for path in index.iterdir()):
        raise UserError(f"{index} exists but holds no index; name another folder")

    new = [photo for photo in photos if photo.path not in done]
    if manifest is not None and not new:
        return manifest

    model = RegionEmbedder(version)
    if manifest is None:
        rule = model.scoring_rule(photo_folder, new)
        manifest = _first_manifest(photo_folder, version, fingerprint, model, rule)
        _write_model_files(index, version, rule)
        add_broken(index, found.problems)
        manifest = dataclasses.replace(manifest, broken=tuple(found.problems))
        manifest.write(index)
    store = model.storing(ScoringRule.of_index(manifest, index))
    with progress(len(photos), "Indexing", "photo", len(photos) - len(new)) as bar:

        def on_batch(count: int) -> None:
            bar.update(count)
            on_progress(int(bar.n), len(photos))

        number = next_number(index)
        for start in range(0, len(new), SHARD_PHOTOS):
            chunk = new[start : start + SHARD_PHOTOS]
            vectors, broken = _embed(model, photo_folder, chunk, store, on_batch)
            if vectors:
                stored = np.stack(list(vectors.values()))
                shard = write_shard(index, list(vectors), stored, number)
                manifest = dataclasses.replace(manifest, shards=(*manifest.shards, shard))
                number += 1
            add_broken(index, broken.items())
            manifest = dataclasses.replace(manifest, broken=(*manifest.broken, *broken.items()))
    return manifest


class _FolderOfPhotos:
    """The photos below a folder, sorted by path, and what could not be looked into."""

    def __init__(self, folder: pathlib.Path, within: str | os.PathLike | None) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder of photos")
        self.folder = folder
        self._within = within
        self.problems: list[tuple[IndexedPhoto, str]] = []
        self._unknown: list[str] = []
        self.photos = sorted(self._below(str(folder), ""), key=lambda photo: photo.path)
        if not self.photos:
            reasons = "".join(f"\n  {photo.path}: {why}" for photo, why in self.problems[:3])
            raise UserError(f"{folder} holds no photo ({', '.join(ENDINGS)}){reasons}")

    def is_unknown(self, path: str) -> bool:
        """Whether a photo lies where nothing can be seen at present: it may be there or not."""
        return any(path == place or path.startswith(f"{place}/") for place in self._unknown)

    def _below(self, folder: str, place: str) -> Iterator[IndexedPhoto]:
        try:
            with os.scandir(folder) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as error:
            self._leave_out(place.rstrip("/") or ".", error.strerror or str(error), unknown=True)
            return
        for entry in entries:
            name = f"{place}{entry.name}"
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._below(entry.path, f"{name}/")
                elif os.path.splitext(entry.name)[1].lower() in ENDINGS and entry.is_file():
                    if self._leads_outside(entry):
                        self._leave_out(name, f"a link that leads out of {self._within}")
                        continue
                    status = entry.stat()
                    times = status.st_mtime_ns, status.st_ctime_ns
                    yield IndexedPhoto(name, status.st_size, *times)
            except OSError as error:
                self._leave_out(name, error.strerror or str(error), unknown=True)

    def _leads_outside(self, entry: os.DirEntry) -> bool:
        if self._within is None or not entry.is_symlink():
            return False
        return not is_inside(entry.path, self._within)

    def _leave_out(self, path: str, reason: str, unknown: bool = False) -> None:
        self.problems.append((IndexedPhoto(path, 0, NEVER_READ_NS), reason))
        if unknown:
            self._unknown.append(path)


def _fingerprint(version: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in [version / "saved_model.pb", *sorted((version / "variables").glob("*"))]:
        try:
            digest.update(bytes.fromhex(sha256_of(path)))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error
    return digest.hexdigest()


def _first_manifest(
    photo_folder: pathlib.Path,
    version: pathlib.Path,
    fingerprint: str,
    model: RegionEmbedder,
    rule: ScoringRule,
) -> IndexManifest:
    side = rule.class_side
    return IndexManifest(
        photo_folder=str(photo_folder),
        model=str(version.resolve()),
        fingerprint=fingerprint,
        grid=rule.grid,
        embedding_size=model.embedding_size,
        has_bias=isinstance(side, LinearClasses) and side.has_bias,
        pooled=rule.pooled,
        class_side=side.kind,
        region_shape=rule.region_shape,
    )


def _write_model_files(index: pathlib.Path, version: pathlib.Path, rule: ScoringRule) -> None:
    """Copies what an index needs of its model: searches then do without it."""
    index.mkdir(parents=True, exist_ok=True)
    if not isinstance(rule.class_side, LinearClasses):
        save_class_side(rule.class_side, index / CLASS_SIDE)
    for name in (VOCABULARY, THRESHOLDS):
        _copy_if_other(version / "assets.extra" / name, index / name)


def _copy_if_other(source: pathlib.Path, target: pathlib.Path) -> None:
    if not source.is_file():
        return
    contents = source.read_bytes()
    if not target.is_file() or target.read_bytes() != contents:
        with replacing(target) as partial:
            partial.write_bytes(contents)


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


def _renewed(manifest: IndexManifest, index: pathlib.Path, version: pathlib.Path) -> IndexManifest:
    """Writes an index of an earlier form in today's, and what it needs of its model anew."""
    for name in (VOCABULARY, THRESHOLDS):
        _copy_if_other(version / "assets.extra" / name, index / name)
    if manifest.model != str(version.resolve()):  # the same model at another place
        manifest = dataclasses.replace(manifest, model=str(version.resolve()))
        if manifest.format == FORMAT:
            manifest.write(index)
    if manifest.format == FORMAT:
        return manifest
    for shard in manifest.shards:
        shard.write_list(shard.photos)
    write_broken(index, manifest.broken)
    dataclasses.replace(manifest, format=FORMAT).write(index)  # last: until then, it is as it was
    return IndexManifest.read(index)


def _in_line(
    manifest: IndexManifest, index: pathlib.Path, found: _FolderOfPhotos
) -> tuple[IndexManifest, set[str]]:
    """Removes damaged shards, deleted and changed photos, and files that are no part of an index.

    Returns:
        the manifest, and the paths of the photos that need not be read again.
    """
    existing = {photo.path: photo for photo in found.photos}
    damaged, shards, done = dict(manifest.damaged), [], set[str]()
    number = next_number(index)
    with progress(len(manifest.shards), "Checking", "shard") as bar:
        for shard in manifest.shards:
            reason = shard.damage()
            bar.update(1)
            if reason is not None:
                damaged[shard.file] = reason
                continue
            photos = shard.photos
            kept = [_as_it_is(photo, existing, found) for photo in photos]
            # The same photo twice: an indexer was stopped while it replaced a shard.
            stays = [photo is not None and photo.path not in done for photo in kept]
            rows = [row for row, its in enumerate(stays) if its]
            own = [photo for photo, its in zip(kept, stays, strict=True) if photo and its]
            if len(rows) < len(photos):
                if rows:
                    vectors = shard.vectors()[rows]
                    shards.append(write_shard(index, own, vectors, number, [shard.file]))
                    number += 1
                shard.remove()
            else:
                if tuple(own) != photos:
                    shard.write_list(own)
                shards.append(shard)
            done.update(photo.path for photo in own)
    _remove_others(index, shards)
    broken = [
        (photo, reason)
        for photo, reason in manifest.broken
        if photo.changed_ns != NEVER_READ_NS
        and photo.path in existing
        and _is_as_it_was(photo, existing[photo.path])
        and photo.path not in done
    ]
    done.update(photo.path for photo, _ in broken)
    broken += found.problems
    if tuple(broken) != manifest.broken or not (index / BROKEN).exists():
        write_broken(index, broken)
    changed = dataclasses.replace(
        manifest, shards=tuple(shards), broken=tuple(broken), damaged=tuple(damaged.items())
    )
    return changed, done


def _is_as_it_was(photo: IndexedPhoto, now: IndexedPhoto) -> bool:
    return photo.version == now.version and photo.status_ns in (0, now.status_ns)


def _as_it_is(
    photo: IndexedPhoto, existing: dict[str, IndexedPhoto], found: _FolderOfPhotos
) -> IndexedPhoto | None:
    """Returns an indexed photo as its file is now; None if it is gone or has other contents."""
    now = existing.get(photo.path)
    if now is None:
        return photo if found.is_unknown(photo.path) else None
    if now.version != photo.version:
        return None
    if not photo.status_ns or photo.status_ns == now.status_ns:
        return photo
    # Another file may have been put in its place with the same size and time (`cp -p`).
    try:
        same = digest_of((found.folder / photo.path).read_bytes()) == photo.digest
    except OSError:
        return None  # it is read again, and named if it can't be
    return dataclasses.replace(photo, status_ns=now.status_ns) if same else None


def _remove_others(index: pathlib.Path, shards: Sequence[Shard]) -> None:
    listed = {path.name for shard in shards for path in (shard.path, shard.list_path)}
    for pattern in ("photos-*.jsonl", "shard-*.npy"):  # lists first: see `Shard.remove`
        for path in index.glob(pattern):
            if path.name not in listed and not path.is_dir():
                path.unlink()


def _embed(
    model: RegionEmbedder,
    folder: pathlib.Path,
    photos: Sequence[IndexedPhoto],
    store: Store,
    on_batch: Callable[[int], None],
) -> tuple[dict[IndexedPhoto, np.ndarray], dict[IndexedPhoto, str]]:
    """Arrays (h w, d) of the readable photos, and why the others are unreadable."""
    batches = [photos[i : i + BATCH_PHOTOS] for i in range(0, len(photos), BATCH_PHOTOS)]
    vectors: dict[IndexedPhoto, np.ndarray] = {}
    broken: dict[IndexedPhoto, str] = {}
    # Two at a time: one is decoded while the other runs through the backbone.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda batch: model.embed_readable(folder, batch, store), batches)
        for batch, (found, reasons) in zip(batches, results, strict=True):
            vectors |= found
            broken |= reasons
            on_batch(len(batch))
    for photo, array in vectors.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{model.folder}: what it computes of {photo.path} is too large for 16-bit floats"
            )
    return vectors, broken
