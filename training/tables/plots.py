"""Plots as PNG files, where matplotlib (the extra `report`) is installed."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from biam_tf.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "pip install 'biam-tf[report]', or pip install matplotlib"
# Of a letter of 10 points.
_LETTER_INCHES = 0.085
COLORS = ("#3867d6", "#d95d4a", "#2a9d5c")


def can_plot(plot: pathlib.Path) -> bool:
    """Tells whether `plot` can be drawn; if not, prints how to make it possible."""
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    print(
        f"{plot} will not be drawn: matplotlib is not installed ({INSTALL}); the tables are "
        "written without it",
        flush=True,
    )
    return False


def new_figure(width: float = 7.0, height: float = 4.5) -> tuple[Figure, Axes]:
    """Returns a matplotlib figure, sized in inches, and its axes; needs no window system."""
    figure, (axes,) = new_panels(1, width, height)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def new_panels(
    columns: int, width: float, height: float, rows: int = 1, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Returns a matplotlib figure, sized in inches, and the axes of its panels, row by row."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, sharey=sharey, squeeze=False).flat)


def means_and_deviations(values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and standard deviation (n - 1; 0 of a single value) of each sequence.

    Values that are NaN are left out; the mean of no other is NaN, and is not drawn.
    """
    kept = [[value for value in own if not np.isnan(value)] for own in values]
    means = np.array([np.mean(own) if own else np.nan for own in kept])
    return means, np.array([np.std(own, ddof=1) if len(own) > 1 else 0.0 for own in kept])


def tick_positions(
    values: Sequence[float], labels: Sequence[str], inches: float
) -> tuple[list[float], Literal["linear", "log"]]:
    """Returns where to draw values on an axis so that their labels do not overlap, and its scale.

    The positions are the values where there is room for all labels, on a logarithmic scale if the
    values span more than a factor of 8; else their ranks.

    Args:
        values: ascending.
        labels: of the values.
        inches: length of the axis.
    """
    x = [float(value) for value in values]
    is_log = x[0] > 0 and x[-1] / x[0] > 8
    across = np.log(x) if is_log else np.array(x)
    span = float(across[-1] - across[0])
    widths = np.array([_LETTER_INCHES * (len(label) + 1) for label in labels])
    needed = (widths[1:] + widths[:-1]) / 2
    if span and (np.diff(across) / span * inches < needed).any():
        return [float(rank) for rank in range(len(x))], "linear"
    return x, "log" if is_log else "linear"


def draw_line_with_spread(
    axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], label: str, color: str
) -> None:
    """Draws a line through the means of `values`, and a band one standard deviation wide."""
    means, deviations = means_and_deviations(values)
    axes.plot(x, means, "o-", color=color, label=label)
    low, high = means - deviations, means + deviations
    axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)


def save_figure(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure as PNG; raises as `biam_tf.files.replacing` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=144)
