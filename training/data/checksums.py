"""Checksums of official files, as TensorFlow Datasets' checksums.tsv has them."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """A file as its publisher has it: where, how many bytes, and their SHA-256 sum."""

    url: str
    size: int
    sha256: str


def known_files(path: pathlib.Path) -> dict[str, KnownFile]:
    """Returns the files of a checksums.tsv by their names; a row is url, size, sum, name."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: KnownFile(url, int(size), sha256) for url, size, sha256, name in rows}
