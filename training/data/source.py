"""What a data set registers: its name, its settings and its reader."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # brings NumPy, which `--help` of the commands does without
    from training.data.dataset import TaggingDataset


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of a data set that has none of its own."""


@dataclasses.dataclass(frozen=True)
class ReadRequest:
    """What the reader of a data set is given.

    Attributes:
        directory: `data.directory`; None where it is not set.
        settings: an instance of the data set's `settings_type`.
        progress: called with (done, in all) while the data set is read.
        look_for_photos: whether photos are looked for on the disk.
        missing_is_error: whether a missing photo ends the reading, where the data set promises
            all of its photos; never where `data.max_broken_share` allows broken ones, as a
            missing photo is counted with those.
    """

    directory: pathlib.Path | None = None
    settings: Any = NoSettings()
    progress: Callable[[int, int], None] | None = None
    look_for_photos: bool = True
    missing_is_error: bool = True

    @property
    def required_directory(self) -> pathlib.Path:
        """The directory of a data set that has `needs_directory`."""
        assert self.directory is not None
        return self.directory


@dataclasses.dataclass(frozen=True)
class DataSource:
    """A kind of data set, found by `data.name`.

    Attributes:
        name: the value of `data.name`.
        read: returns the data set.
        settings_type: a frozen dataclass; its fields are further keys of `data:`, checked by
            their types. Its constructor may raise a `UserError` that begins with the name of a
            field and a colon.
        needs_directory: says which folder is missing where `data.directory` is not set; None:
            the data set does without one.
        work: what the reader does while it calls `progress`, and the unit that it counts.
    """

    name: str
    read: Callable[[ReadRequest], TaggingDataset]
    settings_type: type = NoSettings
    needs_directory: str | None = None
    work: tuple[str, str] = ("reading", "photo")

    @property
    def settings_names(self) -> tuple[str, ...]:
        """The keys of `data:` that only this data set has."""
        return tuple(field.name for field in dataclasses.fields(self.settings_type))
