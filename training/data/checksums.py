"""Checksums of official files, in TensorFlow Datasets' checksums.tsv format."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """URL, size in bytes and SHA-256 of a file as its publisher provides it."""

    url: str
    size: int
    sha256: str


def known_files(path: pathlib.Path) -> dict[str, KnownFile]:
    """Returns the files of a checksums.tsv by name; its columns are url, size, sha256, name."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: KnownFile(url, int(size), sha256) for url, size, sha256, name in rows}
