"""Which split of TensorFlow Datasets, and which share of it, becomes train, val and test."""

import hashlib

from biam_tf.errors import UserError
from training.data.dataset import OFFICIAL_SPLITS

HELD_OUT = 0.1  # share of the training photos for a split that the data set does not have
WHOLE = 1.0

# For each official split: (own split, up to which share of the photos) in ascending order.
Definition = dict[str, list[tuple[str, float]]]


def define_splits(labelled: list[str], builder: str) -> Definition:
    """Returns where the photos of each official split go.

    With labels in all three, they stay as they are. Where `test` has no labels (COCO, LVIS, VOC
    2012) or is not there, `validation` becomes test, and a tenth of train, chosen by a hash of
    the photo, becomes val. Where only `train` has labels, one tenth is val and another is test.

    Args:
        labelled: official splits in which a photo has a label.
        builder: its name, for the message.

    Raises:
        UserError: `train` is not among them.
    """
    if "train" not in labelled:
        raise UserError(
            f"data.builder: {builder}: no split 'train' with labels; with labels it has: "
            f"{', '.join(labelled) or 'none'}"
        )
    if "test" in labelled and "validation" in labelled:
        return {official: [(own, WHOLE)] for own, official in OFFICIAL_SPLITS.items()}
    if "test" in labelled or "validation" in labelled:
        last = "test" if "test" in labelled else "validation"
        return {"train": [("val", HELD_OUT), ("train", WHOLE)], last: [("test", WHOLE)]}
    return {"train": [("val", HELD_OUT), ("test", 2 * HELD_OUT), ("train", WHOLE)]}


def own_split(parts: list[tuple[str, float]], photo: bytes) -> str:
    """Returns the split of a photo, by its bytes: copies of a photo stay together."""
    if len(parts) == 1:
        return parts[0][0]
    share = int.from_bytes(hashlib.sha256(photo).digest()[:8], "big") / 2**64
    return next(split for split, up_to in parts if share < up_to)
