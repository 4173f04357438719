"""What a plot shows: the numbers that were drawn, and whether its file is a picture of anything."""

import pathlib

import numpy as np
from PIL import Image


def drawn_numbers(figure) -> np.ndarray:
    """Returns coordinates of points and lines, sizes of bars and values of heat maps."""
    found = []
    for axes in figure.axes:
        for line in axes.lines:
            found += [*line.get_xdata(), *line.get_ydata()]
        for bar in axes.patches:
            found += [bar.get_width(), bar.get_height()] if hasattr(bar, "get_width") else []
        for points in axes.collections:
            found += [*np.ravel(points.get_offsets())]
        for image in axes.images:
            found += [*np.ravel(np.ma.filled(image.get_array(), np.nan))]
    return np.array(found, float)


def assert_drawn(figure, *values: float) -> None:
    """Checks that every one of `values` is drawn in a figure."""
    numbers = drawn_numbers(figure)
    for value in values:
        assert np.isclose(numbers, value, rtol=1e-3, atol=1e-9).any(), (value, numbers)


def assert_picture(path: pathlib.Path, side: int = 200) -> None:
    """Checks that a file is a picture of at least `side` pixels each way, in several colors."""
    with Image.open(path) as picture:
        picture.load()
        assert min(picture.size) >= side, picture.size
        colors = picture.convert("RGB").getcolors(picture.width * picture.height)
    assert len(colors) > 10, f"{path}: {len(colors)} colors"


def assert_labels_apart(figure) -> None:
    """Checks that no two texts of a figure overlap, as it is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
    boxes = [(text, box.shrunk(0.96, 0.9)) for text, box in boxes if box.width and box.height]
    for i, (one, box) in enumerate(boxes):
        for other, its in boxes[:i]:
            assert not box.overlaps(its), f"{one!r} overlaps {other!r}"
