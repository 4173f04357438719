"""The paper's figures 5 to 8: what is trained for them, and their pictures."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from biam_tf.contact_sheet import make_contact_sheet
from biam_tf.errors import UserError
from biam_tf.files import writing_to
from biam_tf.models.presets import ABLATIONS
from biam_tf.runs import load_run
from training.experiments.trials import mean_and_spread
from training.report import region_features
from training.reproduction.experiments import Entry, TrainedEntry, open_run
from training.reproduction.output import figure_of
from training.reproduction.tables import TITLES, configured_entry, system_entry
from training.scoring.explained_photos import explain_photos, sheet_contents
from training.tables.plots import COLORS, new_figure, new_panels, save_figure

FIGURES = (5, 6, 7, 8)
PHOTOS = 9
# What figure 7 varies. Image sizes give 4x4 to 14x14 regions at a stride of 32.
HEADS, TOP_K, IMAGE_SIZES = (1, 2, 4, 8, 16), (1, 3, 6, 10, 15, 20), (128, 160, 192, 224, 288, 448)
PANELS = {"num_heads": "heads H", "top_k": "k of top-k pooling", "image_size": "regions (side)"}


def figure_entries(number: int) -> dict[str, Entry]:
    """Returns what is trained for a figure, by key."""
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
    """What a figure came to.

    Attributes:
        header: names of the columns of its numbers.
        rows: its numbers, a cell a column.
        pictures: where they are.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    pictures: Sequence[pathlib.Path]


def make_figure(number: int, trained: Mapping[str, TrainedEntry], place: pathlib.Path) -> Figure:
    """Draws a figure of what was trained for it.

    Args:
        number: 5, 6, 7 or 8; the paper's figures 9 to 11 are more of 8.
        trained: the rows of `figure_entries`; those that failed are left out.
        place: the pictures' path without an ending.

    Raises:
        UserError: there are too few photos for figure 6.
    """
    whole = {key: row for key, row in trained.items() if not row.error}
    if number == 5:
        return _pooled_against_regions(whole, place.with_suffix(".png"))
    if number == 6:
        return _region_features(whole, place.with_suffix(".png"))
    if number == 7:
        return _sweeps(whole, place.with_suffix(".png"))
    return _sheets(whole, place)


def _varied(setting: str) -> Entry:
    return Entry(setting.partition(".")[2], (setting,))


def _pooled_against_regions(rows, path: pathlib.Path) -> Figure:
    """Figure 5: ZSL mAP and F1 of pooled and of region-based classification."""
    first = next(iter(rows.values())).metrics[0]
    names = ["mAP", *sorted(name for name in first["zsl"] if name.startswith("F1@"))]
    values = {
        key: [[figure_of(metrics, "zsl", name) for metrics in row.metrics] for name in names]
        for key, row in rows.items()
    }
    figure, axes = new_figure(7.0, 4.0)
    width = 0.8 / len(rows)
    for number, (key, row) in enumerate(rows.items()):
        means = [np.mean(own) for own in values[key]]
        spread = [np.std(own, ddof=1) if len(own) > 1 else 0.0 for own in values[key]]
        x = np.arange(len(names)) + width * (number - (len(rows) - 1) / 2)
        bars = axes.bar(x, means, 0.95 * width, yerr=spread, color=COLORS[number], alpha=0.85)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        bars.set_label(row.entry.title)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set_ylabel("ZSL, per cent")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(rows))
    save_figure(figure, path)
    cells = [[row.entry.title, *map(mean_and_spread, values[key])] for key, row in rows.items()]
    return Figure(["ZSL, per cent", *names], cells, [path])


def _region_features(rows, path: pathlib.Path) -> Figure:
    """Figure 6: t-SNE of pooled features beside that of each photo's strongest region."""
    figure, planes = new_panels(len(rows), 11.0, 4.6)
    cells = []
    for row, plane in zip(rows.values(), planes, strict=True):
        opened = open_run(row.folders[0])
        vocabulary = opened.vocabulary
        gathered = region_features.gather(opened.run, opened.split, vocabulary, opened.source)
        if gathered is None:
            raise UserError(
                "figure 6 shows photos with exactly one of several classes, and of this data set's "
                "final split there are too few"
            )
        seed = opened.run.settings["training"]["seed"]
        # A head that pools first has one feature a photo, as if that were its only region.
        points = region_features.to_plane(gathered.strongest, seed)
        alike = region_features.neighbours_alike(gathered.strongest, gathered.members)
        names = [vocabulary.names[c] for c in gathered.classes]
        for member, name in enumerate(names):
            own = points[gathered.members == member]
            plane.scatter(*own.T, s=14, label=name, color=f"C{member}")
        plane.set_title(row.entry.title, fontsize=10)
        plane.set_xticks([])
        plane.set_yticks([])
        cells.append([row.entry.title, str(len(points)), f"{100 * alike:.0f}"])
    plane.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)
    header = ["features", "photos", "nearest neighbour of the same class, per cent"]
    return Figure(header, cells, [path])


def _sweeps(rows, path: pathlib.Path) -> Figure:
    """Figure 7: ZSL mAP against heads, k and regions."""
    figure, planes = new_panels(len(PANELS), 12.0, 3.8)
    cells = []
    for plane, (setting, label) in zip(planes, PANELS.items(), strict=True):
        own = {key: row for key, row in rows.items() if key.startswith(f"{setting}-")}
        numbers = [int(key.rpartition("-")[2]) for key in own]
        if setting == "image_size":
            numbers = [_grid_side(row.folders[0]) for row in own.values()]
        for part, color in (("zsl", COLORS[0]), ("gzsl", COLORS[1])):
            values = [[figure_of(m, part, "mAP") for m in row.metrics] for row in own.values()]
            means = np.array([np.mean(v) for v in values])
            spread = np.array([np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values])
            plane.plot(numbers, means, "o-", color=color, label=part.upper())
            plane.fill_between(numbers, means - spread, means + spread, color=color, alpha=0.15)
        plane.set_xticks(numbers)
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
    return Figure(["varied", "value", "ZSL mAP", "GZSL mAP"], cells, [path])


def _sheets(rows, place: pathlib.Path) -> Figure:
    """Figures 8 to 11: the same photos with each system's top tags and response maps."""
    pictures, cells = [], []
    for key, row in rows.items():
        opened = open_run(row.folders[0])
        split, vocabulary = opened.split, opened.vocabulary
        models = opened.run.backbone, opened.run.head
        explained = explain_photos(*models, opened.dataset, split, vocabulary, PHOTOS)
        path = place.with_name(f"{place.name}-{key}.png")
        contents = sheet_contents(explained, split, vocabulary)
        sheet = make_contact_sheet(**contents, columns=3, title=row.entry.title)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(path)
        pictures.append(path)
        cells.append([row.entry.title, *_right_of_top(contents["scores"], contents["labels"])])
    return Figure(["system", "right of the top 3", "right of the top 5"], cells, pictures)


def _right_of_top(scores, labels) -> list[str]:
    order = np.argsort(-scores, axis=1)
    right = np.take_along_axis(labels > 0, order, axis=1)
    return [f"{right[:, :k].sum()} of {right[:, :k].size}" for k in (3, 5)]


def _grid_side(folder: pathlib.Path) -> int:
    return load_run(folder).backbone.output["region_features"].shape[1]
