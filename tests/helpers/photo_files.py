"""Encoded pictures for tests, made by Pillow."""

import io

import numpy as np
from PIL import Image


def picture(size=(60, 40), seed=0) -> Image.Image:
    """Noise of `size` (width, height)."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(form, size=(60, 40), seed=0, **options) -> bytes:
    """A picture of noise in a file format of Pillow."""
    file = io.BytesIO()
    picture(size, seed).save(file, form, **options)
    return file.getvalue()


def animation(frames=3, **options) -> bytes:
    """An animated GIF; every frame is other noise."""
    first, *others = (picture(seed=seed).quantize() for seed in range(frames))
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, **options)
    return file.getvalue()
