"""Tables of photos to import."""

import csv

import numpy as np


def write_table(path, rows, header=("image", "labels", "split")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labels_of(dataset, split):
    part = dataset.splits[split]
    return [{dataset.names[column] for column in np.flatnonzero(row > 0)} for row in part.labels]
