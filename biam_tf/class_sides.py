"""The class side of scores that are products: class embeddings to vectors, without TensorFlow.

A head that classifies regions scores region r for class c by the product of two vectors, v_r · u_c.
The photo's side, v_r, needs the network. The class side, u_c, is one of the functions below, which
NumPy computes: photos whose v_r were stored once are scored against any classes without the model.
"""

import dataclasses
import os
import pathlib
import zipfile
from typing import Any, ClassVar, Protocol

import numpy as np

from biam_tf.arrays import open_npz
from biam_tf.errors import UserError
from biam_tf.files import replacing

# A row is a learned class if their distance is at most this share of the class's length. Rounding
# an embedding to 16 bits moves it by up to 0.002; of GloVe's 40,000 most frequent words (6B, 100
# dimensions, scaled to length 1) the nearest two are 0.098 apart.
TOLERANCE = 5e-3

_LEAST_LENGTH = 1e-7  # Keras's epsilon, by which it divides a vector of length 0
_ROWS_IN_AN_ERROR = 20


class ClassSide(Protocol):
    """A function from class embeddings to the vectors that regions are multiplied with.

    Attributes:
        kind: its name in a file.
    """

    kind: ClassVar[str]

    @property
    def embedding_size(self) -> int:
        """Length d_a of a class embedding."""

    @property
    def vector_size(self) -> int:
        """Length d of a vector."""

    def vectors(self, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the vectors (C, d), float32, of class embeddings (C, d_a)."""


@dataclasses.dataclass(frozen=True)
class LinearClasses:
    """u_c = a_c, or [a_c, 1] where each region has a bias, the last number of its vector.

    Attributes:
        size: d_a.
        has_bias: whether there is a bias.
    """

    size: int
    has_bias: bool = False

    kind: ClassVar[str] = "linear"

    @property
    def embedding_size(self) -> int:
        """Length of a class embedding."""
        return int(self.size)

    @property
    def vector_size(self) -> int:
        """Length of a vector."""
        return int(self.size) + bool(self.has_bias)

    def vectors(self, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the vectors (C, d), float32."""
        rows = np.asarray(class_embeddings, np.float32)
        if not self.has_bias:
            return rows
        return np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class DirectionClasses:
    """The directions of classes and their similarities to anchors.

    Those of `biam_tf.layers.CosineRegionClassifier`, whose docstring has the equations.

    Attributes:
        scale: the score of a cosine of 1.
        center: (d_a,), subtracted from all embeddings.
        anchors: (S, d_a); S = 0: no similarities.
        anchor_weight: length of the similarities relative to that of the direction.
        anchor_temperature: temperature of the softmax over the anchors.
        has_bias: whether each region has a bias, the last number of its vector.
    """

    scale: float
    center: np.ndarray
    anchors: np.ndarray
    anchor_weight: float = 0.0
    anchor_temperature: float = 1.0
    has_bias: bool = False

    kind: ClassVar[str] = "directions"

    @property
    def embedding_size(self) -> int:
        """Length of a class embedding."""
        return len(self.center)

    @property
    def vector_size(self) -> int:
        """Length of a vector: d_a + S, and 1 for a bias."""
        return len(self.center) + len(self.anchors) + bool(self.has_bias)

    def vectors(self, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the vectors (C, d_a + S), float32, and 1 for a bias at their end."""
        directions = _unit_rows(np.asarray(class_embeddings, np.float32) - self.center)
        if len(self.anchors):
            logits = directions @ _unit_rows(self.anchors - self.center).T
            logits /= np.float32(self.anchor_temperature)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            similarities = self.anchor_weight * _unit_rows(weights)
            directions = np.concatenate([directions, similarities], axis=1)
            directions /= np.sqrt(1.0 + self.anchor_weight**2)
        vectors = (self.scale * directions).astype(np.float32)
        if not self.has_bias:
            return vectors
        return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedClasses:
    """u_c has a one at the learned class that c is; a photo's vector holds the learned scores.

    Attributes:
        embeddings: (S, d_a), by which the learned classes are recognized.
    """

    embeddings: np.ndarray

    kind: ClassVar[str] = "learned"

    @property
    def embedding_size(self) -> int:
        """Length of a class embedding."""
        return self.embeddings.shape[1]

    @property
    def vector_size(self) -> int:
        """Length of a vector: S."""
        return len(self.embeddings)

    def vectors(self, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the vectors (C, S), float32.

        Raises:
            UserError: a row is none of the learned classes.
        """
        given = np.asarray(class_embeddings, np.float32)
        learned = np.asarray(self.embeddings, np.float32)
        squares = (learned**2).sum(axis=1)
        rows = (squares - 2 * given @ learned.T).argmin(axis=1)
        distances = ((given - learned[rows]) ** 2).sum(axis=1)
        unknown = np.flatnonzero(~(distances <= TOLERANCE**2 * squares[rows]))
        if len(unknown):
            listed = ", ".join(map(str, unknown[:_ROWS_IN_AN_ERROR]))
            more = ", …" * (len(unknown) > _ROWS_IN_AN_ERROR)
            raise UserError(
                f"class_embeddings: the model scores the {len(learned)} classes that it was "
                f"trained on and no others; none of them is in row {listed}{more}"
            )
        return np.eye(len(learned), dtype=np.float32)[rows]


_KINDS = {each.kind: each for each in (LinearClasses, DirectionClasses, LearnedClasses)}


def save_class_side(side: ClassSide, path: str | os.PathLike) -> None:
    """Writes a class side into an `.npz` file, which `load_class_side` reads."""
    fields = {
        field.name: getattr(side, field.name)
        for field in dataclasses.fields(side)  # type: ignore[arg-type] # all kinds are dataclasses
    }
    with replacing(path) as partial:
        np.savez(partial, kind=side.kind, **fields)


def load_class_side(path: str | os.PathLike) -> ClassSide:
    """Reads a file of `save_class_side`.

    Raises:
        UserError: it is missing or damaged, or of a kind that this version does not know.
    """
    path = pathlib.Path(path)
    try:
        with open_npz(path) as arrays:
            fields = {name: arrays[name] for name in arrays.files}
        kind = _KINDS[str(fields.pop("kind"))]
        values: dict[str, Any] = {n: v if v.ndim else v.item() for n, v in fields.items()}
        return kind(**values)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read as the class side of a model ({error})") from error


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _LEAST_LENGTH)
