"""The settings of a run: nested frozen dataclasses, which a YAML file fills.

Every field has a default, so that a file contains only what it changes. The types below are the
whole schema: they alone define which values a key accepts.
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
    """Augmentation of training photos, for a trained backbone.

    Attributes:
        flip: mirror half of the photos horizontally.
        crop_scale: [smallest, largest] share of the photo's area in a random crop; null: no crops.
    """

    flip: bool = False
    crop_scale: tuple[float, float] | None = None

    @property
    def any(self) -> bool:
        """Whether photos are augmented at all."""
        return self.flip or self.crop_scale is not None


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set, and how its features are stored.

    Attributes:
        name: a key of `training.data.registry.DATA_SOURCES`.
        directory: the data set's folder; scenes are drawn into it, and photos of TensorFlow
            Datasets are written there (null: a folder below `data/`).
        feature_store: location of the stored features (null: beside the run).
        cache: keep features in memory, stream them from the disk, or decide by their size.
        service: `host:port` of the dispatcher of a tf.data service, whose workers read the stored
            features of training batches; null: the processes of the run read them.
        max_broken_share: the largest share of photos that may be unreadable and are left out.
        hash_photos: whether the run's manifest has checksums of the photos' contents, not only
            names and sizes; all photos are read once more for that.
        max_labels: training photos with more seen labels are left out; null: no limit.
        sampling: how often a training photo is used in an epoch, see docs/features.md.
        max_images_per_class: in one epoch (sampling: capped).
        all_seen: the standard multi-label task: unseen classes count as seen.
        augmentation: of training photos (backbone.trainable: true).
        settings: the data set's own settings, an instance of its `settings_type`; None: their
            defaults. In a configuration they stand beside the other keys of `data:`.
    """

    name: str = "scenes"
    directory: str | None = None
    feature_store: str | None = None
    cache: Literal["auto", "memory", "stream"] = "auto"
    service: str | None = None
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
    """The model that turns a photo into region features and a scene feature.

    Attributes:
        name: a key of `biam_tf.backbones.BACKBONES`, or `keras_hub:PRESET`, see docs/backbones.md.
        image_size: side of the square photo in pixels; null: the backbone's own.
        weights: "default" (or null: pretrained if there are such weights, else random),
            "imagenet", "none" (random), or the path of a file.
        trainable: whether it is trained together with the head; else it is frozen and its
            features are stored.
        batch_size: photos per batch of feature extraction; null: 32, or fewer if they do not fit
            into a quarter of the free memory.
        runtime: what computes the features that are stored: `tensorflow`; `onnx`, ONNX Runtime,
            whose features differ in rounding (extra [onnx]); `auto`, the faster of the two.
        orientation: `follow` turns photos upright as cameras say in EXIF data; `ignore` takes them
            as they are stored, as the authors' released code does.
        learning_rate_scale: learning rate of a trained backbone, as a multiple of the head's.
        regions: of a preset of images and texts, `joint` (features in the space of its text
            embeddings) or `tokens` (the last tokens of its image encoder); null: `joint` for such
            a preset.
    """

    name: str = "small"
    image_size: Count | None = None
    weights: str | None = "default"
    trainable: bool = True
    batch_size: Count | None = None
    runtime: Literal["tensorflow", "onnx", "auto"] = "tensorflow"
    orientation: Literal["follow", "ignore"] = "follow"
    learning_rate_scale: Positive = 1.0
    regions: Literal["joint", "tokens"] | None = None


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
    """The source of the class embeddings.

    Attributes:
        word_vectors: GloVe text (.txt, .gz), .npz or an attribute table (.csv); or an encoder of
            texts, `keras_hub:PRESET`, `minilm` or a folder; null: the data set's own
            `class_attributes.csv`.
        templates: what an encoder reads, with `{name}` for the class name; the embeddings of
            several are averaged. A class with descriptions (column `descriptions` of the data
            set's `classes.csv`, separated by `|`) is embedded by these instead.
    """

    word_vectors: str | None = None
    templates: tuple[str, ...] = ("a photo of {name}",)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer.

    Attributes:
        name: `adam`, `adamw` or `sgd`.
        learning_rate: after the warm-up.
        beta_1: decay of the mean of gradients (adam, adamw).
        beta_2: decay of the mean of their squares (adam, adamw).
        weight_decay: `adamw` adds it to the step, the others to the gradient.
        decay_vectors: whether biases and the scales of normalizations (vectors and scalars) decay
            too, as in PyTorch's optimizers; else only matrices and kernels do.
        momentum: share of the last step that the next one keeps (sgd).
        nesterov: whether that is Nesterov's momentum (sgd).
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    beta_1: Beta = 0.5
    beta_2: Beta = 0.999
    weight_decay: NotNegative = 0.0
    decay_vectors: bool = False
    momentum: Beta = 0.0
    nesterov: bool = False


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over time: a linear warm-up, then constant or a cosine to the end."""

    warmup_epochs: NotNegative = 1.0
    decay: Literal["cosine", "constant"] = "cosine"
    final_learning_rate: NotNegative = 0.0


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss; not for systems that have a loss of their own.

    Attributes:
        name: `ranking`, the paper's hinge over pairs of classes, or `softmax` over all classes of
            a photo; null: softmax for `head.classifier: cosine`, else ranking.
        margin: by how much the score of a present class must exceed an absent one's (ranking).
        reduction: `sum` is the paper's, `mean_of_violations` the released code's (ranking).
        over_images: weight of a softmax over the photos of a batch, class by class (softmax).
    """

    name: Literal["ranking", "softmax"] | None = None
    margin: Positive = 1.0
    reduction: Literal["sum", "mean_of_violations"] = "mean_of_violations"
    over_images: NotNegative = 0.5


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained, and by which validation metric the best epoch is chosen.

    Attributes:
        epochs: the largest number of passes over the training photos.
        batch_size: photos per step of the optimizer, over all devices.
        accumulation_steps: number of equal parts that a batch is split into, to save memory;
            their gradients are summed.
        seed: of the initial weights, the order of the photos, and dropout.
        precision: of the computation; weights and loss are always float32. `auto`: mixed_bfloat16
            where the processor has instructions for it (AMX, AVX512-BF16) or the GPU computes in
            it, else float32; the run's configuration has what was chosen.
        jit: whether XLA compiles the training step; `auto`: on a GPU, where all layers allow it.
        steps_per_call: steps that are one call of TensorFlow. The next batches are read before it.
        fetch_every: steps after which loss and learning rate are fetched from the device, which
            training waits for; also every few seconds.
        clip_norm: the largest global norm of a gradient, which is scaled down to it; null: no
            clipping.
        ema_momentum: momentum of a moving average of the weights, which is validated and saved
            in their place; null: no average.
        select_on: the validation metric that selects the epoch whose weights are kept.
        patience: number of epochs without improvement after which training ends; null: never.
        checkpoint_minutes: time between checkpoints within an epoch; null: only at its end.
        tensorboard: whether files for TensorBoard are written into the run's folder.
        report: whether the report and the sheet of photos are written at the end.
    """

    epochs: Count = 10
    batch_size: Count = 32
    accumulation_steps: Count = 1
    seed: Seed = 0
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16", "auto"] = "float32"
    jit: Literal["auto"] | bool = "auto"
    steps_per_call: Count = 1
    fetch_every: Count = 50
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
class ThresholdsConfig:
    """How scores become probabilities and tags, after the training.

    Attributes:
        held_out_folds: number of further, shorter trainings, each without a part of the seen
            classes: their validation labels tell what scores of untrained classes mean. 0: none,
            and unseen classes get no probability.
        target: what a threshold aims at: `f1` is the best F1, `precision 0.8` a share of 0.8 of
            right tags and as many tags as this allows.
        fewest_photos: with fewer labeled validation photos, no class gets a probability.
    """

    held_out_folds: Annotated[int, Range(at_least=0)] = 3
    target: str = "f1"
    fewest_photos: Count = 50


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on.

    Attributes:
        strategy: one device, all devices of this machine, or the machines of `TF_CONFIG`.
        logical_cpu_devices: number of devices that the CPU is split into, to try out `mirrored`.
        output: the run's folder.
    """

    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
    vocabulary: VocabularyConfig = VocabularyConfig()
    training: TrainingConfig = TrainingConfig()
    thresholds: ThresholdsConfig = ThresholdsConfig()
    strategy: Literal["default", "mirrored", "multi_worker"] = "default"
    logical_cpu_devices: Count = 1
    output: str = "runs/quickstart"
