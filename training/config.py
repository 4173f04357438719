"""The settings of a run: one YAML file, read into nested frozen dataclasses.

Every field has a default, so that a file says only what it changes. The types below are the
whole schema: what a key may hold is said once, here.
"""

import copy
import dataclasses
import pathlib
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml

from biam_tf.errors import UserError, did_you_mean
from training.typed_yaml import Range, Settings

Count = Annotated[int, Range(at_least=1)]
Seed = Annotated[int, Range(at_least=0, below=2**32)]
Beta = Annotated[float, Range(at_least=0, below=1)]
Share = Annotated[float, Range(at_least=0, below=1)]
Confidence = Annotated[float, Range(above=0, at_most=1)]
NotNegative = Annotated[float, Range(at_least=0)]
Positive = Annotated[float, Range(above=0)]
Momentum = Annotated[float, Range(above=0, below=1)]


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """How training photos are varied from epoch to epoch, where the backbone is trained with them.

    Attributes:
        flip: mirror half of the photos, left to right.
        crop_scale: [least, most] share of the photo's area that a random crop keeps; null: none.
    """

    flip: bool = False
    crop_scale: tuple[float, float] | None = None

    @property
    def any(self) -> bool:
        """Whether photos are varied at all."""
        return self.flip or self.crop_scale is not None


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which photos, and how their features are kept.

    Attributes:
        name: the reader; `scenes` draws its pictures itself.
        directory: the data set's folder; for scenes, where to draw them (null: below `data/`).
        feature_store: where stored features go (null: beside the run).
        cache: keep features in memory, stream them from the disk, or decide by their size.
        pictures: number of training pictures (scenes only).
        seed: of the drawing (scenes only).
        max_broken_share: up to this share of the photos may be unreadable and is left out.
        hash_photos: notes checksums of the photos' contents in the run's manifest, not only their
            names and sizes; all of them are read once more for that.
        max_labels: training photos with more seen labels are left out; null: none is.
        sampling: how often a training photo comes in an epoch, see docs/features.md.
        max_images_per_class: of one epoch (sampling: capped).
        configuration: the classes, `zero_shot` (925 tags seen, 81 concepts unseen) or
            `standard_81` (nus_wide only).
        unlabelled: what photos that show no class count as, see docs/datasets.md (nus_wide only).
        unseen_classes: the 400 most frequent test classes that are not trainable, or those of the
            released code's list (open_images only).
        machine_confidence: from which confidence on machine-generated labels of training photos
            count as present; null: they are not read (open_images only).
        builder: name or folder of a prepared data set of TensorFlow Datasets (tfds only).
        label_feature: its feature with the present classes, such as `objects.label` (tfds only).
        absent_feature: its feature with the absent classes, all others being unknown; null: all
            that are not present are absent (tfds only).
        zero_shot_split: `coco_48_17`, `coco_65_15`, `voc_16_4`, `lvis_rare`, or a file of the
            unseen classes, see docs/tfds.md; null: all classes are seen (tfds only).
        all_seen: the standard multi-label task: unseen classes count as seen.
        augmentation: of training photos (backbone.trainable: true).
    """

    name: Literal["scenes", "folder", "nus_wide", "open_images", "tfds"] = "scenes"
    directory: str | None = None
    feature_store: str | None = None
    cache: Literal["auto", "memory", "stream"] = "auto"
    pictures: Count = 3000
    seed: Seed = 0
    max_broken_share: Share = 0.0
    hash_photos: bool = False
    max_labels: Count | None = None
    sampling: Literal["natural", "balanced", "capped"] = "natural"
    max_images_per_class: Count | None = None
    configuration: Literal["zero_shot", "standard_81"] = "zero_shot"
    unlabelled: Literal["keep", "unknown", "drop"] = "keep"
    unseen_classes: Literal["most_frequent", "released"] = "most_frequent"
    machine_confidence: Confidence | None = None
    builder: str | None = None
    label_feature: str | None = None
    absent_feature: str | None = None
    zero_shot_split: str | None = None
    all_seen: bool = False
    augmentation: AugmentationConfig = AugmentationConfig()


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """What turns a photo into region features and a scene feature.

    Attributes:
        name: a key of `biam_tf.backbones.BACKBONES`, or `keras_hub:PRESET`, see docs/backbones.md.
        image_size: side of the square photo in pixels; null: the backbone's own.
        weights: "default" (or null: pretrained where there are such weights, else random),
            "imagenet", "none" (random), or the path of a file.
        trainable: trained together with the head, or frozen and its features stored.
        batch_size: photos at a time while features are extracted; null: 32, or what fits into a
            quarter of the free memory.
        learning_rate_scale: the learning rate of a trained backbone, as a share of the head's.
    """

    name: str = "small"
    image_size: Count | None = None
    weights: str | None = "default"
    trainable: bool = True
    batch_size: Count | None = None
    learning_rate_scale: Positive = 1.0


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """A system, a preset of it, and the settings that differ from that.

    Attributes:
        system: a key of `biam_tf.systems.SYSTEMS`.
        preset: one of the system's.
        settings: (name, value) pairs of fields of the system's settings, sorted by name.
    """

    system: str = "biam"
    preset: str = "paper"
    settings: tuple[tuple[str, Any], ...] = ()

    def keywords(self) -> dict[str, Any]:
        """Returns the preset and what differs from it, as `System.settings` takes them."""
        return {"preset": self.preset, **dict(self.settings)}

    def resolved(self) -> Any:
        """Returns all settings, a dataclass of the system."""
        from biam_tf.systems import SYSTEMS

        return SYSTEMS[self.system].settings(**self.keywords())


@dataclasses.dataclass(frozen=True)
class VocabularyConfig:
    """Where class embeddings come from.

    Attributes:
        word_vectors: GloVe text (.txt, .gz), .npz or an attribute table (.csv); null: the data
            set's own `class_attributes.csv`.
    """

    word_vectors: str | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; `adam` adds weight decay to the gradient, `adamw` to the step."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    beta_1: Beta = 0.5
    beta_2: Beta = 0.999
    weight_decay: NotNegative = 0.0


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over time: a linear warm-up, then constant or a cosine to the end."""

    warmup_epochs: NotNegative = 1.0
    decay: Literal["cosine", "constant"] = "cosine"
    final_learning_rate: NotNegative = 0.0


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What training makes small; systems that bring a loss of their own take none of it.

    Attributes:
        name: `ranking`, the paper's hinge over pairs of classes, or `softmax` over all classes of
            a photo; null: softmax for `head.classifier: cosine`, else ranking.
        margin: by how much a present class must outrank an absent one (ranking).
        reduction: `sum` is the paper's, `mean_of_violations` the released code's (ranking).
        over_images: weight of a softmax over the photos of a batch, class by class (softmax).
    """

    name: Literal["ranking", "softmax"] | None = None
    margin: Positive = 1.0
    reduction: Literal["sum", "mean_of_violations"] = "mean_of_violations"
    over_images: NotNegative = 0.5


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained, and by which validation figure the best epoch is chosen.

    Attributes:
        epochs: passes over the training photos, at most.
        batch_size: photos of one step of the optimizer, over all devices.
        accumulation_steps: parts that a batch goes through the model in, one after the other,
            where it does not fit into the memory.
        seed: of the first weights, the order of the photos, and dropout.
        precision: of the computation; weights and loss are float32 in any case.
        clip_norm: the largest global norm of a step's gradient; null: as it comes.
        ema_momentum: validates and keeps an exponential moving average of the weights; null: the
            weights themselves.
        select_on: the validation figure of the best epoch, which is kept.
        patience: ends training after so many epochs without a better one; null: never.
        checkpoint_minutes: time between two checkpoints within an epoch; null: none but that at
            its end.
        tensorboard: writes files for TensorBoard into the run's folder.
        report: draws the report and the sheet of photos at the end.
    """

    epochs: Count = 10
    batch_size: Count = 32
    accumulation_steps: Count = 1
    seed: Seed = 0
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    clip_norm: Positive | None = None
    ema_momentum: Momentum | None = None
    select_on: Literal[
        "seen_mAP",
        "zsl_mAP",
        "gzsl_mAP",
        "seen_weighted_mAP",
        "zsl_weighted_mAP",
        "gzsl_weighted_mAP",
    ] = "seen_mAP"
    patience: Count | None = None
    checkpoint_minutes: Positive | None = 15.0
    tensorboard: bool = True
    report: bool = True


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on.

    Attributes:
        strategy: one device, all devices of this machine, or the machines of `TF_CONFIG`.
        logical_cpu_devices: into how many devices the CPU is split, to try out `mirrored`.
        output: the run's folder.
    """

    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    training: TrainingConfig = TrainingConfig()
    strategy: Literal["default", "mirrored", "multi_worker"] = "default"
    logical_cpu_devices: Count = 1
    output: str = "runs/quickstart"


# What the quickstart changes: configs/quickstart.yaml, for packages installed without that file.
QUICKSTART = {
    "head": {"channels": 64, "num_heads": 4},
    "training": {"epochs": 5, "optimizer": {"learning_rate": 2e-3}},
}


def load_config(path: str | pathlib.Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a run's settings.

    Args:
        path: a YAML file; None is the quickstart.
        overrides: `a.b.c=value` each, applied in their order; values are read as YAML.

    Raises:
        UserError: anything wrong in the file or an override; the message names the file or the
            `--set`, the key path and the value, and says what would be right.
    """
    if path is None:
        settings = Settings(copy.deepcopy(QUICKSTART), "the quickstart")
    else:
        settings = Settings.read(path)
    for override in overrides:
        settings.override(override)
    values = dict(settings.section(settings.values, "", _field_names(RunConfig)))
    head = _build_head_config(settings, values.pop("head", None))
    config = dataclasses.replace(settings.build(RunConfig, values), head=head)
    _check_backbone(settings, config)
    _check_data(settings, config)
    _check_training(settings, config.training)
    _check_loss(settings, config)
    if config.strategy == "multi_worker" and config.logical_cpu_devices > 1:
        settings.fail_combination(
            ["logical_cpu_devices", "strategy"],
            "a worker of strategy: multi_worker has one CPU device; start more workers instead",
        )
    if not config.output.strip():
        settings.fail("output", "expected the path of the run's folder, got an empty text")
    return config


def config_to_yaml(config: RunConfig) -> str:
    """Returns every setting as YAML text, which `load_config` reads back to an equal config."""
    values = dataclasses.asdict(config)
    values["head"] = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in {"system": config.head.system, **config.head.keywords()}.items()
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _field_names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _build_head_config(settings: Settings, values: Any) -> HeadConfig:
    from biam_tf.systems import SYSTEMS

    name = HeadConfig.system
    if isinstance(values, dict):
        name = settings.convert(values.get("system", name), str, "head.system")
    if name not in SYSTEMS:
        settings.fail("head.system", f"unknown system {name!r}{did_you_mean(name, SYSTEMS)}")
    system = SYSTEMS[name]
    hints = typing.get_type_hints(system.settings_type, include_extras=True)
    given = dict(settings.section(values, "head", ["system", "preset", *hints]))
    given.pop("system", None)
    preset = settings.convert(given.pop("preset", HeadConfig.preset), str, "head.preset")
    if preset not in system.presets:
        hint = did_you_mean(preset, system.presets)
        settings.fail("head.preset", f"unknown preset {preset!r}{hint}")
    given = {key: settings.convert(v, hints[key], f"head.{key}") for key, v in given.items()}
    try:
        system.settings(preset, **given)
    except UserError as error:
        # Its message begins with the name of the setting, which is the key here.
        key, colon, problem = str(error).partition(": ")
        if colon and key in hints:
            settings.fail(f"head.{key}", problem)
        settings.fail("head", str(error))
    return HeadConfig(name, preset, tuple(sorted(given.items())))


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
            "stored features cannot follow a backbone that is trained; set "
            "backbone.trainable: false, or data.feature_store: null",
        )
    if backbone.learning_rate_scale != 1 and not backbone.trainable:
        settings.fail_combination(
            ["backbone.learning_rate_scale", "backbone.trainable"],
            "a frozen backbone has no learning rate; set backbone.trainable: true, or "
            "backbone.learning_rate_scale: 1",
        )


def _check_data(settings: Settings, config: RunConfig) -> None:
    if config.data.name == "folder" and not config.data.directory:
        settings.fail(
            "data.directory",
            "expected the folder of your photos, got nothing; give it here or with "
            "--set data.directory=PATH",
        )
    if config.data.name == "tfds":
        for key, example in (("builder", "coco/2017"), ("label_feature", "objects.label")):
            if not getattr(config.data, key):
                settings.fail(
                    f"data.{key}",
                    f"not set, and data.name: tfds needs it; for example {example}",
                )
    _check_reader(settings, config.data)
    _check_sampling(settings, config.data)
    _check_augmentation(settings, config)


# Settings that only one reader knows.
READER_SETTINGS = {
    "nus_wide": ("configuration", "unlabelled"),
    "open_images": ("unseen_classes", "machine_confidence"),
    "tfds": ("builder", "label_feature", "absent_feature", "zero_shot_split"),
}


def _check_reader(settings: Settings, data: DataConfig) -> None:
    defaults = DataConfig()
    for reader, names in READER_SETTINGS.items():
        for name in names:
            if reader != data.name and getattr(data, name) != getattr(defaults, name):
                settings.fail_combination(
                    [f"data.{name}", "data.name"],
                    f"has no effect with data.name: {data.name}; it is a setting of {reader}",
                )


def _check_sampling(settings: Settings, data: DataConfig) -> None:
    keys = ["data.sampling", "data.max_images_per_class"]
    if data.sampling == "capped" and data.max_images_per_class is None:
        settings.fail_combination(
            keys, "capped needs to know how many; set data.max_images_per_class: 1000, say"
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
                "expected [least, most] shares of a photo's area with 0 < least <= most <= 1, "
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
            "stored features cannot follow photos that are varied; set backbone.trainable: true, "
            "or data.augmentation: {flip: false, crop_scale: null}",
        )


def _check_loss(settings: Settings, config: RunConfig) -> None:
    from biam_tf.systems import SYSTEMS

    system, keys = SYSTEMS[config.head.system], ["training.loss", "head.system"]
    if system.make_losses is not None and config.training.loss != LossConfig():
        settings.fail_combination(
            keys, f"has no effect: {config.head.system} is trained with a loss of its own"
        )
    if system.fit is not None and config.backbone.trainable:
        settings.fail_combination(
            ["head.system", "backbone.trainable"],
            f"{config.head.system} has a closed form, without gradients for a backbone; set "
            "backbone.trainable: false",
        )


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
