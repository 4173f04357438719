"""Writes tags as keywords, into sidecars or into the photos, and tells what changed."""

import dataclasses
import os
import sys
from collections.abc import Sequence

from biam_tf.errors import UserError
from biam_tf.files import sha256_of
from biam_tf.progress import progress
from serving.prediction.journal import Answer, FileState, Journal
from serving.prediction.keywords import FieldChange, Refused, in_words
from serving.prediction.photo_list import ListedPhoto

SIDECAR, EMBED = "sidecar", "embed"
NOT_PRESENT = (
    "does not say which tags are present (it has no thresholds); say from which score on they are, "
    "with --threshold SCORE"
)
_PHOTOS_AT_A_TIME = 50
_PROBLEMS_SHOWN = 20


@dataclasses.dataclass
class _Result:
    """What became of the photos so far."""

    changed: int = 0
    unchanged: int = 0
    refused: list[str] = dataclasses.field(default_factory=list)
    hidden: int = 0

    def tell(self, where: str, changes: dict[str, FieldChange], dry_run: bool) -> None:
        if not changes:
            self.unchanged += 1
            return
        self.changed += 1
        if dry_run:
            print(f"{where}: {in_words(changes)}")


def check_keyword_output(where: str, photos: Sequence[ListedPhoto], dry_run: bool) -> None:
    """Refuses what cannot be done, before photos are tagged.

    Raises:
        UserError: a program or package is missing, or a folder may not be written.
    """
    if where == EMBED:
        from serving.prediction.photo_metadata import require_exiftool

        require_exiftool()
    else:
        from serving.prediction import xmp_packet  # noqa: F401  names the package it needs
    if dry_run:
        return
    for folder in sorted({os.path.dirname(photo.key) for photo in photos}):
        if not os.access(folder, os.W_OK):
            raise UserError(
                f"--xmp: {folder} may not be written, and keywords go into the folders of the "
                "photos; allow writing there, or copy the photos"
            )


def present_names(answer: Answer) -> list[str]:
    """Returns the names of the tags that are present.

    Raises:
        UserError: the model does not say which are.
    """
    if any(tag.present is None for tag in answer.tags or ()):
        raise UserError(f"--xmp: the model {NOT_PRESENT}")
    return [tag.name for tag in answer.tags or () if tag.present]


def write_keywords(
    where: str, prefix: str, dry_run: bool, journal: Journal, photos: Sequence[ListedPhoto]
) -> int:
    """Writes the present tags of photos as keywords.

    Args:
        where: `SIDECAR` or `EMBED`.
        prefix: levels above the tags, separated by `/`.
        dry_run: only prints what would change.
        journal: of the tags; photos that are changed are entered with their new contents.
        photos: all of them; broken ones are left out.

    Returns:
        The number of photos that were refused; each is named on standard error.

    Raises:
        UserError: a folder or disk cannot be written.
    """
    known = [photo for photo in photos if journal.get(photo.key).tags is not None]
    result = _Result()
    label = "Comparing keywords" if dry_run else "Writing keywords"
    with progress(len(known), label, "photo") as bar:
        for start in range(0, len(known), _PHOTOS_AT_A_TIME):
            part = known[start : start + _PHOTOS_AT_A_TIME]
            if where == SIDECAR:
                _into_sidecars(part, prefix, dry_run, journal, result)
            else:
                _into_photos(part, prefix, dry_run, journal, result)
            bar.update(len(part))
    sys.stdout.flush()
    _report(result, where, dry_run)
    return len(result.refused)


def _into_sidecars(
    photos: Sequence[ListedPhoto], prefix: str, dry_run: bool, journal: Journal, result: _Result
) -> None:
    from serving.prediction.sidecars import update_sidecar

    for photo in photos:
        names = present_names(journal.get(photo.key))
        try:
            path, changes = update_sidecar(photo.path, names, prefix, dry_run)
        except Refused as error:
            result.refused.append(str(error))
            continue
        result.tell(str(path), changes, dry_run)


def _into_photos(
    photos: Sequence[ListedPhoto], prefix: str, dry_run: bool, journal: Journal, result: _Result
) -> None:
    from serving.prediction.photo_metadata import update_photos
    from serving.prediction.sidecars import sidecar_of

    # Two links may lead to one photo.
    unique = {os.path.realpath(photo.key): photo for photo in photos}
    asked = [(photo.key, present_names(journal.get(photo.key))) for photo in unique.values()]
    answers = []
    for photo, done in zip(unique.values(), update_photos(asked, prefix, dry_run), strict=True):
        if done.problem is not None:
            result.refused.append(f"{photo.path}: {done.problem}")
            continue
        result.tell(photo.path, done.changes, dry_run)
        result.hidden += sidecar_of(photo.key).exists()
        if done.changes and not dry_run:
            answer, state = journal.get(photo.key), FileState.of(photo.key)
            answers.append(dataclasses.replace(answer, state=state, sha256=sha256_of(photo.key)))
    journal.add(answers)


def _report(result: _Result, where: str, dry_run: bool) -> None:
    for problem in result.refused[:_PROBLEMS_SHOWN]:
        print(f"keywords not written: {problem}", file=sys.stderr)
    if len(result.refused) > _PROBLEMS_SHOWN:
        more = len(result.refused) - _PROBLEMS_SHOWN
        print(f"keywords not written: and {more} more", file=sys.stderr)
    what = "would change" if dry_run else "changed"
    print(
        f"keywords: {result.changed} photos {what}, {result.unchanged} as they were, "
        f"{len(result.refused)} refused",
        file=sys.stderr,
    )
    if where == EMBED and result.hidden:
        print(
            f"{result.hidden} of these photos have a sidecar, which programs read before the "
            "photo; --xmp sidecar writes there",
            file=sys.stderr,
        )
