"""Zero-shot splits: published seen and unseen classes, or a list of the user."""

import dataclasses
import pathlib

from biam_tf.errors import UserError, did_you_mean
from training.data.class_list import read_class_list
from training.data.dataset import SEEN, UNSEEN, Split, TaggingDataset
from training.data.problems import Problems

READY_MADE = {
    "coco_48_17": "Bansal et al., Zero-Shot Object Detection, ECCV 2018",
    "coco_65_15": "Rahman et al., Polarity Loss for Zero-shot Object Detection, 2018",
    "voc_16_4": "Demirel et al., Zero-Shot Object Detection by Hybrid Region Embedding, BMVC 2018",
    "lvis_rare": "LVIS v1's frequencies; rare ones unseen as in Gu et al. (ViLD), ICLR 2022",
}
_FOLDER = pathlib.Path(__file__).parent / "class_groups"


def apply_zero_shot_split(dataset: TaggingDataset, split: str) -> TaggingDataset:
    """Returns the data set with the class groups of a zero-shot split.

    Args:
        dataset: the data set whose groups are replaced.
        split: a key of `READY_MADE`, a text file of unseen classes (one name per line; all others
            are seen), or a .csv file with the columns `name,group` (classes it does not list are
            left out).

    Raises:
        UserError: the split or file does not exist, a class is not in the data set, or no class
            is seen.
    """
    if split in READY_MADE:
        groups = _groups(_FOLDER / f"{split}.csv", dataset, split)
    elif pathlib.Path(split).is_file():
        groups = _groups(pathlib.Path(split), dataset, split)
    else:
        raise UserError(
            f"data.zero_shot_split: {split!r} is not a file{did_you_mean(split, READY_MADE)}; "
            "set it to a built-in split or a file of unseen classes"
        )
    keep = [column for column, name in enumerate(dataset.names) if name in groups]
    kept = tuple(groups[dataset.names[column]] for column in keep)
    if SEEN not in kept:
        raise UserError(f"data.zero_shot_split: {split}: no class is seen")
    splits = {
        name: Split(own.images, own.labels.columns(keep)) for name, own in dataset.splits.items()
    }
    source = READY_MADE.get(split, "your list")
    remark = (
        f"zero-shot split {split} ({source}): {kept.count(SEEN)} seen, {kept.count(UNSEEN)} "
        f"unseen, {len(dataset.names) - len(kept)} left out"
    )
    return TaggingDataset(
        dataset.directory,
        tuple(dataset.names[column] for column in keep),
        kept,
        splits,
        dataclasses.replace(dataset.about, remarks=(*dataset.about.remarks, remark)),
    )


def _groups(path: pathlib.Path, dataset: TaggingDataset, split: str) -> dict[str, str]:
    """Returns the group of each class that is kept."""
    listed = read_class_list(path)
    if path.suffix.lower() == ".csv" and listed.groups is None:
        raise UserError(f"{path}: every row needs a group: seen, unseen or ignored")
    problems = Problems(path)
    for name in listed.names:
        if name not in dataset.names:
            hint = did_you_mean(name, dataset.names) if split not in READY_MADE else ""
            problems.add(path.name, None, f"{name!r} is not a class of this data set{hint}")
    for name, group in zip(listed.names, listed.groups or (), strict=False):
        if group not in (SEEN, UNSEEN):
            problems.add(path.name, None, f"{name!r}: unknown group {group!r}")
    problems.raise_if_any()
    if listed.groups is not None:
        return dict(zip(listed.names, listed.groups, strict=True))
    return {name: UNSEEN if name in listed.names else SEEN for name in dataset.names}
