"""The paper's figures 5 to 8: their entries and pictures."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from biam_tf.contact_sheet import make_contact_sheet
from biam_tf.errors import UserError
from biam_tf.files import replacing
from biam_tf.models.presets import ABLATIONS
from biam_tf.runs import load_run
from training.report import region_features
from training.reproduction.entries import Entry, TrainedEntry, open_run
from training.reproduction.paper_tables import TITLES, configured_entry, system_entry
from training.reproduction.results import figure_of
from training.scoring.explained_photos import explain_photos, sheet_contents
from training.tables.plots import (
    COLORS,
    draw_line_with_spread,
    means_and_deviations,
    new_figure,
    new_panels,
    save_figure,
    tick_positions,
)
from training.tables.table import Table, mean_and_spread

FIGURES = (5, 6, 7, 8)
PHOTOS = 9
PANEL_INCHES = 3.3  # width of a panel's axes in figure 7
# The values in figure 7. With a stride of 32, the image sizes give 4x4 to 14x14 regions.
HEADS, TOP_K, IMAGE_SIZES = (1, 2, 4, 8, 16), (1, 3, 6, 10, 15, 20), (128, 160, 192, 224, 288, 448)
Rows = Mapping[str, TrainedEntry]
PANELS = {"num_heads": "heads H", "top_k": "k of top-k pooling", "image_size": "regions (side)"}


def figure_entries(number: int) -> dict[str, Entry]:
    """Returns the rows of a figure, by key."""
    if number == 7:
        return {
            **{f"num_heads-{v}": _varied(f"head.num_heads={v}") for v in HEADS},
            **{f"top_k-{v}": _varied(f"head.top_k={v}") for v in TOP_K},
            **{f"image_size-{v}": _varied(f"backbone.image_size={v}") for v in IMAGE_SIZES},
        }
    key = "standard_region_features" if number == 8 else "pooled_classification"
    changes = tuple(f"head.{name}={value}" for name, value in ABLATIONS[key].items())
    entries = {key: Entry(TITLES[key], changes)}
    if number == 8:
        entries["lesa"] = dataclasses.replace(system_entry("lesa"), candidates=())
    return entries | {"biam": configured_entry()}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the paper.

    Attributes:
        table: its numbers.
        pictures: their files.
    """

    table: Table
    pictures: Sequence[pathlib.Path]


def make_figure(number: int, trained: Mapping[str, TrainedEntry], path: pathlib.Path) -> Figure:
    """Draws a figure.

    Args:
        number: 5, 6, 7 or 8; the paper's figures 9 to 11 are like 8.
        trained: the rows of `figure_entries`; failed ones are left out.
        path: of the pictures, without a suffix.

    Raises:
        UserError: there are too few photos for figure 6.
    """
    whole = {key: row for key, row in trained.items() if not row.error}
    if number == 5:
        return _pooled_against_regions(whole, path.with_suffix(".png"))
    if number == 6:
        return _region_features(whole, path.with_suffix(".png"))
    if number == 7:
        return _sweeps(whole, path.with_suffix(".png"))
    return _sheets(whole, path)


def _varied(setting: str) -> Entry:
    return Entry(setting.partition(".")[2], (setting,))


def _pooled_against_regions(rows: Rows, path: pathlib.Path) -> Figure:
    """Figure 5: ZSL mAP and F1 of pooled and region-based classification."""
    first = next(iter(rows.values())).metrics[0]
    names = ["mAP", *sorted(name for name in first["zsl"] if name.startswith("F1@"))]
    values = {
        key: [[figure_of(metrics, "zsl", name) for metrics in row.metrics] for name in names]
        for key, row in rows.items()
    }
    figure, axes = new_figure(7.0, 4.0)
    width = 0.8 / len(rows)
    for number, (key, row) in enumerate(rows.items()):
        means, deviations = means_and_deviations(values[key])
        x = np.arange(len(names)) + width * (number - (len(rows) - 1) / 2)
        bars = axes.bar(x, means, 0.95 * width, yerr=deviations, color=COLORS[number], alpha=0.85)
        labels = ["-" if np.isnan(mean) else f"{mean:.1f}" for mean in means]
        axes.bar_label(bars, labels=labels, padding=2, fontsize=8)
        bars.set_label(row.entry.title)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set_ylabel("ZSL, per cent")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(rows))
    save_figure(figure, path)
    cells = [[row.entry.title, *map(mean_and_spread, values[key])] for key, row in rows.items()]
    return Figure(Table("", ["ZSL, per cent", *names], cells), [path])


def _region_features(rows: Rows, path: pathlib.Path) -> Figure:
    """Figure 6: t-SNE of pooled features and of each photo's strongest region."""
    figure, planes = new_panels(len(rows), 11.0, 4.6)
    cells = []
    for row, plane in zip(rows.values(), planes, strict=True):
        opened = open_run(row.folders[0])
        vocabulary = opened.vocabulary
        gathered = region_features.gather(opened.run, opened.split, vocabulary, opened.source)
        if gathered is None:
            raise UserError(
                "figure 6 needs photos that show exactly one of several classes; the data set's "
                "final split has too few"
            )
        seed = opened.run.settings["training"]["seed"]
        # A head that pools first has one feature per photo, treated as its only region.
        points = region_features.to_plane(gathered.strongest, seed)
        share = region_features.share_of_like_neighbors(gathered.strongest, gathered.members)
        names = [vocabulary.names[c] for c in gathered.classes]
        for member, name in enumerate(names):
            own = points[gathered.members == member]
            plane.scatter(own[:, 0], own[:, 1], s=14, label=name, color=f"C{member}")
        plane.set_title(row.entry.title, fontsize=10)
        plane.set_xticks([])
        plane.set_yticks([])
        cells.append([row.entry.title, str(len(points)), f"{100 * share:.0f}"])
    plane.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)
    header = ["features", "photos", "nearest neighbor of the same class, per cent"]
    return Figure(Table("", header, cells), [path])


def _sweeps(rows: Rows, path: pathlib.Path) -> Figure:
    """Figure 7: ZSL mAP over heads, k and regions."""
    figure, planes = new_panels(len(PANELS), 12.0, 3.8)
    cells = []
    for plane, (setting, label) in zip(planes, PANELS.items(), strict=True):
        own = {key: row for key, row in rows.items() if key.startswith(f"{setting}-")}
        numbers = [int(key.rpartition("-")[2]) for key in own]
        if setting == "image_size":
            numbers = [_grid_side(row.folders[0]) for row in own.values()]
        labels = [str(number) for number in numbers]
        x, scale = tick_positions(numbers, labels, PANEL_INCHES)
        for part, color in (("zsl", COLORS[0]), ("gzsl", COLORS[1])):
            values = [[figure_of(m, part, "mAP") for m in row.metrics] for row in own.values()]
            draw_line_with_spread(plane, x, values, part.upper(), color)
        plane.set_xscale(scale)
        plane.set_xticks(x, labels)
        plane.minorticks_off()
        plane.set_xlabel(label)
        plane.set_ylabel("mAP, per cent")
        plane.grid(alpha=0.25)
        plane.legend(frameon=False)
        cells += [
            [
                label,
                str(number),
                *(
                    mean_and_spread([figure_of(m, part, "mAP") for m in row.metrics])
                    for part in ("zsl", "gzsl")
                ),
            ]
            for number, row in zip(numbers, own.values(), strict=True)
        ]
    save_figure(figure, path)
    return Figure(Table("", ["varied", "value", "ZSL mAP", "GZSL mAP"], cells), [path])


def _sheets(rows: Rows, stem: pathlib.Path) -> Figure:
    """Figures 8 to 11: the same photos with each system's top tags and response maps."""
    pictures, cells = [], []
    for key, row in rows.items():
        opened = open_run(row.folders[0])
        split, vocabulary = opened.split, opened.vocabulary
        models = opened.run.backbone, opened.run.head
        explained = explain_photos(
            *models, opened.dataset, split, vocabulary, PHOTOS, opened.run.orientation
        )
        path = stem.with_name(f"{stem.name}-{key}.png")
        contents = sheet_contents(explained, opened.dataset, split, vocabulary)
        sheet = make_contact_sheet(**contents, columns=3, title=row.entry.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            sheet.save(partial)
        pictures.append(path)
        cells.append([row.entry.title, *_right_of_top(contents["scores"], contents["labels"])])
    return Figure(
        Table("", ["system", "right of the top 3", "right of the top 5"], cells), pictures
    )


def _right_of_top(scores: np.ndarray, labels: np.ndarray) -> list[str]:
    order = np.argsort(-scores, axis=1)
    right = np.take_along_axis(labels > 0, order, axis=1)
    return [f"{right[:, :k].sum()} of {right[:, :k].size}" for k in (3, 5)]


def _grid_side(folder: pathlib.Path) -> int:
    return load_run(folder).backbone.output["region_features"].shape[1]
