"""Miniatures of public data sets: drawn photos in exactly the official layout of the files.

Tests use them, and a person can try commands on them before the archives are there:

    python tests/helpers/miniatures.py nus_wide /tmp/nus-wide
    python tests/helpers/miniatures.py open_images /tmp/open-images
"""

import argparse
import pathlib
import sys

import numpy as np
from PIL import Image

# 12 tags, of which 4 are concepts letter for letter; "boat" is no "boats".
TAGS = ("nature", "sky", "blue", "water", "clouds", "red", "boat", "street", "light", "art",
        "beach", "macro")  # fmt: skip
CONCEPTS = ("boats", "clouds", "computer", "sky", "street", "water")
FOLDERS = ("actor", "albatross", "zebra")
NUS_PHOTOS, NUS_TEST = 30, 10

TRAINABLE = ("/m/0aaa1", "/m/0aaa2", "/m/0aaa3", "/m/0aaa4", "/m/0aaa5", "/m/0aaa6")
OTHER = ("/m/0bbb1", "/m/0bbb2", "/m/0bbb3", "/g/0bbb4")
CLASS_NAMES = ("Tree", "Drum", "Sea bird", "Tulip", "Sailboat", "Cheese", "Fauna", "Drum",
               "Exercise", "Stall")  # fmt: skip
OPEN_IMAGES_PHOTOS = {"train": 24, "validation": 8, "test": 10}


def nus_photo_id(row: int) -> str:
    """Flickr's number of a photo of the miniature."""
    return str(2_124_494_000 + 7 * row)


def nus_name(row: int) -> str:
    """A photo of the miniature as Imagelist.txt has it, with slashes."""
    return f"{FOLDERS[row * len(FOLDERS) // NUS_PHOTOS]}/{row + 1:04d}_{nus_photo_id(row)}.jpg"


def nus_labels(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tags (30, 12) and concepts (30, 6) of the miniature, 0 and 1; photos 3 and 25 have none."""
    rng = np.random.default_rng(seed)
    tags = (rng.random((NUS_PHOTOS, len(TAGS))) < 0.4).astype(int)
    concepts = (rng.random((NUS_PHOTOS, len(CONCEPTS))) < 0.4).astype(int)
    tags[[3, 25]], concepts[[3, 25]] = 0, 0
    tags[[0, 17], 0], concepts[[1, 18, 21], 3] = 1, 1
    return tags, concepts


def write_nus_wide(directory, name_of=nus_name, photos="Flickr", left_out=(), seed: int = 0):
    """Writes NUS-WIDE in small; returns the folder.

    Args:
        directory: where to.
        name_of: row to the path of its photo below `photos`.
        photos: the folder of the photos.
        left_out: rows whose photos are not there.
        seed: of labels and pictures.
    """
    directory = pathlib.Path(directory)
    tags, concepts = nus_labels(seed)
    # Every third photo is for testing, as far as there are enough.
    test = [row for row in range(NUS_PHOTOS) if row % 3 == 2]
    train = [row for row in range(NUS_PHOTOS) if row % 3 != 2]
    # The official lists come from Windows: backslashes, and line ends of two characters.
    named = [nus_name(row).replace("/", "\\") for row in range(NUS_PHOTOS)]
    lists = {"Imagelist": range(NUS_PHOTOS), "TrainImagelist": train, "TestImagelist": test}
    for name, rows in lists.items():
        _write(directory / f"ImageList/{name}.txt", [named[row] for row in rows], "\r\n")
    _write(directory / "ConceptsList/Concepts81.txt", CONCEPTS, "\r\n")
    _write(directory / "NUS_WID_Tags/TagList1k.txt", TAGS, "\r\n")
    # Rows end with a tab.
    rows = ["".join(f"{value}\t" for value in row) for row in tags]
    _write(directory / "NUS_WID_Tags/AllTags1k.txt", rows, "\r\n")
    for column, concept in enumerate(CONCEPTS):
        _write(directory / f"Groundtruth/AllLabels/Labels_{concept}.txt", concepts[:, column])
        for split, rows in (("Train", train), ("Test", test)):
            path = directory / f"Groundtruth/TrainTestLabels/Labels_{concept}_{split}.txt"
            _write(path, concepts[rows, column])
    for row in set(range(NUS_PHOTOS)) - set(left_out):
        _draw(directory / photos / name_of(row), seed + row)
    _write_vectors(directory, (*TAGS, *CONCEPTS))
    return directory


def open_images_id(split: str, number: int) -> str:
    """The number of a photo of the miniature."""
    first = {"train": 0x000060E3121C7305, "validation": 0x0001EEAF4AED83F9, "test": 0x99C89B}
    return f"{first[split] + 0x1111 * number:016x}"


def open_images_rows(split: str, seed: int = 0) -> list[tuple[str, str, str, str]]:
    """The rows of a label file of the miniature."""
    rng = np.random.default_rng([seed, len(split)])
    rows = []
    for number in range(OPEN_IMAGES_PHOTOS[split]):
        # Each unseen class is rarer than the one before; the last of OTHER does not occur.
        for position, label in enumerate((*TRAINABLE, *OTHER[:3])):
            chance = 0.5 if label in TRAINABLE else 0.9 - 0.25 * (position - len(TRAINABLE))
            if rng.random() < chance:
                source = ("verification", "crowdsource-verification")[rng.integers(2)]
                value = "1" if rng.random() < 0.6 or label in OTHER else "0"
                rows.append((open_images_id(split, number), source, label, value))
    return rows


def write_open_images(directory, left_out=(), seed: int = 0):
    """Writes Open Images v4 in small; returns the folder.

    Args:
        directory: where to.
        left_out: (split, number) of photos that are not there.
        seed: of labels and pictures.
    """
    directory = pathlib.Path(directory)
    classes = (*TRAINABLE, *OTHER)
    described = [f"{label},{name}" for label, name in zip(classes, CLASS_NAMES, strict=True)]
    _write(directory / "class-descriptions.csv", described, "\r\n")
    _write(directory / "classes-trainable.txt", TRAINABLE)
    header = "ImageID,Source,LabelName,Confidence"
    for split, count in OPEN_IMAGES_PHOTOS.items():
        rows = [",".join(row) for row in open_images_rows(split, seed)]
        _write(directory / f"{split}-annotations-human-imagelabels.csv", [header, *rows])
        for number in range(count):
            if (split, number) not in left_out:
                name = f"{split}/{open_images_id(split, number)}.jpg"
                _draw(directory / name, seed + number + len(split))
    machine = [
        f"{open_images_id('train', 0)},machine,{TRAINABLE[0]},0.9",
        f"{open_images_id('train', 1)},machine,{TRAINABLE[1]},0.5",
    ]
    _write(directory / "train-annotations-machine-imagelabels.csv", [header, *machine])
    _write_vectors(directory, {word for name in CLASS_NAMES for word in name.lower().split()})
    return directory


def _write(path: pathlib.Path, lines, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode())


def _draw(path: pathlib.Path, seed: int) -> None:
    """A picture of colored squares."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(squares.repeat(8, 0).repeat(8, 1)).save(path, format="JPEG")


def _write_vectors(directory: pathlib.Path, words) -> None:
    """Word vectors of the miniature's classes, GloVe's form: random, but the same every time."""
    words = sorted(set(words))
    vectors = np.random.default_rng(0).normal(size=(len(words), 8))
    lines = [
        " ".join([word, *(f"{value:.4f}" for value in vector)])
        for word, vector in zip(words, vectors, strict=True)
    ]
    _write(directory / "vectors.txt", lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["nus_wide", "open_images"])
    parser.add_argument("directory", type=pathlib.Path)
    arguments = parser.parse_args()
    write = {"nus_wide": write_nus_wide, "open_images": write_open_images}[arguments.name]
    print(f"{write(arguments.directory)}: written")
    sys.exit(0)
