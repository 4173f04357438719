"""Limits of a request, checked from the shapes of its inputs before anything runs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving.rpc.status import invalid_argument

# Inputs whose first axis is the photos, and those whose first axis is the classes.
PHOTO_INPUTS = ("images", "region_features", "scene_feature")
CLASS_INPUTS = ("class_embeddings", "class_names")

STRING_BYTES = 24  # memory of a string in TensorFlow besides its characters
PHOTOS_PER_STEP = 32

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may ask for; more is refused with INVALID_ARGUMENT.

    Attributes:
        max_photos: largest number of photos.
        max_classes: largest number of classes.
        max_answer_bytes: largest size of the outputs together.
        max_work_bytes: largest memory that scoring may need, estimated by `scoring_bytes`.
    """

    max_photos: int = 1024
    max_classes: int = 1_000_000
    max_answer_bytes: int = 64 * 2**20
    max_work_bytes: int = 256 * 2**20

    def require(
        self,
        shapes: Shapes,
        outputs: Mapping[str, meta_graph_pb2.TensorInfo],
        regions: tuple[int, int],
    ) -> int:
        """Checks a request; returns how many of its photos are scored at a time.

        Args:
            shapes: shape of each input.
            outputs: the signature's outputs.
            regions: number of regions and of channels of the model, 0 if they are unknown.

        Raises:
            RequestError: INVALID_ARGUMENT, if the request is beyond a limit.
        """
        photos, classes = count(shapes, PHOTO_INPUTS), count(shapes, CLASS_INPUTS)
        if "images" in shapes and (photos or 0) > self.max_photos:
            raise invalid_argument(
                f"images: {photos} photos; this server takes up to {self.max_photos} per request "
                "(--max-photos)"
            )
        if (classes or 0) > self.max_classes:
            raise invalid_argument(
                f"{classes} classes; this server takes up to {self.max_classes} per request "
                "(--max-classes)"
            )
        answer = sum(_output_bytes(info, photos, classes) for info in outputs.values())
        if answer > self.max_answer_bytes:
            raise invalid_argument(
                f"the answer to {photos or 0} photos and {classes or 0} classes would have "
                f"{_mb(answer)} MB; this server sends up to {_mb(self.max_answer_bytes)} MB "
                "(--max-answer-mb); ask for fewer at a time"
            )
        if photos is None or classes is None:
            return PHOTOS_PER_STEP
        length = shapes["class_embeddings"][-1] if "class_embeddings" in shapes else 0
        work = scoring_bytes(1, classes, length, regions)
        if work > self.max_work_bytes:
            raise invalid_argument(
                f"{classes} classes need about {_mb(work)} MB to score a photo; this server "
                f"uses up to {_mb(self.max_work_bytes)} MB per request (--max-work-mb)"
            )
        per_photo = scoring_bytes(2, classes, length, regions) - work
        room = (self.max_work_bytes - work) // max(per_photo, 1)
        return max(1, min(PHOTOS_PER_STEP, 1 + room))


def scoring_bytes(photos: int, classes: int, length: int, regions: tuple[int, int]) -> int:
    """Estimates the memory of scoring: class embeddings, their projections, response maps.

    Args:
        photos: photos scored at a time.
        classes: number of classes.
        length: length of a class embedding.
        regions: number of regions and of channels of the model.
    """
    count, channels = regions
    return 4 * classes * (length + channels + photos * count)


def count(shapes: Shapes, names: tuple[str, ...]) -> int | None:
    """Returns the largest first axis of the inputs of these names; None if there is none."""
    return max((shapes[name][0] for name in names if shapes.get(name)), default=None)


def fits(sizes: Sequence[int], shape: tensor_shape_pb2.TensorShapeProto) -> bool:
    """Returns whether sizes are those of a shape, in which -1 stands for any."""
    if any(size < 0 for size in sizes):
        return False
    return shape.unknown_rank or (
        len(sizes) == len(shape.dim)
        and all(dim.size in (-1, size) for dim, size in zip(shape.dim, sizes, strict=True))
    )


def static_sizes(shape: tensor_shape_pb2.TensorShapeProto) -> list[int]:
    """Returns the sizes of a shape, -1 for an unspecified one."""
    return [dim.size for dim in shape.dim]


def _output_bytes(info: meta_graph_pb2.TensorInfo, photos: int | None, classes: int | None) -> int:
    """The size of an output whose open axes are the photos, if there are any, and the classes."""
    sizes = static_sizes(info.tensor_shape)
    axes = [number for number in (photos, classes) if number is not None]
    for axis, size in enumerate(sizes):
        if size < 0:
            first = axis == 0 and axes
            sizes[axis] = axes[0] if first else (classes or 1)
    dtype = tf.dtypes.as_dtype(info.dtype)
    return math.prod(sizes) * (STRING_BYTES if dtype == tf.string else dtype.size)


def _mb(size: int) -> int:
    return -(-size // 2**20)
