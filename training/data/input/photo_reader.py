"""Reads and decodes photos in parallel, and says which cannot be decoded and why."""

import os
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tqdm

from biam_tf.photos import (
    IS_EMPTY,
    IS_FOLDER,
    NO_FILE,
    decode_photo,
    decode_whole_photo,
    decoding_problem,
)
from training.data.input.broken_photos import BrokenPhoto, check_share

# What a photo itself is to blame for. Anything else, such as a server that does not answer, says
# nothing about the photo and is raised as it is.
PHOTO_ERRORS = (
    tf.errors.NotFoundError,
    tf.errors.InvalidArgumentError,
    tf.errors.PermissionDeniedError,
    tf.errors.DataLossError,
)


def read_photo(directory: str | os.PathLike, image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Returns the photo `image` of `directory`, float32 (image_size, image_size, 3) in 0..255.

    In a graph; a photo that is missing or broken fails there, see `find_broken`.
    """
    path = tf.strings.join([os.fspath(directory), image], separator="/")
    return decode_photo(tf.io.read_file(path), image_size)


def read_whole_photo(directory: str | os.PathLike, image: tf.Tensor) -> tf.Tensor:
    """Returns the photo `image` as it is, uint8 (height, width, 3); otherwise as `read_photo`."""
    path = tf.strings.join([os.fspath(directory), image], separator="/")
    return decode_whole_photo(tf.io.read_file(path))


def photo_batches(
    directory: str | os.PathLike,
    images: Sequence[str],
    image_size: int,
    batch_size: int,
    group_size: int | None = None,
) -> tf.data.Dataset:
    """Returns the photos that can be read, in order, with their positions in `images`.

    Batches are `(positions (B,) int64, photos (B, image_size, image_size, 3) float32)`, B being
    at most `batch_size`. Whatever fails is not in any batch: look for the gaps in the positions,
    and ask `why_unreadable`.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side of the decoded photos in pixels.
        batch_size: photos at a time.
        group_size: no batch reaches from one group of so many images into the next; None makes
            all images one group.
    """

    def group_batches(positions: tf.Tensor, group: tf.Tensor) -> tf.data.Dataset:
        photos = tf.data.Dataset.from_tensor_slices((positions, group)).map(
            lambda position, image: (position, read_photo(directory, image, image_size)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return photos.ignore_errors(log_warning=False).batch(batch_size)

    numbered = tf.data.Dataset.from_tensor_slices(
        (np.arange(len(images), dtype=np.int64), list(images))
    )
    groups = numbered.batch(group_size or len(images))
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
    loaded = np.zeros(len(images), bool)
    bar = progress and progress(total=len(images), label="Reading photos", unit="photo")
    try:
        batches = photo_batches(directory, images, image_size, 64).map(
            lambda positions, batch: (positions, tf.cast(tf.round(batch), tf.uint8))
        )
        for positions, batch in batches.as_numpy_iterator():
            photos[positions] = batch
            loaded[positions] = True
            if bar:
                bar.update(len(positions))
    finally:
        if bar:
            bar.close()
    broken = reasons(directory, [images[i] for i in np.flatnonzero(~loaded)])
    check_share(broken, len(images), 0.0, directory)
    return photos


def find_broken(
    directory: str | os.PathLike,
    images: Sequence[str],
    image_size: int,
    update: Callable[[int], object] = lambda count: None,
) -> tuple[BrokenPhoto, ...]:
    """Decodes all `images` and returns those that cannot be, in their order.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side in pixels.
        update: is told how many more photos were found to be good.
    """
    numbered = tf.data.Dataset.from_tensor_slices(
        (np.arange(len(images), dtype=np.int64), list(images))
    )

    def position_if_readable(position: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A pixel goes out with the position: a photo that nothing depends on is not read at all.
        return position, read_photo(directory, image, image_size)[0, 0, 0]

    readable = (
        numbered.map(position_if_readable, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .ignore_errors(log_warning=False)
        .batch(64)
    )
    found = np.zeros(len(images), bool)
    for positions, _ in readable.as_numpy_iterator():
        found[positions] = True
        update(len(positions))
    return reasons(directory, [images[i] for i in np.flatnonzero(~found)])


def reasons(directory: str | os.PathLike, images: Sequence[str]) -> tuple[BrokenPhoto, ...]:
    """Returns each of `images`, none of which could be read, with the reason why.

    Raises:
        tf.errors.OpError: it was not the photo's fault; or it can be read now.
    """
    return tuple(BrokenPhoto(image, _reason(directory, image)) for image in images)


def why_unreadable(directory: str | os.PathLike, image: str) -> str | None:
    """Returns what is wrong with a photo, or None where it can be read.

    Raises:
        tf.errors.OpError: the photo could not be looked at, which is not its fault.
    """
    path = f"{os.fspath(directory)}/{image}"
    try:
        if tf.io.gfile.isdir(path):
            return IS_FOLDER
        if tf.io.gfile.stat(path).length == 0:
            return IS_EMPTY
        contents = tf.io.read_file(path).numpy()
    except tf.errors.NotFoundError:
        return NO_FILE
    except PHOTO_ERRORS as error:
        # TensorFlow puts the operation's name before the reason, and again after it.
        reason = re.sub(r"^\{\{.*?\}\}\s*|\s*\[Op:.*$", "", error.message, flags=re.DOTALL)
        return " ".join(reason.split())
    return decoding_problem(contents)


def _reason(directory: str | os.PathLike, image: str) -> str:
    reason = why_unreadable(directory, image)
    if reason is None:
        raise tf.errors.UnavailableError(
            None,
            None,
            f"{os.fspath(directory)}/{image}: failed while it was being read, and can be read now; "
            "the disk or the network is not reliable: repeat the command",
        )
    return reason
