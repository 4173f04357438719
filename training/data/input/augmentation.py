"""Photos varied from epoch to epoch: mirrored, and cropped at random and brought back to size.

What happens to a photo is a function of the run's seed, the epoch and the photo's place in the
epoch, and of nothing else: no thread and no interruption changes a batch.
"""

import math

import numpy as np
import tensorflow as tf

from training.config.schema import AugmentationConfig

ASPECT_RATIOS = (3 / 4, 4 / 3)  # of a crop, between which its logarithm is drawn evenly
# Keeps the draws apart from others that start from the same seed and epoch.
STREAM = 2


def picture_side(image_size: int, augmentation: AugmentationConfig) -> int:
    """Returns the side in pixels of the pictures that are kept in memory to be varied.

    The smallest square crop of one still has `image_size` pixels, so that no crop is blurred by
    being enlarged.
    """
    if augmentation.crop_scale is None:
        return image_size
    return math.ceil(image_size / math.sqrt(augmentation.crop_scale[0]))


def epoch_seed(seed: int, epoch: int) -> np.ndarray:
    """Returns the seed (2,) int32 that all draws of one epoch are made from."""
    return np.random.SeedSequence([seed, epoch, STREAM]).generate_state(2).view(np.int32)


def augment(
    picture: tf.Tensor, image_size: int, augmentation: AugmentationConfig, seed: tf.Tensor
) -> tf.Tensor:
    """Returns one photo, varied.

    Args:
        picture: (height, width, 3), values 0 to 255; of any size where it is cropped, else
            (S, S, 3).
        image_size: S, side of the result.
        augmentation: what may happen to it.
        seed: (2,) int32, of this photo's place in the epoch.

    Returns:
        float32 (S, S, 3), values 0 to 255.
    """
    draws = tf.random.stateless_uniform((5,), seed)
    photo = tf.cast(picture, tf.float32)
    if augmentation.crop_scale is not None:
        begin, size = _crop(augmentation.crop_scale, draws[:4])
        sides = tf.cast(tf.shape(photo)[:2], tf.float32)
        scale = image_size / (size * sides)
        # One step from the crop to its new size, antialiased where it shrinks.
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
    """Returns where a crop begins (y, x) and its size (height, width), as shares of the side.

    Its area is uniform in `crop_scale`, its place uniform among those where it fits.
    """
    least, most = crop_scale
    area = least + draws[0] * (most - least)
    # A crop of area a fits into the picture where its aspect ratio is in [a, 1 / a].
    narrowest = tf.math.log(tf.maximum(ASPECT_RATIOS[0], area))
    widest = tf.math.log(tf.minimum(ASPECT_RATIOS[1], 1 / area))
    ratio = tf.exp(narrowest + draws[1] * (widest - narrowest))
    size = tf.minimum(1.0, tf.stack([tf.sqrt(area / ratio), tf.sqrt(area * ratio)]))
    return draws[2:4] * (1 - size), size
