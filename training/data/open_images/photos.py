"""The photos of Open Images that are there: files named after a photo's number."""

import os
import pathlib

import numpy as np

from biam_tf.photos import ENDINGS
from training.data.file_walk import files_below
from training.data.open_images.label_rows import ID_DIGITS


def find_photos(directory: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers, (P,) uint64, sorted, and the relative paths, (P,) objects, of photos.

    A photo's file is its 16 hexadecimal digits and an ending, in any folder below `directory`;
    of several files of one photo the first by path counts. No file is opened.
    """
    numbers, paths = [], []
    for path, _ in files_below(directory):
        stem, ending = os.path.splitext(path.rsplit("/", 1)[-1])
        if len(stem) == ID_DIGITS and ending.lower() in ENDINGS:
            try:
                numbers.append(int(stem, 16))
            except ValueError:
                continue
            paths.append(path)
    named = np.array(paths, dtype=object)
    by_path = np.argsort(named, kind="stable")
    numbers, first = np.unique(np.array(numbers, np.uint64)[by_path], return_index=True)
    return numbers, named[by_path][first]
