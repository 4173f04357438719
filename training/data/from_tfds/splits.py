"""Maps the splits of TensorFlow Datasets, or shares of them, to train, val and test."""

import hashlib

from biam_tf.errors import UserError
from training.data.dataset import OFFICIAL_SPLITS

HELD_OUT = 0.1  # share of the training photos for a split that the data set lacks
WHOLE = 1.0

# For each TensorFlow Datasets split: (our split, cumulative share of the photos), ascending.
Definition = dict[str, list[tuple[str, float]]]


def define_splits(labelled: list[str], builder: str) -> Definition:
    """Returns which of our splits the photos of each official split go to.

    If all three official splits have labels, they are kept. If `test` is missing or has no labels
    (COCO, LVIS, VOC 2012), `validation` becomes test, and a tenth of train, chosen by a hash of
    the photo, becomes val. If only `train` has labels, a tenth each becomes val and test.

    Args:
        labelled: official splits in which at least one photo has a label.
        builder: its name, for error messages.

    Raises:
        UserError: `train` has no labels.
    """
    if "train" not in labelled:
        raise UserError(
            f"data.builder: {builder}: no split 'train' with labels; splits with labels: "
            f"{', '.join(labelled) or 'none'}"
        )
    if "test" in labelled and "validation" in labelled:
        return {official: [(own, WHOLE)] for own, official in OFFICIAL_SPLITS.items()}
    if "test" in labelled or "validation" in labelled:
        last = "test" if "test" in labelled else "validation"
        return {"train": [("val", HELD_OUT), ("train", WHOLE)], last: [("test", WHOLE)]}
    return {"train": [("val", HELD_OUT), ("test", 2 * HELD_OUT), ("train", WHOLE)]}


def own_split(parts: list[tuple[str, float]], photo: bytes) -> str:
    """Returns the split of a photo by a hash of its bytes, so that copies stay together."""
    if len(parts) == 1:
        return parts[0][0]
    share = int.from_bytes(hashlib.sha256(photo).digest()[:8], "big") / 2**64
    return next(split for split, up_to in parts if share < up_to)
