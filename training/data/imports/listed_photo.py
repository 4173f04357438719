"""A labeled photo as somebody's list has it, before it is brought into a data set's folder."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ListedPhoto:
    """A photo in somebody's list.

    Attributes:
        location: path of the file, or its http(s) address.
        split: "train", "val" or "test".
        labels: names of the classes that it shows, each once.
    """

    location: str
    split: str
    labels: tuple[str, ...]
