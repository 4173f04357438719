"""Pictures of a description: class frequencies, and near-duplicates side by side."""

import pathlib
from collections.abc import Sequence

from PIL import Image, ImageDraw

from biam_tf.files import writing_to
from training.description.duplicates import Pair
from training.description.labels import LabelFacts
from training.tables.plots import COLORS, new_figure, save_figure

PAIRS_ON_SHEET = 40
_SIDE, _MARGIN, _TEXT, _COLUMNS = 150, 10, 32, 4


def plot_class_frequency(labels: LabelFacts, path: pathlib.Path) -> None:
    """Draws how many photos show each class, most frequent first, in a logarithmic scale."""
    figure, axes = new_figure(9.0, 4.5)
    ranked = sorted(labels.classes, key=lambda c: -c.total)
    for group, color in zip(("seen", "unseen"), COLORS, strict=False):
        places = [place for place, c in enumerate(ranked) if c.group == group]
        counts = [ranked[place].total for place in places]
        axes.bar(places, counts, width=1.0, color=color, label=f"{group} ({len(places)})")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("classes, most frequent first")
    axes.set_ylabel("photos, all splits")
    axes.legend()
    with writing_to(path):
        save_figure(figure, path)


def draw_pairs(directory: pathlib.Path, pairs: Sequence[Pair], path: pathlib.Path) -> None:
    """Draws the first pairs side by side, with their splits, names and distance, as PNG."""
    pairs = pairs[:PAIRS_ON_SHEET]
    columns = min(_COLUMNS, len(pairs))
    width, height = 2 * _SIDE + 3 * _MARGIN, _SIDE + _TEXT + 2 * _MARGIN
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, pair in enumerate(pairs):
        left, top = place % columns * width + _MARGIN, place // columns * height + _MARGIN
        for side, image in enumerate(pair.images):
            with Image.open(directory / image) as photo:
                small = photo.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            corner = left + side * (_SIDE + _MARGIN)
            sheet.paste(small, (corner, top))
            text = f"{pair.splits[side]}: {pathlib.PurePosixPath(image).name}"
            draw.text((corner, top + _SIDE + 2), text[:26], fill="black")
        apart = "same file" if pair.same_file else f"{pair.distance} bits apart"
        draw.text((left, top + _SIDE + 16), apart, fill="#b03020" if pair.crosses else "#555555")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.partial")
        sheet.save(aside, "PNG")
        aside.replace(path)
