"""A typed list of classes: read, checked, and corrected."""

import dataclasses
import functools
import unicodedata
from collections.abc import Sequence

from biam_tf.embeddings.names import NameIndex, look_up, normalize, readable
from biam_tf.errors import UserError, nearest_names, nearest_words

# Response maps of 14x14 regions: 8 MB a photo, well below a message's 64.
MAX_CLASSES = 10_000
_SUGGESTIONS = 3
# Comparing with every name takes a second for so many.
_FEW_NAMES = 2000


@dataclasses.dataclass(frozen=True)
class UnknownClass:
    """A name that the model has no embedding for.

    Attributes:
        name: as it was typed.
        word: the part of it that is unknown; the name itself if the model has only whole names.
    """

    name: str
    word: str


class KnownClasses:
    """The names that a model can score, looked up as its signature `embed` does.

    Args:
        names: those of the run's vocabulary.
        words: of which other names may consist, in NFC; empty: none.
        any_phrase: whether it embeds every name with a sentence encoder.
    """

    def __init__(
        self,
        names: Sequence[str],
        words: frozenset[str] = frozenset(),
        any_phrase: bool = False,
    ):
        self.names = tuple(names)
        self.words = words
        self.any_phrase = any_phrase
        self._index = NameIndex(names)
        # The page asks again with every key that is pressed.
        self.suggestions = functools.lru_cache(maxsize=256)(self._suggestions)

    def read(self, text: str) -> list[str]:
        """Returns the classes of a text, each once: separated by commas or lines.

        A line that is the name of a class stays whole, whatever commas are in it.

        Raises:
            UserError: they are more than `MAX_CLASSES`.
        """
        found: dict[str, None] = {}
        for line in text.splitlines():
            parts = [line] if normalize(line.strip()) in self._index.rows else line.split(",")
            names = (normalize(" ".join(part.split())) for part in parts)
            found |= dict.fromkeys(name for name in names if name)
        if len(found) > MAX_CLASSES:
            raise UserError(
                f"{len(found):,} classes; at most {MAX_CLASSES:,} are scored at a time, so take "
                "some out"
            )
        return list(found)

    def unknown(self, names: Sequence[str]) -> list[UnknownClass]:
        """Returns those of `names` that the model cannot score, in their order."""
        if self.any_phrase:
            return [UnknownClass(name, name) for name in names if not _has_signs(name)]
        found = []
        for name in names:
            if missing := look_up(name, self.words or None, self._index).missing:
                found.append(UnknownClass(name, missing[0]))
        return found

    def _suggestions(self, unknown: UnknownClass) -> tuple[str, ...]:
        """Returns the nearest names that the model can score, best first."""
        near = nearest_names if len(self.names) <= _FEW_NAMES else nearest_words
        whole = near(unknown.name.lower(), self.names)
        if not self.words:
            return tuple(whole[:_SUGGESTIONS])
        text = readable(unknown.name)
        made = [
            text.replace(unknown.word, word) for word in nearest_words(unknown.word, self.words)
        ]
        known = [name for name in made if not self.unknown([name])]
        return tuple(dict.fromkeys([*whole[:1], *known, *whole]))[:_SUGGESTIONS]


def _has_signs(name: str) -> bool:
    """Whether there are letters or signs in a name, not only spaces and control characters."""
    return any(unicodedata.category(character)[0] not in "CZ" for character in name)


def replace_class(classes: Sequence[str], name: str, other: str | None) -> list[str]:
    """Returns the classes with `other` in the place of `name`, or without it where that is None."""
    changed = [other if own == name else own for own in classes]
    return list(dict.fromkeys(own for own in changed if own is not None))


def write_classes(classes: Sequence[str]) -> str:
    """Returns the text that is read as these classes: one a line."""
    return "\n".join(classes)
