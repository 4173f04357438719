"""From the bytes of a photo to the pixels a backbone takes, alike in training and serving."""

import tensorflow as tf


def decode_photo(contents: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decodes a photo and resizes it straight to a square, in TensorFlow operations alone.

    The whole photo is kept and its proportions are not, as in the authors' released code; the
    resizing is bilinear, with antialiasing where it shrinks.

    What becomes of less usual files: grayscale is repeated over the three channels, CMYK JPEGs
    are converted, 16 bits become 8, transparency is dropped without blending (the color that
    is stored under it shows), an animated GIF gives its first frame. The orientation note of a
    camera (EXIF) is not followed. BMPs with a palette are not understood by TensorFlow, which
    takes the indices for shades of gray.

    Args:
        contents: scalar string, an encoded JPEG, PNG, GIF or BMP (and, with a recent
            TensorFlow, WebP).
        image_size: side S of the result.

    Returns:
        float32 `(S, S, 3)`, RGB from 0 to 255, with a static shape: fit for `tf.data` and for
        a serving signature.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if the bytes are no whole photo.
    """
    photo = tf.io.decode_image(contents, channels=3, expand_animations=False)
    return resize_photo(photo, image_size)


def resize_photo(photo: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resizes a decoded photo as `decode_photo` does.

    Args:
        photo: `(height, width, 3)`, values 0 to 255.
        image_size: side S of the result.

    Returns:
        float32 `(S, S, 3)`.
    """
    photo.set_shape((None, None, 3))  # decode_image doesn't tell the rank
    photo = tf.image.resize(photo, (image_size, image_size), method="bilinear", antialias=True)
    return tf.clip_by_value(photo, 0.0, 255.0)  # weights that sum to 1 + 1e-7 overshoot
