"""Reads a run's settings from a YAML file and `--set`, and checks their combinations."""

import copy
import dataclasses
import pathlib
import typing
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from biam_tf.errors import UserError, did_you_mean
from biam_tf.metrics.cuts import parse_target
from training.config.effects import as_early_runs, refuse_settings_without_effect
from training.config.schema import DataConfig, HeadConfig, LossConfig, RunConfig, TrainingConfig
from training.config.typed_yaml import Settings
from training.data.source import DataSource

# The contents of configs/quickstart.yaml, for packages installed without that file.
QUICKSTART = {
    "head": {"channels": 64, "num_heads": 4},
    "training": {"epochs": 5, "optimizer": {"learning_rate": 2e-3}},
}


def load_config(path: str | pathlib.Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a run's settings.

    Args:
        path: a YAML file, or the name of a configuration that comes with the project
            (`shipped_configurations`); None is the quickstart.
        overrides: `a.b.c=value` each, applied in this order; text is taken as it is, other
            values are read as YAML.

    Raises:
        UserError: the file or an override is wrong; the message names the file or the `--set`
            option, the key path and the value, and how to correct it.
    """
    if path is None:
        settings = Settings(copy.deepcopy(QUICKSTART), "the quickstart")
    else:
        settings = Settings.read(_configuration_file(path))
    for override in overrides:
        settings.override(override)
    values = dict(settings.section(settings.values, "", _field_names(RunConfig)))
    head = values.pop("head", None)
    is_resolved = _is_resolved(settings)
    data = _build_data_config(settings, values.pop("data", None), is_resolved)
    config = dataclasses.replace(settings.build(RunConfig, values), data=data)
    _check_backbone(settings, config)
    _check_data(settings, config)
    _check_training(settings, config.training)
    # Last: for the settings of systems other than BiAM, Keras is imported, which takes seconds.
    config = dataclasses.replace(config, head=_build_head_config(settings, head, is_resolved))
    _check_loss(settings, config)
    _check_thresholds(settings, config)
    if is_resolved:
        config = as_early_runs(settings, config)
    refuse_settings_without_effect(settings, config, is_resolved)
    if config.strategy == "multi_worker" and config.logical_cpu_devices > 1:
        settings.fail_combination(
            ["logical_cpu_devices", "strategy"],
            "a worker of strategy: multi_worker has one CPU device; start more workers instead",
        )
    if not config.output.strip():
        settings.fail("output", "expected the path of the run's folder, got an empty text")
    return config


def shipped_configurations() -> dict[str, pathlib.Path]:
    """Returns the configurations that come with the project, by name: `recommended`, ..."""
    package = pathlib.Path(__file__).parents[1]
    # In an installed wheel inside the package, in a checkout beside it.
    folders = (package / "configurations", package.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def _configuration_file(path: str | pathlib.Path) -> pathlib.Path:
    path = pathlib.Path(path)
    shipped = shipped_configurations()
    if path.exists() or path.parent.name not in ("", "configs"):
        return path
    if str(path) in shipped:
        return shipped[str(path)]
    if path.stem in shipped:
        raise UserError(
            f"{path}: no such configuration file; --config {path.stem} takes the configuration "
            "of this name that comes with the project"
        )
    if not path.suffix:
        raise UserError(f"--config {path}: no such file{did_you_mean(str(path), shipped)}")
    return path


def config_to_yaml(config: RunConfig) -> str:
    """Returns every setting as YAML text, which `load_config` reads back to an equal config."""
    return yaml.safe_dump(config_values(config), sort_keys=False, allow_unicode=True)


def config_values(config: RunConfig) -> dict[str, Any]:
    """Returns every setting as plain values, nested by section and key as in a YAML file."""
    from training.data.registry import DATA_SOURCES

    data = config.data
    if data.settings is None:
        data = dataclasses.replace(data, settings=DATA_SOURCES[data.name].settings_type())
    return _plain(dataclasses.replace(config, data=data))


def _plain(value: Any) -> Any:
    if not dataclasses.is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    values: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        plain = _plain(getattr(value, field.name))
        # The settings of what a section names, such as a system's, are keys of that section.
        values |= plain if field.name == "settings" else {field.name: plain}
    return values


def _field_names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _build_head_config(settings: Settings, values: Any, of_a_run: bool) -> HeadConfig:
    from biam_tf.models.systems import SYSTEMS

    name, values = HeadConfig.system, settings.plain(values)
    if isinstance(values, dict):
        name = settings.convert(values.get("system", name), str, "head.system")
    if name not in SYSTEMS:
        settings.fail("head.system", f"unknown system {name!r}{did_you_mean(name, SYSTEMS)}")
    system = SYSTEMS[name]
    hints = typing.get_type_hints(system.settings_type, include_extras=True)
    given = dict(settings.section(values, "head", ["system", "preset", *hints]))
    given.pop("system", None)
    preset = settings.convert(given.pop("preset", "paper"), str, "head.preset")
    if of_a_run and not settings.is_override("head.preset"):
        # Only runs of version 0.1 name a preset, which may have changed since then.
        preset = system.earlier_presets.get(preset, preset)
    if preset not in system.presets:
        hint = did_you_mean(preset, system.presets)
        settings.fail("head.preset", f"unknown preset {preset!r}{hint}")
    if given.keys() == hints.keys() and settings.is_override("head.preset"):
        settings.fail(
            "head.preset",
            f"has no effect on {settings.source}, which contains every setting of the head; set "
            "them one by one, or start from a file that names a preset",
        )
    given = {key: settings.convert(v, hints[key], f"head.{key}") for key, v in given.items()}
    try:
        return HeadConfig(name, system.settings(preset, **given))
    except UserError as error:
        # Its message begins with the name of the setting, which is the key here.
        key, colon, problem = str(error).partition(": ")
        if colon and key in hints:
            settings.fail(f"head.{key}", problem)
        settings.fail("head", str(error))


def _is_resolved(settings: Settings) -> bool:
    """Returns whether these are all settings of a run of version 0.1, as it wrote them.

    They include those of all data sets, whichever one the run used.
    """
    data = settings.plain(settings.values.get("data"))
    return (
        settings.values.keys()
        >= set(_field_names(RunConfig)) - {"logical_cpu_devices", "thresholds"}
        and isinstance(data, dict)
        and data.keys() >= {"name", "directory", "feature_store", "cache", "max_broken_share"}
    )


def _build_data_config(settings: Settings, values: Any, is_resolved: bool) -> DataConfig:
    from training.data.registry import DATA_SOURCES

    name, values = DataConfig.name, settings.plain(values)
    if isinstance(values, dict):
        name = settings.convert(values.get("name", name), str, "data.name")
    if name not in DATA_SOURCES:
        hint = did_you_mean(name, DATA_SOURCES)
        options = ", ".join(DATA_SOURCES)
        settings.fail("data.name", f"expected one of {options}; got {name!r}{hint}")
    source = DATA_SOURCES[name]
    common = typing.get_type_hints(DataConfig, include_extras=True)
    del common["settings"]
    hints = common | typing.get_type_hints(source.settings_type, include_extras=True)
    if isinstance(values, dict):
        others = [other for other in DATA_SOURCES.values() if other is not source]
        values = {
            key: value
            for key, value in values.items()
            if key in hints or not _is_ignored(settings, name, key, value, others, is_resolved)
        }
    given = settings.section(values, "data", hints)
    given = {key: settings.convert(v, hints[key], f"data.{key}") for key, v in given.items()}
    own = {key: given.pop(key) for key in source.settings_names if key in given}
    try:
        made = source.settings_type(**own)
    except UserError as error:
        key, _, problem = str(error).partition(": ")
        settings.fail(f"data.{key}", problem)
    defaults = {field.name: field.default for field in dataclasses.fields(source.settings_type)}
    is_default = dataclasses.asdict(made) == defaults
    return DataConfig(**given, settings=None if is_default else made)


def _is_ignored(
    settings: Settings,
    name: str,
    key: str,
    value: Any,
    others: Iterable[DataSource],
    is_resolved: bool,
) -> bool:
    """Returns whether a key is the setting of another data set that an earlier run wrote.

    Configurations of earlier runs list the settings of all data sets.

    Raises:
        UserError: it is such a setting, but not at its default and not in the file of a run.
    """
    for source in others:
        if key in source.settings_names:
            written_by_run = is_resolved and not settings.is_override(f"data.{key}")
            if settings.plain(value) != getattr(source.settings_type, key) and not written_by_run:
                settings.fail_combination(
                    [f"data.{key}", "data.name"],
                    f"has no effect with data.name: {name}; it is a setting of {source.name}",
                )
            return True
    return False


def _check_backbone(settings: Settings, config: RunConfig) -> None:
    from biam_tf.backbones import BACKBONES, is_backbone, is_pretrained

    backbone = config.backbone
    if not is_backbone(backbone.name):
        hint = did_you_mean(backbone.name, BACKBONES)
        settings.fail("backbone.name", f"unknown backbone {backbone.name!r}{hint}")
    pretrained = is_pretrained(backbone.name)
    is_random = backbone.weights == "none" or (
        backbone.weights in (None, "default") and not pretrained
    )
    if is_random and not backbone.trainable:
        named = "imagenet" if backbone.name in BACKBONES else "default"
        weights = f"{named} or a file" if pretrained else "a file"
        settings.fail_combination(
            ["backbone.trainable", "backbone.weights", "backbone.name"],
            f"{backbone.name} starts from random weights here and would never be trained; set "
            f"backbone.trainable: true, or backbone.weights: {weights}",
        )
    if backbone.trainable and config.data.feature_store is not None:
        settings.fail_combination(
            ["data.feature_store", "backbone.trainable"],
            "stored features are those of a frozen backbone; set "
            "backbone.trainable: false, or data.feature_store: null",
        )
    if backbone.learning_rate_scale != 1 and not backbone.trainable:
        settings.fail_combination(
            ["backbone.learning_rate_scale", "backbone.trainable"],
            "a frozen backbone has no learning rate; set backbone.trainable: true, or "
            "backbone.learning_rate_scale: 1",
        )


def _check_data(settings: Settings, config: RunConfig) -> None:
    _check_sampling(settings, config.data)
    _check_service(settings, config)
    _check_augmentation(settings, config)


def _check_service(settings: Settings, config: RunConfig) -> None:
    service = config.data.service
    if service is None:
        return
    host, _, port = service.rpartition(":")
    if not host or not port.isdecimal():
        settings.fail("data.service", f"expected host:port, got {service!r}")
    if config.data.cache != "stream":
        settings.fail_combination(
            ["data.service", "data.cache"],
            "the service reads features in every epoch, in the order of a streamed epoch; set "
            "data.cache: stream, or data.service: null",
        )
    if config.backbone.trainable:
        settings.fail_combination(
            ["data.service", "backbone.trainable"],
            "the service reads stored features; set backbone.trainable: false, or "
            "data.service: null",
        )


def _check_sampling(settings: Settings, data: DataConfig) -> None:
    keys = ["data.sampling", "data.max_images_per_class"]
    if data.sampling == "capped" and data.max_images_per_class is None:
        settings.fail_combination(
            keys, "capped needs a number; set for example data.max_images_per_class: 1000"
        )
    if data.sampling != "capped" and data.max_images_per_class is not None:
        settings.fail_combination(
            keys[::-1], f"has no effect with data.sampling: {data.sampling}; set it to capped"
        )


def _check_augmentation(settings: Settings, config: RunConfig) -> None:
    augmentation = config.data.augmentation
    if augmentation.crop_scale is not None:
        least, most = augmentation.crop_scale
        if not 0 < least <= most <= 1:
            settings.fail(
                "data.augmentation.crop_scale",
                "expected [smallest, largest] shares of a photo's area, above 0 and at most 1, "
                f"got {list(augmentation.crop_scale)}",
            )
    if augmentation.any and not config.backbone.trainable:
        settings.fail_combination(
            [
                "data.augmentation",
                "data.augmentation.flip",
                "data.augmentation.crop_scale",
                "backbone.trainable",
            ],
            "stored features are those of unchanged photos; set backbone.trainable: true, or "
            "data.augmentation: {flip: false, crop_scale: null}",
        )


def _check_loss(settings: Settings, config: RunConfig) -> None:
    from biam_tf.models.systems import SYSTEMS

    system, keys = SYSTEMS[config.head.system], ["training.loss", "head.system"]
    if system.make_losses is not None and config.training.loss != LossConfig():
        settings.fail_combination(
            keys, f"has no effect: {config.head.system} has a loss of its own"
        )
    if not system.trained and config.backbone.trainable:
        settings.fail_combination(
            ["head.system", "backbone.trainable"],
            f"{config.head.system} has nothing to train; set backbone.trainable: false",
        )
    if system.fit is not None and config.backbone.trainable:
        settings.fail_combination(
            ["head.system", "backbone.trainable"],
            f"{config.head.system} has a closed form, without gradients for a backbone; set "
            "backbone.trainable: false",
        )


def _check_thresholds(settings: Settings, config: RunConfig) -> None:
    try:
        parse_target(config.thresholds.target)
    except ValueError as error:
        settings.fail("thresholds.target", str(error))


def _check_training(settings: Settings, training: TrainingConfig) -> None:
    schedule, optimizer = training.schedule, training.optimizer
    if training.batch_size % training.accumulation_steps:
        settings.fail_combination(
            ["training.accumulation_steps", "training.batch_size"],
            f"a batch of training.batch_size: {training.batch_size} cannot be split into "
            f"{training.accumulation_steps} equal parts",
        )
    if schedule.warmup_epochs > training.epochs:
        settings.fail_combination(
            ["training.schedule.warmup_epochs", "training.epochs"],
            f"a warm-up of {schedule.warmup_epochs:g} epochs does not fit into "
            f"training.epochs: {training.epochs}",
        )
    if schedule.decay == "cosine" and schedule.final_learning_rate > optimizer.learning_rate:
        settings.fail_combination(
            ["training.schedule.final_learning_rate", "training.optimizer.learning_rate"],
            f"the final learning rate {schedule.final_learning_rate:g} is above "
            f"training.optimizer.learning_rate: {optimizer.learning_rate:g}, where the cosine "
            "starts",
        )
