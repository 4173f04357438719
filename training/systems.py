"""Several systems on one footing: the same settings, several seeds, one table."""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from biam_tf.models.presets import ABLATIONS, PRESETS
from training.config import load_config
from training.pipeline import run
from training.run_folder import write_text

# Column of the table, and where metrics.json has it.
FIGURES = {
    "ZSL mAP": ("zsl", "mAP"),
    "ZSL F1@3": ("zsl", "F1@3", "f1"),
    "ZSL F1@5": ("zsl", "F1@5", "f1"),
    "GZSL mAP": ("gzsl", "mAP"),
    "GZSL F1@3": ("gzsl", "F1@3", "f1"),
    "GZSL F1@5": ("gzsl", "F1@5", "f1"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Figures of one system.

    Attributes:
        system: its name in the table.
        values: for each column of `FIGURES`, per cent, one for each seed.
    """

    system: str
    values: Mapping[str, Sequence[float]]


def table_3() -> dict[str, dict]:
    """Returns the systems of the paper's table 3 and figure 5, as changes to the head."""
    names = {
        "standard_region_features": "standard region features",
        "region_context_alone": "region context alone (RCB)",
        "scene_context_alone": "scene context alone (SCB)",
        "pooled_classification": "BiAM, pooled features classified",
    }
    systems = {names[name]: dict(ABLATIONS[name]) for name in names}
    own = ("fused_channels", "fusion_activation", "top_k")
    for preset, name in (("released", "released form"), ("paper", "the paper's equations")):
        form = {key: getattr(PRESETS[preset], key) for key in own}
        form = {key: "null" if value is None else value for key, value in form.items()}
        systems[f"BiAM, {name}"] = {"preset": preset, **form}
    return systems | {"BiAM, as configured": {}}


def run_systems(
    systems: Mapping[str, Mapping],
    config: str | None,
    settings: Sequence[str],
    output: pathlib.Path,
    seeds: int,
) -> list[Row]:
    """Trains and evaluates each system with the seeds 0 to `seeds` - 1, or reads what is done.

    Args:
        systems: changes to the `head` section, by the system's name.
        config: YAML file that all share, or `None`.
        settings: `key=value` overrides that all share.
        output: each run gets a folder below it.
        seeds: trainings of each system.

    Raises:
        UserError: a setting or the data cannot be used.
    """
    rows = []
    for number, (system, changes) in enumerate(systems.items(), start=1):
        values = {name: [] for name in FIGURES}
        for seed in range(seeds):
            print(f"=== {number}/{len(systems)} {system}, seed {seed}", flush=True)
            own = [f"head.{key}={value}" for key, value in changes.items()]
            folder = output / f"{_slug(system)}-{seed}"
            own += [f"training.seed={seed}", f"output={folder}"]
            metrics = run(load_config(config, [*settings, *own]))
            keras.backend.clear_session()
            for name, keys in FIGURES.items():
                figure = metrics
                for key in keys:
                    figure = None if figure is None else figure[key]
                values[name].append(float("nan") if figure is None else 100 * figure)
        rows.append(Row(system, values))
    return rows


def write_table(rows: Sequence[Row], output: pathlib.Path) -> str:
    """Writes table.md (mean ± standard deviation) and table.csv (every seed); returns the former.

    The standard deviation is that of the seeds, with n - 1; one seed has none.
    """
    header = f"| per cent | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}\n"
    lines = []
    for row in rows:
        cells = []
        for values in row.values.values():
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        lines.append(f"| {row.system} | {' | '.join(cells)} |\n")
    text = header + "".join(lines)
    write_text(output / "table.md", text)

    aside = output / ".table.csv.partial"
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "seed", *FIGURES])
        for row in rows:
            for seed, figures in enumerate(zip(*row.values.values(), strict=True)):
                writer.writerow([row.system, seed, *(f"{figure:.3f}" for figure in figures)])
    aside.replace(output / "table.csv")
    return text


def _slug(system: str) -> str:
    letters = (c if c.isalnum() else "-" for c in system.lower())
    return "-".join(part for part in "".join(letters).split("-") if part)
