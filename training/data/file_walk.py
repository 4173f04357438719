"""Walks all files below a folder, following links: photos are often linked from elsewhere."""

import os
import pathlib
from collections.abc import Iterator


def files_below(directory: pathlib.Path) -> Iterator[tuple[str, os.DirEntry]]:
    """Yields (path relative to `directory`, entry) for each file; visits no folder twice."""
    folders, visited = [""], set()
    while folders:
        folder = folders.pop()
        status = os.stat(directory / folder)
        if (status.st_dev, status.st_ino) in visited:
            continue  # a link to a folder above
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(directory / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    folders.append(path)
                else:
                    yield path, entry
