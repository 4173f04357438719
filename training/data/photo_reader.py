"""Reads and decodes photos in parallel, and names those that cannot be decoded."""

import os
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tqdm

from biam_tf.errors import UserError
from biam_tf.photos import decode_photo

MOST_NAMED = 100


def read_photo(directory: str | os.PathLike, image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Returns the photo `image` of `directory`, float32 (image_size, image_size, 3) in 0..255.

    In a graph; a photo that is missing or broken fails there, see `unreadable_photos`.
    """
    path = tf.strings.join([os.fspath(directory), image], separator="/")
    return decode_photo(tf.io.read_file(path), image_size)


def photo_batches(
    directory: str | os.PathLike,
    images: Sequence[str],
    image_size: int,
    batch_size: int,
    group_size: int | None = None,
) -> tf.data.Dataset:
    """Returns the photos in order, float32 (<= batch_size, image_size, image_size, 3).

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side of the decoded photos in pixels.
        batch_size: photos at a time.
        group_size: no batch reaches from one group of so many photos into the next; None makes
            all photos one group.
    """

    def group_batches(group: tf.Tensor) -> tf.data.Dataset:
        photos = tf.data.Dataset.from_tensor_slices(group).map(
            lambda image: read_photo(directory, image, image_size),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return photos.batch(batch_size)

    groups = tf.data.Dataset.from_tensor_slices(list(images)).batch(group_size or len(images))
    return groups.flat_map(group_batches).prefetch(2)


def load_photos(
    directory: str | os.PathLike,
    images: Sequence[str],
    image_size: int,
    progress: Callable[..., tqdm.tqdm] | None = None,
) -> np.ndarray:
    """Decodes all photos into memory, rounded to whole pixel values.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side of the decoded photos in pixels.
        progress: makes a bar, called as `biam_tf.progress.progress`; None shows nothing.

    Returns:
        uint8 (N, image_size, image_size, 3).

    Raises:
        UserError: photos that cannot be read, all of them named.
    """
    photos = np.empty((len(images), image_size, image_size, 3), np.uint8)
    bar = progress and progress(total=len(images), label="Reading photos", unit="photo")
    begin = 0
    try:
        batches = photo_batches(directory, images, image_size, 64)
        for batch in batches.map(lambda batch: tf.cast(tf.round(batch), tf.uint8)):
            end = begin + len(batch)
            photos[begin:end] = batch.numpy()
            if bar:
                bar.update(end - begin)
            begin = end
    except tf.errors.OpError as error:
        unreadable = unreadable_photos(directory, images, image_size)
        raise unreadable or error from error
    finally:
        if bar:
            bar.close()
    return photos


def unreadable_photos(
    directory: str | os.PathLike, images: Sequence[str], image_size: int
) -> UserError | None:
    """Decodes all `images` and returns one error that names the unreadable ones, if any."""
    positions = tf.data.Dataset.range(len(images))
    paths = tf.data.Dataset.from_tensor_slices(list(images))

    def position_if_readable(position: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A pixel goes out with the position: a photo that nothing depends on is not read at all.
        return position, read_photo(directory, image, image_size)[0, 0, 0]

    readable = tf.data.Dataset.zip(positions, paths).map(
        position_if_readable, num_parallel_calls=tf.data.AUTOTUNE
    )
    found = {int(position) for position, _ in readable.ignore_errors(log_warning=False)}
    broken = [image for position, image in enumerate(images) if position not in found]
    if not broken:
        return None
    lines = [f"  {image}: {_reason(directory, image, image_size)}" for image in broken[:MOST_NAMED]]
    if len(broken) > MOST_NAMED:
        lines.append(f"  and {len(broken) - MOST_NAMED} more")
    return UserError(
        f"{directory}: {len(broken)} of {len(images)} photos cannot be read; replace them or "
        "remove their rows from the data set:\n" + "\n".join(lines)
    )


def _reason(directory: str | os.PathLike, image: str, image_size: int) -> str:
    path = pathlib.Path(directory, image)
    if not path.is_file():
        return "no such file"
    if path.stat().st_size == 0:
        return "the file is empty"
    try:
        read_photo(directory, tf.constant(image), image_size)
    except tf.errors.OpError as error:
        # TensorFlow puts the operation's name before the reason, and again after it.
        return re.sub(r"^\{\{.*?\}\}\s*|\s*\[Op:.*$", "", error.message, flags=re.DOTALL)
    return "failed while it was being read"
