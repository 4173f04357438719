"""Several systems on one footing: the same settings, several seeds, one table."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from biam_tf.models.presets import ABLATIONS, PRESETS
from training.run_folder import write_text
from training.trials import (
    FIGURES,
    Comparison,
    Trial,
    markdown_table,
    mean_and_spread,
    run_trials,
    write_csv,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """Figures of one system.

    Attributes:
        system: its name in the table.
        seeds: of its trainings.
        values: for each column of `FIGURES`, per cent, one for each seed.
    """

    system: str
    seeds: Sequence[int]
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
    """Trains and evaluates each system with several seeds, or reads what is done.

    Args:
        systems: changes to the `head` section, by the system's name.
        config: YAML file that all share, or `None`.
        settings: `key=value` overrides that all share.
        output: each run gets a folder below it.
        seeds: trainings of each system, with the configured seed and those after it.

    Raises:
        UserError: a setting or the data cannot be used.
    """
    trials = [
        Trial(system, _slug(system), tuple(f"head.{key}={value}" for key, value in changes.items()))
        for system, changes in systems.items()
    ]
    comparison = Comparison(config, tuple(settings), output, seeds)
    outcomes = run_trials(trials, comparison)
    return [
        Row(
            trial.name,
            comparison.seed_numbers(),
            {name: [o.test[name] for o in outcomes if o.trial == trial] for name in FIGURES},
        )
        for trial in trials
    ]


def write_table(rows: Sequence[Row], output: pathlib.Path) -> str:
    """Writes table.md (mean ± standard deviation) and table.csv (every seed); returns the former.

    The standard deviation is that of the seeds, with n - 1; one seed has none.
    """
    text = markdown_table(
        ["per cent", *FIGURES],
        [[row.system, *map(mean_and_spread, row.values.values())] for row in rows],
    )
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "table.md", text)
    write_csv(
        output / "table.csv",
        ["system", "seed", *FIGURES],
        [
            [row.system, seed, *figures]
            for row in rows
            for seed, *figures in zip(row.seeds, *row.values.values(), strict=True)
        ],
    )
    return text


def _slug(system: str) -> str:
    letters = (c if c.isalnum() else "-" for c in system.lower())
    return "-".join(part for part in "".join(letters).split("-") if part)
