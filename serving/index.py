"""Shows every photo of a folder to a model, once: `python -m serving.index`."""

import argparse
import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

import numpy as np

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from biam_tf.progress import progress
from serving.indexing.photo_index import (
    MANIFEST,
    VOCABULARY,
    IndexedPhoto,
    IndexManifest,
    Shard,
    read_shard,
)
from serving.indexing.pooled_regions import pooled_regions

DESCRIPTION = """\
Shows every photo below PHOTO_FOLDER to an exported model and keeps what the model saw, in 16 bits,
in the folder INDEX. `python -m serving.retag INDEX` then scores the photos against any classes, in
moments, without the model and without the photos.

Run it again after the photos changed: new and changed ones are added, deleted ones leave. Stopped,
it goes on where it was. Files that are no readable photos are listed and left out.
"""

EXAMPLES = """\
examples:
  python -m serving.index models/my-photos ~/Pictures pictures.index
  python -m serving.retag pictures.index --classes "dog, red car, beach"
"""

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
SHARD_PHOTOS = 256
BATCH_PHOTOS = 16


class _Model:
    """An exported model, asked for region embeddings.

    A region's responses to the rows of an identity matrix are its embedding; its response to
    a row of zeros is the classifier's bias.
    """

    def __init__(self, folder: pathlib.Path):
        import tensorflow as tf

        self.folder = folder
        try:
            self._loaded = tf.saved_model.load(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is no exported model: {error}") from error
        # Without regions to explain by, the whole photo is one.
        signatures = self._loaded.signatures
        self._signature = signatures.get("explain") or signatures.get("serving_default")
        inputs = self._signature.structured_input_signature[1] if self._signature else {}
        if set(inputs) != {"images", "class_embeddings"}:
            raise UserError(f"{folder} is no exported tagger: it has no signature to score with")
        try:
            self.vocabulary_file = folder / "assets.extra" / "vocabulary.npz"
            with np.load(self.vocabulary_file) as vocabulary:
                self.embedding_size = vocabulary["embeddings"].shape[1]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.vocabulary_file} can't be read: {error}") from error

    def ask(self, photos: Sequence[bytes], class_embeddings: np.ndarray):
        """Returns scores (B, C) and response maps (B, h, w, C)."""
        import tensorflow as tf

        answer = self._signature(
            images=tf.constant(list(photos)),
            class_embeddings=tf.constant(class_embeddings, tf.float32),
        )
        scores = answer["scores"].numpy()
        if "response_maps" not in answer:
            return scores, scores[:, None, None]
        return scores, answer["response_maps"].numpy()

    def region_embeddings(self, photos: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings (B, h, w, d_a) and the responses (B, h, w) to a row of zeros."""
        _, maps = self.ask(photos, np.eye(self.embedding_size + 1, self.embedding_size))
        bias = maps[..., -1]
        return maps[..., :-1] - bias[..., None], bias


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.index",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model_dir",
        metavar="MODEL_DIR",
        type=pathlib.Path,
        help="folder of an exported model; its newest version is taken",
    )
    parser.add_argument(
        "photo_folder",
        metavar="PHOTO_FOLDER",
        type=pathlib.Path,
        help=f"searched with its sub-folders for {', '.join(ENDINGS)}",
    )
    parser.add_argument("index", metavar="INDEX", type=pathlib.Path, help="folder to write")
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    manifest = index_photos(arguments.model_dir, arguments.photo_folder, arguments.index)
    count = sum(len(shard.photos) for shard in manifest.shards)
    print(f"{arguments.index}: {count} photos")
    for photo, why in manifest.broken[:10]:
        print(f"  left out: {photo.path}: {why}")
    if len(manifest.broken) > 10:
        print(f"  and {len(manifest.broken) - 10} more, listed in {arguments.index / MANIFEST}")
    print(f'next: python -m serving.retag {arguments.index} --classes "dog, red car, beach"')


def index_photos(
    model_dir: str | os.PathLike,
    photo_folder: str | os.PathLike,
    index: str | os.PathLike,
    reached: Callable[[int, int], None] = lambda done, total: None,
) -> IndexManifest:
    """Brings an index in line with a folder of photos; shows progress on standard error.

    A shard of 256 photos is written at a time, each all or nothing, so that work that is
    stopped goes on from there.

    Args:
        model_dir: holds a folder for each version of a model; the newest is taken.
        photo_folder: searched with its sub-folders.
        index: folder to write or to update.
        reached: called with the photos that are done and all of them, as work goes on. What it
            raises stops the work.

    Raises:
        UserError: there are no photos or no model, or the index was made with another one.
    """
    from serving.rpc.loader import newest_version

    photo_folder, index = pathlib.Path(photo_folder).resolve(), pathlib.Path(index)
    found = _find_photos(photo_folder)
    folder = newest_version(pathlib.Path(model_dir))
    fingerprint = _fingerprint(folder)
    manifest = None
    if (index / MANIFEST).exists():
        manifest = IndexManifest.read(index)
        _require_same(manifest, index, photo_folder, fingerprint)
        manifest = _drop(manifest, index, found)
    elif index.exists() and (not index.is_dir() or any(index.iterdir())):
        raise UserError(f"{index} is there and holds no index; name another folder")

    seen = set()
    if manifest is not None:
        seen = {photo for shard in manifest.shards for photo in shard.photos}
        seen |= {photo for photo, _ in manifest.broken}
    new = [photo for photo in found if photo not in seen]
    if manifest is not None and not new:
        return manifest

    model = _Model(folder)
    if manifest is None:
        facts = _measure(model, photo_folder, new)
        manifest = IndexManifest(str(photo_folder), str(folder.resolve()), fingerprint, **facts)
        index.mkdir(parents=True, exist_ok=True)
        _write(index / VOCABULARY, model.vocabulary_file.read_bytes())
        manifest.write(index)
    with progress(len(found), "Indexing", "photo", len(found) - len(new)) as bar:

        def seen_more(count: int) -> None:
            bar.update(count)
            reached(bar.n, len(found))

        for start in range(0, len(new), SHARD_PHOTOS):
            some = new[start : start + SHARD_PHOTOS]
            embeddings, broken = _see(model, photo_folder, some, manifest.has_bias, seen_more)
            whole = [photo for photo in some if photo not in broken]
            if whole:
                shard = write_shard(index, whole, embeddings)
                manifest = dataclasses.replace(manifest, shards=(*manifest.shards, shard))
            manifest = dataclasses.replace(manifest, broken=(*manifest.broken, *broken.items()))
            manifest.write(index)
    return manifest


def _find_photos(folder: pathlib.Path) -> list[IndexedPhoto]:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of photos")
    photos = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            facts = path.stat()
            name = path.relative_to(folder).as_posix()
            photos.append(IndexedPhoto(name, facts.st_size, facts.st_mtime_ns))
    if not photos:
        raise UserError(f"{folder} holds no photo ({', '.join(ENDINGS)})")
    return photos


def _fingerprint(folder: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]:
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error
    return digest.hexdigest()


def _require_same(manifest, index, photo_folder, fingerprint) -> None:
    if manifest.fingerprint != fingerprint:
        raise UserError(
            f"{index} was made with another model ({manifest.model}), whose features don't mix "
            "with this one's; name another folder, or delete it first"
        )
    if manifest.photo_folder != str(photo_folder):
        raise UserError(f"{index} is of the photos in {manifest.photo_folder}; name another folder")


def _drop(manifest: IndexManifest, index: pathlib.Path, found: Sequence[IndexedPhoto]):
    """Takes photos that are gone or changed out of an index; leaves no other file behind."""
    there = set(found)
    shards = []
    for shard in manifest.shards:
        rows = [row for row, photo in enumerate(shard.photos) if photo in there]
        if len(rows) == len(shard.photos):
            shards.append(shard)
        elif rows:
            kept = [shard.photos[row] for row in rows]
            shards.append(write_shard(index, kept, read_shard(index, shard)[rows]))
    broken = tuple((photo, why) for photo, why in manifest.broken if photo in there)
    changed = dataclasses.replace(manifest, shards=tuple(shards), broken=broken)
    if changed != manifest:
        changed.write(index)
    wanted = {shard.file for shard in shards}
    for path in index.glob("shard-*.npy"):
        if path.name not in wanted:
            path.unlink()
    return changed


def _measure(model: _Model, folder: pathlib.Path, photos: Sequence[IndexedPhoto]) -> dict:
    """Facts of a model that its answers show, and the check that its scores follow from them."""
    for photo in photos:
        contents = [(folder / photo.path).read_bytes()]
        try:
            embeddings, bias = model.region_embeddings(contents)
            break
        except _invalid_argument() as error:
            if "class_embeddings: " in error.message:
                raise UserError(
                    f"{model.folder} scores only the classes it was trained on; it can't be indexed"
                ) from None
            continue
    else:
        raise UserError(f"{folder}: none of its {len(photos)} photos can be read")
    classes = np.random.default_rng(0).normal(size=(64, model.embedding_size))
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    scores, _ = model.ask(contents, classes)
    h, w = bias.shape[1:]
    responses = embeddings.reshape(h * w, -1) @ classes.T + bias.reshape(h * w, 1)
    pooled = pooled_regions(responses, scores[0])
    if pooled is None:
        raise UserError(
            f"{model.folder}: its scores are no mean of the strongest regions, linear in the class "
            "embeddings; it can't be indexed"
        )
    return {
        "grid": (h, w),
        "embedding_size": model.embedding_size,
        "has_bias": bool(np.any(bias)),
        "pooled": pooled,
    }


def _invalid_argument():
    import tensorflow as tf

    return tf.errors.InvalidArgumentError


def _see(model: _Model, folder: pathlib.Path, photos, has_bias: bool, seen_more):
    """Region embeddings (n, h w, d) float16 of the whole photos, and what is wrong with others."""
    batches = [photos[i : i + BATCH_PHOTOS] for i in range(0, len(photos), BATCH_PHOTOS)]
    embeddings, broken = [], {}
    # Two at a time: one is decoded while the other is in the backbone.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda batch: _see_batch(model, folder, batch, has_bias), batches)
        for batch, (found, problems) in zip(batches, answers, strict=True):
            embeddings += found
            broken |= problems
            seen_more(len(batch))
    if embeddings and not np.isfinite(np.concatenate(embeddings)).all():
        raise UserError(f"{model.folder}: its responses don't fit into 16 bits")
    return np.concatenate(embeddings) if embeddings else None, broken


def _see_batch(model: _Model, folder: pathlib.Path, photos, has_bias: bool):
    contents, broken = {}, {}
    for photo in photos:
        try:
            contents[photo] = (folder / photo.path).read_bytes()
        except OSError as error:
            broken[photo] = error.strerror
    try:
        return [_embeddings(model, list(contents.values()), has_bias)] if contents else [], broken
    except _invalid_argument():
        if len(contents) == 1:
            return [], broken | {photo: "not a whole photo" for photo in contents}
    # One of them is broken: each on its own.
    found = []
    for photo in contents:
        alone, problem = _see_batch(model, folder, [photo], has_bias)
        found += alone
        broken |= problem
    return found, broken


def _embeddings(model: _Model, contents: Sequence[bytes], has_bias: bool) -> np.ndarray:
    embeddings, bias = model.region_embeddings(contents)
    if has_bias:
        embeddings = np.concatenate([embeddings, bias[..., None]], axis=-1)
    with np.errstate(over="ignore"):  # noticed afterwards, as infinity
        return embeddings.reshape(len(contents), -1, embeddings.shape[-1]).astype(np.float16)


def write_shard(index: pathlib.Path, photos, embeddings: np.ndarray) -> Shard:
    """Writes photos and their region embeddings (n, h w, d) as the next shard of an index."""
    used = [int(path.stem.rpartition("-")[2]) for path in index.glob("shard-*.npy")]
    file = f"shard-{max(used, default=0) + 1:06d}.npy"
    partial = index / f".{file}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as opened:
            np.save(opened, embeddings)
        with open(partial, "rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        os.replace(partial, index / file)
    except OSError as error:
        raise UserError(f"{index / file}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return Shard(file, sha256, tuple(photos))


def _write(path: pathlib.Path, contents: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(contents)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
