"""Reads example photos of classes: a folder with one folder per class, or a folder data set."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError, did_you_mean
from biam_tf.photos import ENDINGS
from training.data.file_walk import files_below
from training.data.folder.reader import ANNOTATIONS, read_folder


def read_examples(
    folder: str | os.PathLike, names: Sequence[str] | None = None
) -> tuple[dict[str, list[pathlib.Path]], list[pathlib.Path]]:
    """Returns the example photos of each class, and photos that show none of them.

    Args:
        folder: it has one folder per class, named as the class, with photos at any depth; or it is
            a folder data set, of which the photos of split train are examples of their labels.
        names: the classes to take; None: all.

    Returns:
        Photos by class, and the others, which only a data set has.

    Raises:
        UserError: there is no such folder, or a class without photos.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"--from-photos {folder}: no such folder")
    others: list[pathlib.Path] = []
    if (folder / ANNOTATIONS).is_file():
        examples, others = _of_data_set(folder, names)
    else:
        examples = {
            normalize(inner.name): photos_below(inner)
            for inner in sorted(folder.iterdir())
            if inner.is_dir() and not inner.name.startswith(".")
        }
    if not examples:
        raise UserError(
            f"--from-photos {folder}: it has no folders; put the photos of each class into a "
            "folder that is named as the class"
        )
    if names is not None:
        for name in map(normalize, names):
            if name not in examples:
                raise UserError(f"{folder}: no class {name!r}{did_you_mean(name, examples)}")
        examples = {name: examples[name] for name in map(normalize, names)}
    empty = [name for name, photos in examples.items() if not photos]
    if empty:
        listed = ", ".join(map(repr, empty[:10]))
        raise UserError(f"--from-photos {folder}: no photo of {listed}; add some, or leave it out")
    return examples, others


def photos_below(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the photos in a folder and in all folders below it, in the order of their paths."""
    folder = pathlib.Path(folder)
    found = (folder / path for path, _ in files_below(folder))
    return sorted(path for path in found if path.suffix.lower() in ENDINGS)


def _of_data_set(
    folder: pathlib.Path, names: Sequence[str] | None
) -> tuple[dict[str, list[pathlib.Path]], list[pathlib.Path]]:
    dataset = read_folder(folder)
    split = dataset.split("train")
    paths = [dataset.photo_path(image) for image in split.images]
    wanted = None if names is None else set(map(normalize, names))
    examples: dict[str, list[pathlib.Path]] = {}
    others = set(range(len(paths)))
    for column, name in enumerate(dataset.names):
        if wanted is None or name in wanted:
            rows = np.flatnonzero(np.asarray(split.labels[:, column]) > 0).tolist()
            examples[name] = [paths[row] for row in rows]
            others -= set(rows)
    return examples, [paths[row] for row in sorted(others)]
