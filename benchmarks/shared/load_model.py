"""A small model for load on a server: its scores are known, and versions differ in length."""

import io
import pathlib
import shutil
import threading

import numpy as np
from PIL import Image

# Lengths of a class embedding in versions with even and with odd numbers.
LENGTHS = (6, 4)


def length_of(version: int) -> int:
    """Returns the length of a class embedding that a version takes."""
    return LENGTHS[version % 2]


def plain_photo(brightness: int, width: int = 64, height: int = 48) -> bytes:
    """Returns a PNG whose pixels all have one brightness, 0 to 255."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (brightness,) * 3).save(file, "PNG")
    return file.getvalue()


def known_scores(brightness: np.ndarray, class_embeddings: np.ndarray) -> np.ndarray:
    """Returns what the model must score, computed by NumPy.

    Args:
        brightness: brightness of each photo, 0 to 255, (photos,).
        class_embeddings: (classes, length).

    Returns:
        Scores (photos, classes), float64.
    """
    length = class_embeddings.shape[1]
    weights = np.arange(1, 1 + length) / length
    return np.outer(brightness / 255, class_embeddings.astype(np.float64) @ weights) + length


def write_model(path: pathlib.Path, length: int) -> None:
    """Writes a SavedModel with the signatures `serving_default` and `explain`.

    Args:
        path: folder to write.
        length: length of a class embedding.
    """
    import tensorflow as tf

    weights = tf.range(1, 1 + length, dtype=tf.float32) / length

    def brightness(photo):
        # As the graph of an export does, decode one photo at a time; a broken one is refused.
        pixels = tf.io.decode_image(photo, channels=3, expand_animations=False)
        return tf.reduce_mean(tf.cast(pixels, tf.float32)) / 255

    def scores(images, class_embeddings):
        light = tf.map_fn(brightness, images, fn_output_signature=tf.float32)
        sums = tf.linalg.matvec(class_embeddings, weights)
        return {"scores": light[:, None] * sums[None] + length}

    def explain(images, class_embeddings):
        found = scores(images, class_embeddings)["scores"]
        return {
            "scores": found,
            "response_maps": tf.tile(found[:, None, None], [1, 12, 12, 1]),
        }

    inputs = (
        tf.TensorSpec((None,), tf.string, name="images"),
        tf.TensorSpec((None, length), tf.float32, name="class_embeddings"),
    )
    signatures = {
        name: tf.function(function, autograph=False).get_concrete_function(*inputs)
        for name, function in (("serving_default", scores), ("explain", explain))
    }
    tf.saved_model.save(tf.Module(), path, signatures=signatures)


class FlippingVersions:
    """Adds a version to a folder of a model again and again; the lengths change in turns.

    A context manager. Version 1 is there when it is entered; the folder holds the newest two.

    Args:
        folder: an empty folder, in which `models` becomes the folder of the model.
        seconds: between a version and the next.
    """

    def __init__(self, folder: pathlib.Path, seconds: float):
        self.model_dir = folder / "models"
        self.model_dir.mkdir()
        self.newest = 1
        self._made = folder / "made"
        for version in (1, 2):
            write_model(self._made / str(version), length_of(version))
        self._add(1)
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._flip, name="versions", daemon=True)

    def __enter__(self) -> "FlippingVersions":
        """Starts to add versions."""
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        """Adds no more."""
        self._stopped.set()
        self._thread.join()

    def _flip(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._add(self.newest + 1)
            self.newest += 1
            old = self.model_dir / str(self.newest - 2)
            if old.exists():
                shutil.rmtree(old.rename(self.model_dir / ".old"))

    def _add(self, version: int) -> None:
        aside = self.model_dir / ".aside"
        shutil.copytree(self._made / str(2 - version % 2), aside)
        aside.rename(self.model_dir / str(version))
