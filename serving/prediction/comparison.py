"""Compares the tags of two models on the same photos, to see what a new version would change."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from biam_tf.class_calibration import Tag
from biam_tf.files import replacing
from biam_tf.photos import PhotoError, read_photo_file
from biam_tf.spreadsheets import SpreadsheetWriter
from serving.prediction.photo_list import ListedPhoto
from serving.prediction.tables import number, open_table
from serving.prediction.taggers import PhotoTagger
from serving.prediction.tagging import batches_in_order

CSV_COLUMNS = (
    *("photo", "tag", "change", "old_score", "new_score"),
    *("old_probability", "new_probability"),
)
LOST, GAINED = "lost", "gained"


@dataclasses.dataclass(frozen=True)
class Change:
    """A tag that one model gives a photo and the other does not.

    Attributes:
        name: of the class.
        kind: `LOST` if only the old model gives it, `GAINED` if only the new one.
        old: score and probability of the old model.
        new: those of the new model.
    """

    name: str
    kind: str
    old: Tag
    new: Tag


@dataclasses.dataclass(frozen=True)
class PhotoComparison:
    """The tags of two models for a photo.

    Attributes:
        path: of the photo.
        problem: why neither model can read it; None if it was tagged.
        kept: number of tags that both give.
        changes: the other tags, those with the largest difference of probability first.
        same_best: whether the class of the highest score is the same.
        shift: mean absolute difference of the probabilities of all classes; None without them.
    """

    path: str
    problem: str | None = None
    kept: int = 0
    changes: tuple[Change, ...] = ()
    same_best: bool = True
    shift: float | None = None


def compare_photos(
    old: PhotoTagger, new: PhotoTagger, photos: Sequence[ListedPhoto], top: int | None
) -> Iterator[PhotoComparison]:
    """Tags photos with two models that answer with all classes, and yields one comparison each.

    Args:
        old: gives a `Tag` per class, and so does `new`.
        new: see `old`.
        photos: to tag.
        top: the tags of a photo are its `top` highest scores; None: the classes that are present.
    """
    by_key = {photo.key: photo.path for photo in photos}

    def compare(keys: Sequence[str]) -> list[PhotoComparison]:
        read, problems = {}, {}
        for key in keys:
            try:
                read[key] = read_photo_file(key)
            except PhotoError as error:
                problems[key] = str(error)
        contents = list(read.values())
        answers = zip(old.tag(contents), new.tag(contents), strict=True) if contents else ()
        compared = {}
        for key, (before, after) in zip(read, answers, strict=True):
            if isinstance(before, str) or isinstance(after, str):
                problems[key] = before if isinstance(before, str) else str(after)
            else:
                compared[key] = compare_tags(by_key[key], before, after, top)
        return [
            compared.get(key) or PhotoComparison(by_key[key], problem=problems[key]) for key in keys
        ]

    for comparisons in batches_in_order(compare, [photo.key for photo in photos]):
        yield from comparisons


def compare_tags(
    path: str, old: Sequence[Tag], new: Sequence[Tag], top: int | None
) -> PhotoComparison:
    """Compares the answers of two models for a photo.

    Args:
        path: of the photo.
        old: a tag for each class, the highest score first.
        new: likewise, for the same classes.
        top: as in `compare_photos`.
    """
    before, after = ({tag.name: tag for tag in tags} for tags in (old, new))
    chosen_before, chosen_after = (
        {tag.name for i, tag in enumerate(tags) if (tag.present if top is None else i < top)}
        for tags in (old, new)
    )
    changes = [
        Change(name, LOST if name in chosen_before else GAINED, before[name], after[name])
        for name in chosen_before ^ chosen_after
    ]
    shifts = [
        abs(tag.probability - after[name].probability)  # type: ignore[operator]
        for name, tag in before.items()
        if tag.probability is not None and after[name].probability is not None
    ]
    return PhotoComparison(
        path,
        kept=len(chosen_before & chosen_after),
        changes=tuple(sorted(changes, key=lambda change: (-_difference(change), change.name))),
        same_best=not old or old[0].name == new[0].name,
        shift=sum(shifts) / len(shifts) if shifts else None,
    )


def _difference(change: Change) -> float:
    old, new = change.old.probability, change.new.probability
    return 0.0 if old is None or new is None else abs(old - new)


class Summary:
    """Counts over photos, added one by one, so that any number of photos fits in memory."""

    def __init__(self) -> None:
        self.photos = self.kept = self.unchanged = self.same_best = 0
        self.problems: list[PhotoComparison] = []
        self.changes: collections.Counter[str] = collections.Counter()
        self.by_class: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        self.most_changed: list[PhotoComparison] = []
        self._shifts = 0.0
        self._shifted = 0

    def add(self, photo: PhotoComparison, most_shown: int) -> None:
        """Counts a photo; the `most_shown` photos with the most changes are kept."""
        if photo.problem is not None:
            self.problems.append(photo)
            return
        self.photos += 1
        self.kept += photo.kept
        self.unchanged += not photo.changes
        self.same_best += photo.same_best
        for change in photo.changes:
            self.changes[change.kind] += 1
            self.by_class[change.name][change.kind] += 1
        if photo.shift is not None:
            self._shifts += photo.shift
            self._shifted += 1
        if photo.changes:
            self.most_changed.append(photo)
            self.most_changed.sort(key=lambda other: -len(other.changes))
            del self.most_changed[most_shown:]

    @property
    def changed_share(self) -> float:
        """Share of changed tags among the tags that either model gives; 0 without tags."""
        changed = self.changes.total()
        return changed / (changed + self.kept) if changed else 0.0

    @property
    def mean_shift(self) -> float | None:
        """Mean absolute difference of probabilities; None without them."""
        return self._shifts / self._shifted if self._shifted else None

    def lines(self, most_shown: int) -> Iterator[str]:
        """Yields the lines that are printed."""
        lost, gained = self.changes[LOST], self.changes[GAINED]
        yield f"photos compared       {self.photos}"
        yield f"  with the same tags  {_part(self.unchanged, self.photos)}"
        yield f"  with the same best  {_part(self.same_best, self.photos)}"
        yield f"tags of OLD           {self.kept + lost}"
        yield f"tags of NEW           {self.kept + gained}"
        yield f"  in both             {self.kept}"
        yield f"  lost                {lost}"
        yield f"  gained              {gained}"
        yield f"changed tags          {self.changed_share:.1%} of {self.kept + lost + gained}"
        if self.mean_shift is not None:
            yield f"mean difference of probabilities  {self.mean_shift:.4f}"
        if not self.by_class:
            return
        counts = sorted(self.by_class.items(), key=lambda item: (-item[1].total(), item[0]))
        width = max(len(name) for name, _ in counts[:most_shown])
        yield f"\n{'classes that change most':{max(width, 24)}}    lost  gained"
        for name, kinds in counts[:most_shown]:
            yield f"{name:{max(width, 24)}}  {kinds[LOST]:6}  {kinds[GAINED]:6}"
        yield "\nphotos that change most (- lost, + gained)"
        for photo in self.most_changed:
            shown = [f"{'-' if c.kind == LOST else '+'}{c.name}" for c in photo.changes[:8]]
            more = f" and {len(photo.changes) - 8} more" if len(photo.changes) > 8 else ""
            yield f"{photo.path}: {', '.join(shown)}{more}"


def _part(count: int, total: int) -> str:
    return f"{count}  ({count / total:.1%})" if total else str(count)


def write_changes(path: str, photos: Iterable[PhotoComparison]) -> Iterator[PhotoComparison]:
    """Writes one line per changed tag while photos pass through; whole at the end or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as partial, open_table(partial, "surrogateescape") as file:
        writer = SpreadsheetWriter(file)
        writer.writerow(CSV_COLUMNS)
        for photo in photos:
            for change in photo.changes:
                figures = (
                    *(change.old.score, change.new.score),
                    *(change.old.probability, change.new.probability),
                )
                row = (photo.path, change.name, change.kind, *map(number, figures))
                writer.writerow(row)
            yield photo
