"""Unseen classes that are hardly other classes than seen ones, and make zero-shot figures too good.

A class is trained under another name where its embedding is that of a seen class, or where the
two names differ in case, separators, accents or number only.
"""

import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.embeddings.names import ACCENTS, SINGULARS, table_key

if TYPE_CHECKING:
    from biam_tf.vocabulary import Vocabulary

# The nearest two of GloVe's 40,000 most frequent words (6B, 100 numbers), tuesday and wednesday,
# have 0.9952.
SAME_DIRECTION = 0.999
_ROWS_AT_ONCE = 1024
_FORMS_OF_A_NAME = 64
_LISTED = 10


@dataclasses.dataclass(frozen=True)
class Twins:
    """An unseen class and the seen class that it hardly differs from.

    Attributes:
        unseen: name of the unseen class.
        seen: name of the seen class.
        why: what they have in common.
    """

    unseen: str
    seen: str
    why: str

    def __str__(self) -> str:
        return f"{self.unseen!r} (unseen) and {self.seen!r} (seen): {self.why}"


def find_twins(
    unseen: Sequence[str],
    seen: Sequence[str],
    unseen_embeddings: np.ndarray | None = None,
    seen_embeddings: np.ndarray | None = None,
) -> list[Twins]:
    """Returns the pairs of classes that are hardly different, in the order of the unseen ones.

    Args:
        unseen: U names.
        seen: S names.
        unseen_embeddings: (U, d_a), of length 1; None: only names are compared.
        seen_embeddings: (S, d_a), of length 1.
    """
    cosines: dict[tuple[int, int], float] = {}
    if unseen_embeddings is not None and seen_embeddings is not None and len(seen):
        for start in range(0, len(unseen), _ROWS_AT_ONCE):
            near = unseen_embeddings[start : start + _ROWS_AT_ONCE] @ seen_embeddings.T
            for row, column in np.argwhere(near > SAME_DIRECTION):
                cosines[start + int(row), int(column)] = float(near[row, column])
    rows_by_form: dict[str, list[int]] = {}
    for column, name in enumerate(seen):
        for form in _forms(name):
            rows_by_form.setdefault(form, []).append(column)
    alike = {
        (row, column)
        for row, name in enumerate(unseen)
        for form in _forms(name)
        for column in rows_by_form.get(form, ())
    }
    found = []
    for row, column in sorted(cosines.keys() | alike):
        reasons = []
        if (row, column) in alike:
            reasons.append("their names differ in writing or number only")
        if (row, column) in cosines:
            same = cosines[row, column] > 1 - 1e-6
            reasons.append(
                "their embeddings are the same"
                if same
                else f"the cosine of their embeddings is {cosines[row, column]:.4f}"
            )
        found.append(Twins(unseen[row], seen[column], ", and ".join(reasons)))
    return found


def describe_twins(twins: Sequence[Twins]) -> str | None:
    """Returns one sentence on all pairs; None: there are none."""
    if not twins:
        return None
    count = len({pair.unseen for pair in twins})
    classes = "1 unseen class is" if count == 1 else f"{count} unseen classes are"
    more = f"; and {len(twins) - _LISTED} more pairs" if len(twins) > _LISTED else ""
    return (
        f"{classes} hardly another than a seen one, but counted as unseen, which makes ZSL figures "
        f"too good; merge them or make them ignored: {'; '.join(map(str, twins[:_LISTED]))}{more}"
    )


def twins_of(vocabulary: "Vocabulary") -> list[str]:
    """Returns the sentence on the classes of a vocabulary in a list; empty: there are none."""
    unseen, seen = (vocabulary.subset(group=group) for group in ("unseen", "seen"))
    pairs = find_twins(unseen.names, seen.names, unseen.embeddings, seen.embeddings)
    sentence = describe_twins(pairs)
    return [sentence] if sentence else []


def _forms(name: str) -> set[str]:
    """Returns the name in lower case without accents, with each of its words in the singular."""
    plain = re.sub(ACCENTS, "", unicodedata.normalize("NFD", table_key(name)))
    words = [list(dict.fromkeys(_singulars(word))) for word in plain.split()]
    combined = itertools.product(*words)
    return {" ".join(words) for words in itertools.islice(combined, _FORMS_OF_A_NAME)}


def _singulars(word: str) -> Iterator[str]:
    yield word
    for whole, part, replacement in SINGULARS:
        if re.fullmatch(whole, word):
            yield re.sub(part, replacement, word)
