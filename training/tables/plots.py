"""Plots as PNG files, where matplotlib (the extra `report`) is installed."""

import importlib.util
import pathlib

INSTALL = 'pip install "biam-tf[report]", or pip install matplotlib'
COLORS = ("#3867d6", "#d95d4a", "#2a9d5c")


def can_plot(plot: pathlib.Path) -> bool:
    """Tells whether `plot` can be drawn; if not, says at once how it could be."""
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    print(
        f"{plot} will not be drawn: matplotlib is not installed ({INSTALL}); tables are "
        "written all the same",
        flush=True,
    )
    return False


def new_figure(width: float = 7.0, height: float = 4.5):
    """Returns a matplotlib figure of so many inches and its axes; no window system is used."""
    figure, (axes,) = new_panels(1, width, height)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def new_panels(count: int, width: float, height: float, sharey: bool = False):
    """Returns a matplotlib figure of so many inches and the axes of its panels, side by side."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots(1, count, sharey=sharey, squeeze=False)[0]


def save_figure(figure, path: pathlib.Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.partial{path.suffix}")
    figure.savefig(aside, dpi=144)
    aside.replace(path)
