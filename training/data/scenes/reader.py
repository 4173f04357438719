"""The scenes data set: generated pictures of two to four objects.

A class is a combination of attributes such as "red striped circle", and its embedding is its
attribute vector, so that classes without training pictures can be recognized by their attributes.
The pictures are stored and read as a folder data set.
"""

import csv
import dataclasses
import itertools
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import folder_beside, writing_to
from biam_tf.shape_painter import (
    COLORS,
    OBJECT_CLASSES,
    SHAPES,
    TEXTURES,
    Box,
    ObjectClass,
    paint,
)
from training.config.typed_yaml import Range
from training.data.dataset import SEEN, UNSEEN, TaggingDataset
from training.data.folder.reader import ANNOTATIONS, CLASSES, read_folder
from training.data.source import DataSource, ReadRequest

VERSION = 1  # increment when the same seed gives different pictures
ATTRIBUTES = (*COLORS, *TEXTURES, *SHAPES)
CLASS_ATTRIBUTES, BOXES, SETTINGS = "class_attributes.csv", "boxes.csv", "scenes.json"


class _Picture(NamedTuple):
    image: str
    split: str
    classes: tuple[ObjectClass, ...]
    boxes: tuple[Box, ...]


def unseen_classes(seed: int) -> frozenset[ObjectClass]:
    """Returns the third of the classes that does not occur in training pictures.

    Six pairs of color and shape are unseen with both textures, twelve more with one of them. Of
    each color and each shape 4 of 12 classes are unseen, of each texture 12 of 36, so that all
    attributes of a kind have the same number of seen classes.
    """
    rng = np.random.default_rng([seed, 0])
    colors, shapes = rng.permutation(COLORS), rng.permutation(SHAPES)
    unseen_textures = {0: TEXTURES, 1: TEXTURES[:1], 2: TEXTURES[1:]}
    return frozenset(
        ObjectClass(str(color), texture, str(shape))
        for (i, color), (j, shape) in itertools.product(enumerate(colors), enumerate(shapes))
        for texture in unseen_textures.get((i + j) % len(SHAPES), ())
    )


def draw_scenes(
    directory: str | os.PathLike,
    pictures: int = 3000,
    seed: int = 0,
    image_size: int = 96,
    progress: Callable[[int, int], None] | None = None,
) -> pathlib.Path:
    """Generates the data set, unless it exists.

    Training and validation pictures hold seen classes only; in test pictures all classes are
    equally likely. In addition to the files of a folder data set, this writes
    `class_attributes.csv` (the class embeddings) and `boxes.csv` (image, class, x0, y0, x1, y1 in
    pixels, one row per object).

    Args:
        directory: the folder to create.
        pictures: number of training pictures; there are a tenth as many validation pictures and a
            fifth as many test pictures.
        seed: seed of the pictures.
        image_size: side of the square pictures in pixels.
        progress: called with (pictures done, total pictures).

    Returns:
        `directory`.

    Raises:
        UserError: the folder exists with other contents; it is not changed.
    """
    directory = pathlib.Path(directory)
    settings = {"version": VERSION, "pictures": pictures, "seed": seed, "image_size": image_size}
    if directory.exists():
        _check_drawn(directory, settings)
        return directory
    with writing_to(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(directory) as aside:
        with writing_to(directory):
            _draw_into(aside, settings, progress)
        try:
            aside.rename(directory)
        except OSError:  # another run has created it meanwhile
            _check_drawn(directory, settings)
    return directory


def _check_drawn(directory: pathlib.Path, settings: dict[str, Any]) -> None:
    advice = "nothing was changed; use another folder, or remove this one"
    try:
        found = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{directory}: {_what_it_is(directory)}; {advice}") from None
    if found != settings:
        raise UserError(
            f"{directory}: holds scenes drawn with {_in_words(found)}, "
            f"not with {_in_words(settings)}; {advice}"
        )


def is_photo_folder(directory: str | os.PathLike) -> bool:
    """Whether a folder holds labeled photos of others, and no drawn pictures."""
    folder = pathlib.Path(directory)
    return (folder / ANNOTATIONS).is_file() and not (folder / SETTINGS).is_file()


def _what_it_is(directory: pathlib.Path) -> str:
    if is_photo_folder(directory):
        return (
            "holds labeled photos, but data.name is scenes, the drawn pictures of the quickstart; "
            "give --config recommended, or another configuration with data.name: folder"
        )
    return f"exists, but holds no scenes data set ({SETTINGS} is missing or broken)"


def _in_words(settings: Any) -> str:
    if not isinstance(settings, dict):
        return repr(settings)
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _draw_into(
    directory: pathlib.Path,
    settings: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    (directory / "images").mkdir()
    unseen = unseen_classes(settings["seed"])
    seen = [object_class for object_class in OBJECT_CLASSES if object_class not in unseen]
    splits = [
        split
        for split, share in (("train", 1), ("val", 10), ("test", 5))
        for _ in range(max(settings["pictures"] // share, 1))
    ]

    drawn = []
    for number, split in enumerate(splits):
        # One generator per picture, so that it does not depend on the other pictures.
        rng = np.random.default_rng([settings["seed"], number + 1])
        choice = OBJECT_CLASSES if split == "test" else seen
        drawn.append(_draw(directory, rng, number, split, choice, settings["image_size"]))
        if progress:
            progress(len(drawn), len(splits))
    _write_tables(directory, drawn, unseen)
    (directory / SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _draw(
    directory: pathlib.Path,
    rng: np.random.Generator,
    number: int,
    split: str,
    choice: Sequence[ObjectClass],
    size: int,
) -> _Picture:
    image = f"images/{number:05d}.png"
    positions = rng.choice(len(choice), rng.integers(2, 4, endpoint=True), replace=False)
    classes = tuple(choice[position] for position in positions)
    picture, boxes = paint(rng, size, classes)
    # For noise this is faster than the default, and no larger.
    picture.save(directory / image, compress_level=1, compress_type=zlib.Z_HUFFMAN_ONLY)
    return _Picture(image, split, classes, tuple(boxes))


def _write_tables(
    directory: pathlib.Path, drawn: Iterable[_Picture], unseen: frozenset[ObjectClass]
) -> None:
    def write(file: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        with (directory / file).open("w", newline="", encoding="utf-8") as table:
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)

    write(
        ANNOTATIONS,
        ("image", "split", "labels"),
        ((p.image, p.split, ";".join(c.name for c in p.classes)) for p in drawn),
    )
    write(
        CLASSES,
        ("name", "group"),
        ((c.name, UNSEEN if c in unseen else SEEN) for c in OBJECT_CLASSES),
    )
    write(
        CLASS_ATTRIBUTES,
        ("name", *ATTRIBUTES),
        ((c.name, *(int(attribute in c) for attribute in ATTRIBUTES)) for c in OBJECT_CLASSES),
    )
    write(
        BOXES,
        ("image", "class", "x0", "y0", "x1", "y1"),
        ((p.image, c.name, *box) for p in drawn for c, box in zip(p.classes, p.boxes, strict=True)),
    )


@dataclasses.dataclass(frozen=True)
class ScenesSettings:
    """The settings of the scenes data set.

    Attributes:
        pictures: number of training pictures.
        seed: seed of the pictures.
    """

    pictures: Annotated[int, Range(at_least=1)] = 3000
    seed: Annotated[int, Range(at_least=0, below=2**32)] = 0

    @property
    def directory(self) -> pathlib.Path:
        """Default folder; its name contains the settings that determine the pictures."""
        return pathlib.Path("data") / f"scenes-{self.pictures}-seed{self.seed}"


def _read(request: ReadRequest) -> TaggingDataset:
    settings: ScenesSettings = request.settings
    directory = request.directory or settings.directory
    draw_scenes(directory, settings.pictures, settings.seed, progress=request.progress)
    dataset = read_folder(directory, request.missing_is_error)
    # Pictures of splits train and val are drawn with seen classes alone.
    about = dataclasses.replace(dataset.about, unseen_in_training=False)
    return dataclasses.replace(dataset, about=about)


SCENES = DataSource(
    "scenes",
    _read,
    ScenesSettings,
    work=("drawing pictures", "picture"),
    default_directory=lambda settings: settings.directory,
)
