"""Whether labels tell a loss anything: with one class, or none absent, nothing is learned."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.sparse_labels import Labels
from training.loop.objective import Objective

_PHOTOS = 512
_TRIALS = 3


def require_something_to_learn(
    objective: Objective, trained: keras.Model, labels: Labels, where: str
) -> None:
    """Checks that some scores are better than equal ones.

    A ranking loss compares the present classes of a photo with its absent ones. Without such a
    pair in any photo it is 0 throughout, or least where all scores are equal, and a run would
    end without an error and with a model that knows nothing. This is found out from the loss
    itself: at equal scores it has no slope, and scores at random do not lower it.

    Args:
        objective: the losses.
        trained: the model whose outputs they take.
        labels: (N, S) of the training photos for the seen classes, +1, -1 or 0.
        where: begins the message, such as the data set's folder.

    Raises:
        UserError: no scores are better than equal ones, for none of the photos.
    """
    shapes = _output_shapes(trained)
    for start in range(0, len(labels), _PHOTOS):
        if _teaches(objective, shapes, labels[start : start + _PHOTOS]):
            return
    raise UserError(
        f"{where}: there is nothing to learn: no training photo has both a seen class that it "
        "shows and one that it does not show; declare more seen classes, or correct the labels"
    )


def _output_shapes(model: keras.Model) -> dict[str, tuple[int | None, ...]]:
    output = model.output
    outputs = output if isinstance(output, dict) else {"scores": output}
    return {name: tuple(tensor.shape) for name, tensor in outputs.items()}


def _teaches(
    objective: Objective, shapes: Mapping[str, tuple[int | None, ...]], labels: Labels
) -> bool:
    """Returns whether the losses of these photos prefer any scores to equal ones."""
    rng = np.random.default_rng(0)
    photos, classes = labels.shape
    known = tf.constant(labels)
    # What has a number for each class is scores; the rest is what they are made from.
    is_scores = {name: shape[-1] == classes for name, shape in shapes.items()}

    def drawn(name: str) -> tf.Tensor:
        shape = [size or 1 for size in shapes[name][1:]]
        return tf.constant(rng.normal(size=(photos, *shape)), tf.float32)

    others = {name: drawn(name) for name in shapes if not is_scores[name]}
    equal = {name: tf.zeros_like(drawn(name)) for name in shapes if is_scores[name]}
    with tf.GradientTape() as tape:
        tape.watch(equal)
        least = tf.reduce_sum(objective.losses(known, {**others, **equal}))
    slopes = [slope for slope in tape.gradient(least, equal).values() if slope is not None]
    if not slopes or any(np.abs(slope).max() > 1e-6 for slope in slopes):
        return True  # without slopes the loss is of something else than scores
    trials = [{name: drawn(name) for name in equal} for _ in range(_TRIALS)]
    losses = [tf.reduce_sum(objective.losses(known, {**others, **trial})) for trial in trials]
    return any(float(loss) < float(least) - 1e-6 for loss in losses)
