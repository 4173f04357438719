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


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def imported(folder):
    """The two lists of an imported data set; photos by the name that they had before."""
    header, *rows = rows_of(folder / "annotations.csv")
    rows = [[row[0].removeprefix("images/").partition("-")[2], *row[1:]] for row in rows]
    return [header, *rows], rows_of(folder / "classes.csv")
