"""Which classes of a data set are seen and which are unseen to runs that are evaluated on it."""

import dataclasses
import pathlib
from collections.abc import Sequence

from biam_tf.embeddings.names import look_up
from biam_tf.embeddings.twins import Twins, describe_twins, find_twins
from biam_tf.runs import RunPaths
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import SEEN, UNSEEN, TaggingDataset

_LISTED = 10


@dataclasses.dataclass(frozen=True)
class CountedClasses:
    """A data set whose groups are those of the training.

    Attributes:
        dataset: the data set.
        trained: the classes that were trained, of each run.
        differences: a sentence for each way in which its own groups differ from the training.
    """

    dataset: TaggingDataset
    trained: tuple[Vocabulary, ...]
    differences: tuple[str, ...]

    def warnings(self, vocabulary: Vocabulary) -> list[str]:
        """Returns what makes figures on these classes doubtful, a sentence each."""
        unseen = vocabulary.subset(group=UNSEEN)
        found: dict[tuple[str, str], Twins] = {}
        for seen in self.trained:
            is_comparable = unseen.embedding_size == seen.embedding_size
            embeddings = (unseen.embeddings, seen.embeddings) if is_comparable else ()
            for twins in find_twins(unseen.names, seen.names, *embeddings):
                found.setdefault((twins.unseen, twins.seen), twins)
        sentence = describe_twins(list(found.values()))
        return [*self.differences, *([sentence] if sentence else [])]


def count_as_trained(dataset: TaggingDataset, runs: Sequence[pathlib.Path]) -> CountedClasses:
    """Returns the data set with the classes that runs were trained on as seen, others as unseen.

    The groups of classes.csv say what somebody planned; a class is unseen to a run if it was not
    trained on it, whatever the file says. Names are compared as in `biam_tf.embeddings.names`.

    Args:
        dataset: as it was read.
        runs: folders of trained runs. With several, a class is seen if one of them was trained on
            it, so that all have the same groups.

    Raises:
        UserError: a folder is not a trained run.
    """
    trained = []
    for path in runs:
        folder = RunPaths(pathlib.Path(path))
        folder.require_whole()
        trained.append(Vocabulary.load(folder.vocabulary).subset(group=SEEN))

    def is_trained(name: str) -> bool:
        return any(look_up(name, None, seen.index).row is not None for seen in trained)

    groups = tuple(SEEN if is_trained(name) else UNSEEN for name in dataset.names)
    whose = "this run" if len(runs) == 1 else "one of these runs"
    differences = []
    for group, counted, verb in ((UNSEEN, SEEN, "were"), (SEEN, UNSEEN, "were not")):
        own = [name for name, g in zip(dataset.names, dataset.groups, strict=True) if g == group]
        moved = [
            name
            for name, before, now in zip(dataset.names, dataset.groups, groups, strict=True)
            if before == group and now == counted
        ]
        if moved:
            more = f" and {len(moved) - _LISTED} more" if len(moved) > _LISTED else ""
            differences.append(
                f"{len(moved)} of the {len(own)} {group} classes {verb} trained on by {whose} and "
                f"count as {counted}, whatever {dataset.directory} says: "
                f"{', '.join(moved[:_LISTED])}{more}"
            )
    if groups != dataset.groups:
        dataset = dataclasses.replace(
            dataset, groups=groups, groups_as_read=dataset.groups_as_read or dataset.groups
        )
    return CountedClasses(dataset, tuple(trained), tuple(differences))


def print_warnings(warnings: Sequence[str]) -> None:
    """Prints what makes figures doubtful."""
    for warning in warnings:
        print(f"Warning: {warning}", flush=True)
