"""Reads and decodes photos in parallel, and finds those that cannot be decoded."""

import functools
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
    Orientation,
    decode_photo,
    decode_whole_photo,
    decoding_problem,
)
from training.data.input.broken_photos import BrokenPhoto, check_share

# Errors caused by the photo. Others, such as a server that does not respond, are raised unchanged.
PHOTO_ERRORS = (
    tf.errors.NotFoundError,
    tf.errors.InvalidArgumentError,
    tf.errors.PermissionDeniedError,
    tf.errors.DataLossError,
)


def read_photo(
    directory: str | os.PathLike,
    image: tf.Tensor,
    image_size: int,
    orientation: Orientation = "follow",
) -> tf.Tensor:
    """Returns the photo `image` of `directory`, float32 (image_size, image_size, 3) in 0..255.

    For use in a graph. A missing or broken photo is an error there, see `find_broken`.
    """
    return _reader(image_size, orientation)(
        tf.strings.join([os.fspath(directory), image], separator="/")
    )


@functools.cache
def _reader(image_size: int, orientation: Orientation) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function of a path to its photo.

    It is traced once: that takes as long as decoding some hundred photos, and a run has several
    pipelines.
    """

    def read(path: tf.Tensor) -> tf.Tensor:
        contents = tf.io.read_file(path)
        return decode_photo(contents, image_size, orientation=orientation, in_python=True)

    function = tf.function(read, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    with tf.init_scope():  # part of no pipeline
        return function.get_concrete_function()


def read_whole_photo(
    directory: str | os.PathLike, image: tf.Tensor, orientation: Orientation = "follow"
) -> tf.Tensor:
    """Returns the photo `image` at its original size, uint8 (height, width, 3), in a graph."""
    path = tf.strings.join([os.fspath(directory), image], separator="/")
    return decode_whole_photo(tf.io.read_file(path), orientation=orientation, in_python=True)


def photo_batches(
    directory: str | os.PathLike,
    images: Sequence[str],
    image_size: int,
    batch_size: int,
    group_size: int | None = None,
    orientation: Orientation = "follow",
) -> tf.data.Dataset:
    """Returns the readable photos, in order, with their positions in `images`.

    Batches are `(positions (B,) int64, photos (B, image_size, image_size, 3) float32)`, B being
    at most `batch_size`. Unreadable photos are left out; their positions are missing from the
    batches, and `why_unreadable` returns the reason.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side of the decoded photos in pixels.
        batch_size: photos per batch.
        group_size: images per group; no batch spans two groups. None makes all images one group.
        orientation: whether photos are turned upright as EXIF data say.
    """

    def group_batches(positions: tf.Tensor, group: tf.Tensor) -> tf.data.Dataset:
        photos = tf.data.Dataset.from_tensor_slices((positions, group)).map(
            lambda position, image: (
                position,
                read_photo(directory, image, image_size, orientation),
            ),
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
    orientation: Orientation = "follow",
    dtype: type = np.float32,
) -> np.ndarray:
    """Decodes all photos into memory.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side of the decoded photos in pixels.
        progress: creates the progress bar, as `biam_tf.progress.progress`; None shows none.
        orientation: whether photos are turned upright as EXIF data say.
        dtype: float32, or uint8, which rounds and needs a quarter of the memory.

    Returns:
        (N, image_size, image_size, 3), 0 to 255.

    Raises:
        UserError: some photos cannot be read; the message lists them.
    """
    photos: np.ndarray = np.empty((len(images), image_size, image_size, 3), dtype)
    loaded = np.zeros(len(images), bool)
    bar = progress and progress(total=len(images), label="Reading photos", unit="photo")
    try:
        batches = photo_batches(directory, images, image_size, 64, orientation=orientation)
        if dtype == np.uint8:
            batches = batches.map(lambda places, batch: (places, tf.cast(tf.round(batch), dtype)))
        for positions, batch in batches.as_numpy_iterator():
            photos[positions] = batch
            loaded[positions] = True
            if bar:
                bar.update(len(positions))
    finally:
        if bar:
            bar.close()
    broken = reasons(directory, [images[i] for i in np.flatnonzero(~loaded).tolist()])
    check_share(broken, len(images), 0.0, directory)
    return photos


def find_broken(
    directory: str | os.PathLike,
    images: Sequence[str],
    image_size: int,
    update: Callable[[int], object] = lambda count: None,
) -> tuple[BrokenPhoto, ...]:
    """Decodes all `images` and returns the unreadable ones, in order.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side of the decoded photos in pixels.
        update: called with the number of readable photos since the last call.
    """
    numbered = tf.data.Dataset.from_tensor_slices(
        (np.arange(len(images), dtype=np.int64), list(images))
    )

    def position_if_readable(position: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Returns a pixel as well: tf.data does not read a photo that nothing depends on.
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
    return reasons(directory, [images[i] for i in np.flatnonzero(~found).tolist()])


def reasons(directory: str | os.PathLike, images: Sequence[str]) -> tuple[BrokenPhoto, ...]:
    """Returns `images`, none of which could be read, each with its reason.

    Raises:
        tf.errors.OpError: the photo was not the cause, or it can be read now.
    """
    return tuple(BrokenPhoto(image, _reason(directory, image)) for image in images)


def why_unreadable(directory: str | os.PathLike, image: str) -> str | None:
    """Returns why a photo cannot be read, or None if it can.

    Raises:
        tf.errors.OpError: the photo could not be accessed, for another reason.
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
        # TensorFlow puts the name of the operation before and after the reason.
        reason = re.sub(r"^\{\{.*?\}\}\s*|\s*\[Op:.*$", "", error.message, flags=re.DOTALL)
        return " ".join(reason.split())
    return decoding_problem(contents)


def _reason(directory: str | os.PathLike, image: str) -> str:
    reason = why_unreadable(directory, image)
    if reason is None:
        raise tf.errors.UnavailableError(
            None,
            None,
            f"{os.fspath(directory)}/{image}: reading failed before, but works now; the disk or "
            "the network is unreliable: run the command again",
        )
    return reason
