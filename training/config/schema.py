"""The settings of a run: nested frozen dataclasses, which a YAML file fills.

Every field has a default, so that a file says only what it changes. The types below are the
whole schema: what a key may hold is said once, here.
"""

import dataclasses
from typing import Annotated, Any, Literal

from training.config.typed_yaml import Range

Count = Annotated[int, Range(at_least=1)]
Seed = Annotated[int, Range(at_least=0, below=2**32)]
Beta = Annotated[float, Range(at_least=0, below=1)]
Share = Annotated[float, Range(at_least=0, below=1)]
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
        name: a key of `training.data.registry.DATA_SOURCES`.
        directory: the data set's folder; scenes are drawn into it, and photos of TensorFlow
            Datasets are written there (null: a folder below `data/`).
        feature_store: where stored features go (null: beside the run).
        cache: keep features in memory, stream them from the disk, or decide by their size.
        max_broken_share: up to this share of the photos may be unreadable and is left out.
        hash_photos: notes checksums of the photos' contents in the run's manifest, not only their
            names and sizes; all of them are read once more for that.
        max_labels: training photos with more seen labels are left out; null: none is.
        sampling: how often a training photo comes in an epoch, see docs/features.md.
        max_images_per_class: of one epoch (sampling: capped).
        all_seen: the standard multi-label task: unseen classes count as seen.
        augmentation: of training photos (backbone.trainable: true).
        settings: the data set's own settings, an instance of its `settings_type`; None: their
            defaults. In a configuration they stand beside the other keys of `data:`.
    """

    name: str = "scenes"
    directory: str | None = None
    feature_store: str | None = None
    cache: Literal["auto", "memory", "stream"] = "auto"
    max_broken_share: Share = 0.0
    hash_photos: bool = False
    max_labels: Count | None = None
    sampling: Literal["natural", "balanced", "capped"] = "natural"
    max_images_per_class: Count | None = None
    all_seen: bool = False
    augmentation: AugmentationConfig = AugmentationConfig()
    settings: Any = None


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


def _paper_settings() -> Any:
    from biam_tf.models.presets import PRESETS  # brings TensorFlow

    return PRESETS["paper"]


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """A system and all of its settings, which are the keys of the section `head`.

    In a file, `preset` names the settings that the section starts from (default: `paper`). It is
    resolved when the file is read: a run's own file holds every setting, and no preset.

    Attributes:
        system: a key of `biam_tf.models.systems.SYSTEMS`.
        settings: the dataclass of settings of that system, from which its head is built.
    """

    system: str = "biam"
    settings: Any = dataclasses.field(default_factory=_paper_settings)


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
    head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
    vocabulary: VocabularyConfig = VocabularyConfig()
    training: TrainingConfig = TrainingConfig()
    strategy: Literal["default", "mirrored", "multi_worker"] = "default"
    logical_cpu_devices: Count = 1
    output: str = "runs/quickstart"
