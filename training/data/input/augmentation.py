"""Data augmentation of photos: random horizontal flips and random resized crops.

The augmentation of a photo depends only on the seed of the run, the epoch and the position of the
photo in the epoch; threads and interruptions do not change a batch.
"""

import math

import numpy as np
import tensorflow as tf

from training.config.schema import AugmentationConfig

ASPECT_RATIOS = (3 / 4, 4 / 3)  # of a crop; its logarithm is drawn uniformly
# Separates these draws from others with the same seed and epoch.
STREAM = 2


def picture_side(image_size: int, augmentation: AugmentationConfig) -> int:
    """Returns the side in pixels of the pictures that are cached in memory for augmentation.

    Even the smallest square crop then has `image_size` pixels and need not be enlarged.
    """
    if augmentation.crop_scale is None:
        return image_size
    return math.ceil(image_size / math.sqrt(augmentation.crop_scale[0]))


def epoch_seed(seed: int, epoch: int) -> np.ndarray:
    """Returns the seed of all draws of an epoch, int32 (2,)."""
    return np.random.SeedSequence([seed, epoch, STREAM]).generate_state(2).view(np.int32)


def augment(
    picture: tf.Tensor, image_size: int, augmentation: AugmentationConfig, seed: tf.Tensor
) -> tf.Tensor:
    """Augments one photo.

    Args:
        picture: (height, width, 3), values 0 to 255; any size if it is cropped, else (S, S, 3).
        image_size: side S of the result in pixels.
        augmentation: the augmentation settings.
        seed: (2,) int32, specific to the photo's position in the epoch.

    Returns:
        float32 (S, S, 3), values 0 to 255.
    """
    draws = tf.random.stateless_uniform((5,), seed)
    photo = tf.cast(picture, tf.float32)
    if augmentation.crop_scale is not None:
        begin, size = _crop(augmentation.crop_scale, draws[:4])
        sides = tf.cast(tf.shape(photo)[:2], tf.float32)
        scale = image_size / (size * sides)
        # Crops and resizes in one step, antialiased when shrinking.
        photo = tf.raw_ops.ScaleAndTranslate(
            images=photo[tf.newaxis],
            size=(image_size, image_size),
            scale=scale,
            translation=-begin * sides * scale,
            kernel_type="triangle",
            antialias=True,
        )[0]
        photo = tf.clip_by_value(photo, 0.0, 255.0)
    if augmentation.flip:
        photo = tf.cond(draws[4] < 0.5, lambda: tf.reverse(photo, [1]), lambda: photo)
    return tf.ensure_shape(photo, (image_size, image_size, 3))


def _crop(crop_scale: tuple[float, float], draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the begin (y, x) and the size (height, width) of a crop, relative to the picture.

    The area is uniform in `crop_scale`, the position uniform where the crop fits.
    """
    least, most = crop_scale
    area = least + draws[0] * (most - least)
    # A crop of area a fits into the picture if its aspect ratio is in [a, 1 / a].
    narrowest = tf.math.log(tf.maximum(ASPECT_RATIOS[0], area))
    widest = tf.math.log(tf.minimum(ASPECT_RATIOS[1], 1 / area))
    ratio = tf.exp(narrowest + draws[1] * (widest - narrowest))
    size = tf.minimum(1.0, tf.stack([tf.sqrt(area / ratio), tf.sqrt(area * ratio)]))
    return draws[2:4] * (1 - size), size
