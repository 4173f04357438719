"""The interface of data sets: name, settings and reader."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imports NumPy, which `--help` does not need
    from training.data.dataset import TaggingDataset


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of a data set without settings."""


@dataclasses.dataclass(frozen=True)
class ReadRequest:
    """The arguments of a reader.

    Attributes:
        directory: `data.directory`; None if it is not set.
        settings: an instance of the data set's `settings_type`.
        progress: called with (done, total) while the data set is read.
        look_for_photos: whether to check that the photos exist.
        missing_is_error: whether a missing photo is an error, for data sets that should have all
            photos. False if `data.max_broken_share` is positive, as missing photos then count as
            broken.
    """

    directory: pathlib.Path | None = None
    settings: Any = NoSettings()
    progress: Callable[[int, int], None] | None = None
    look_for_photos: bool = True
    missing_is_error: bool = True

    @property
    def required_directory(self) -> pathlib.Path:
        """The directory of a data set with `needs_directory`."""
        assert self.directory is not None
        return self.directory


@dataclasses.dataclass(frozen=True)
class DataSource:
    """A kind of data set, selected by `data.name`.

    Attributes:
        name: the value of `data.name`.
        read: reads the data set.
        settings_type: a frozen dataclass whose fields are further keys of `data:`, checked against
            their types. Its constructor may raise a `UserError` that starts with the name of a
            field and a colon.
        needs_directory: the error message if `data.directory` is not set; None if the data set
            does not need a directory.
        work: label and unit of the progress bar.
        default_directory: from the settings to the folder if `data.directory` is not set; None:
            there is no such folder.
    """

    name: str
    read: Callable[[ReadRequest], TaggingDataset]
    settings_type: type = NoSettings
    needs_directory: str | None = None
    work: tuple[str, str] = ("reading", "photo")
    default_directory: Callable[[Any], pathlib.Path] | None = None

    @property
    def settings_names(self) -> tuple[str, ...]:
        """The keys of `data:` that are specific to this data set."""
        return tuple(field.name for field in dataclasses.fields(self.settings_type))
