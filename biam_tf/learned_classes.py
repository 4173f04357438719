"""Class embeddings from example photos, in the space of a model's own class embeddings.

A head that classifies regions scores region r for class c by the product v_r · u_c
(`biam_tf.class_sides`). With the mean p of a photo's v_r, the examples' mean m, and the mean μ and
covariance C of the p of other photos, the direction that tells the examples from the others is that
of linear discriminant analysis (Fisher, "The use of multiple measurements in taxonomic problems",
1936), with a ridge::

    w = (C + λ tr(C)/d I)⁻¹ (m - μ)

The mean m - μ alone orders photos nearly as well. But its scores vary several times as much as
those of named classes, so that the class would be among the best of most photos.
"""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from biam_tf.class_sides import ClassSide, DirectionClasses, LearnedClasses
from biam_tf.errors import UserError

Photo = TypeVar("Photo")

# Chosen on validation photos of Corel5k, see docs/learned_classes.md.
RIDGE = 1.0
# Photos that a name counts as, beside the examples.
NAME_COUNTS_AS = 2.0
FEWEST_OTHERS, OTHERS_AT_MOST = 20, 200


@dataclasses.dataclass(frozen=True, eq=False)
class OtherPhotos:
    """What photos have in common: the mean and the covariance of their vectors.

    Attributes:
        mean: (d,).
        covariance: (d, d).
    """

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> "OtherPhotos":
        """Returns those of photos (N, d).

        Raises:
            UserError: there are fewer than `FEWEST_OTHERS`.
        """
        if len(vectors) < FEWEST_OTHERS:
            raise UserError(
                f"{len(vectors)} other photos; at least {FEWEST_OTHERS} ordinary photos are "
                "needed, to tell what the examples have in common; 200 are better"
            )
        vectors = np.asarray(vectors, np.float64)
        return cls(vectors.mean(axis=0), np.cov(vectors.T).reshape(2 * vectors.shape[1:]))


def require_learnable(side: ClassSide, name: str) -> None:
    """Raises a `UserError` about the model `name` if it scores no classes but its own."""
    if isinstance(side, LearnedClasses):
        raise UserError(
            f"{name}: scores only the classes that it was trained on; a class can be learned from "
            "photos by a model that scores any class by its embedding"
        )


def photo_vectors(region_vectors: np.ndarray, side: ClassSide) -> np.ndarray:
    """Returns the mean vectors (N, d_a) of photos, of those numbers that multiply an embedding.

    Args:
        region_vectors: (N, h, w, d).
        side: of the model's classes.
    """
    return region_vectors[..., : side.embedding_size].mean(axis=(1, 2), dtype=np.float64)


def learned_embedding(
    examples: np.ndarray,
    others: OtherPhotos,
    side: ClassSide,
    name_embedding: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the embedding (d_a,), float32, of length 1, of a class that photos show.

    Args:
        examples: (N, d_a), `photo_vectors` of photos that show it.
        others: those of photos that mostly do not.
        side: of the model's classes.
        name_embedding: (d_a,), of a name for something like it, which then counts as much as two
            examples; None: the examples alone.

    Raises:
        UserError: the examples look like all other photos.
    """
    size = len(others.mean)
    ridge = RIDGE * np.trace(others.covariance) / size
    difference = np.mean(examples, axis=0, dtype=np.float64) - others.mean
    direction = np.linalg.solve(others.covariance + ridge * np.eye(size), difference)
    length = np.linalg.norm(direction)
    if not length > 0:
        raise UserError("the examples do not differ from the other photos")
    direction /= length
    center = np.zeros(size)
    if isinstance(side, DirectionClasses):
        center = np.asarray(side.center, np.float64)
    if name_embedding is not None:
        named = np.asarray(name_embedding, np.float64) - center
        share = NAME_COUNTS_AS / (NAME_COUNTS_AS + len(examples))
        direction = (1 - share) * direction + share * named / np.linalg.norm(named)
        direction /= np.linalg.norm(direction)
    return _unit_point(center, direction).astype(np.float32)


def _unit_point(center: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Returns the vector of length 1 in a direction from a center within the unit sphere.

    The model subtracts the center again, and takes the direction.
    """
    along = center @ direction
    # |center + t direction| = 1
    t = -along + np.sqrt(along**2 + 1 - center @ center)
    return center + t * direction


def spread_over(photos: Sequence[Photo], count: int) -> list[Photo]:
    """Returns up to `count` of the photos, evenly spread over their order."""
    if len(photos) <= count:
        return list(photos)
    return [photos[int(i)] for i in np.linspace(0, len(photos) - 1, count)]
