"""Random photos and class embeddings."""

import io

import numpy as np
from PIL import Image


def class_matrix(count: int, embedding_size: int) -> np.ndarray:
    """Returns random class embeddings (count, embedding_size), float32, of length 1."""
    rows = np.random.default_rng(count).normal(size=(count, embedding_size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def noise_photo(width: int, height: int, seed: int) -> bytes:
    """Returns a JPEG of low-frequency noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(file, "JPEG")
    return file.getvalue()
