"""Limits of a request that an exported graph checks itself, whatever server runs it.

TensorFlow Serving bounds the size of a message and nothing else: a few bytes can claim any number
of photos or classes. The embedded server has the same limits as options (`serving.rpc.limits`) and
checks them before it reads a tensor.
"""

import dataclasses

import tensorflow as tf

from biam_tf.errors import UserError

_MB = 2**20


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """What one request may ask for; more is refused with INVALID_ARGUMENT before anything runs.

    Attributes:
        max_photos: largest number of photos.
        max_classes: largest number of classes.
        max_work_mb: memory in MB that scoring may need, about: class embeddings, their projections,
            and a number per photo, region and class. Answers are smaller.

    Raises:
        UserError: a limit is below 1.
    """

    max_photos: int = 1024
    max_classes: int = 1_000_000
    max_work_mb: int = 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                option = f"--{field.name.replace('_', '-')}"
                raise UserError(f"{option} {getattr(self, field.name)}: use at least 1")

    def require_room_for(self, photos: int, classes: int) -> None:
        """Raises a `UserError` if the export's own requests are beyond the limits."""
        for name, own in (("max_photos", photos), ("max_classes", classes)):
            if own > getattr(self, name):
                raise UserError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: the export is checked and "
                    f"warmed up with requests of {own} {name[4:]}; use at least {own}"
                )


@dataclasses.dataclass(frozen=True)
class GraphSizes:
    """Sizes of a model, from which the memory of a request follows.

    Attributes:
        regions: number of regions of a photo.
        channels: length of a region's features.
        embedding: length of a class embedding.
    """

    regions: int
    channels: int
    embedding: int


def within_limits(
    limits: RequestLimits, sizes: GraphSizes, photos: tf.Tensor | None, classes: tf.Tensor | None
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """Returns the inputs of a signature, which nothing uses before they were checked.

    Args:
        limits: the limits.
        sizes: of the model.
        photos: (B, ...), encoded or as features; None: the signature takes none.
        classes: (C, ...), names or embeddings; None: likewise.
    """
    checks = []
    given = [(photos, "photos", limits.max_photos), (classes, "classes", limits.max_classes)]
    for values, name, limit in given:
        if values is not None:
            found = tf.shape(values, tf.int64)[0]
            text = f" {name}; this model takes up to {limit} per request"
            message = tf.strings.join([tf.strings.as_string(found), text])
            checks.append(tf.debugging.Assert(found <= limit, [message]))
    if photos is not None and classes is not None:
        b, c = (tf.cast(tf.shape(values)[0], tf.float64) for values in (photos, classes))
        work = 4 * c * (sizes.embedding + sizes.channels + b * sizes.regions) / _MB
        message = tf.strings.join(
            [
                tf.strings.as_string(tf.cast(b, tf.int64)),
                " photos and ",
                tf.strings.as_string(tf.cast(c, tf.int64)),
                " classes need about ",
                tf.strings.as_string(tf.cast(tf.math.ceil(work), tf.int64)),
                f" MB; this model uses up to {limits.max_work_mb} MB; ask for fewer at a time",
            ]
        )
        checks.append(tf.debugging.Assert(work <= limits.max_work_mb, [message]))
    with tf.control_dependencies(checks):
        return (
            None if photos is None else tf.identity(photos),
            None if classes is None else tf.identity(classes),
        )
