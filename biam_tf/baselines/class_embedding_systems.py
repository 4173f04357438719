"""Settings and presets of the rivals that score any class by its embedding.

As in `biam_tf.models.presets`, nothing here imports Keras: wrong settings are answered at once.
"""

import dataclasses

from biam_tf.models.system import (
    System,
    require_at_least,
    require_choice,
    require_setting,
    require_share,
)
from biam_tf.registries import late

NAME = "{name}"
# Batch size of the released code, whose global and span terms grow with it.
RELEASED_BATCH = 32


@dataclasses.dataclass(frozen=True)
class BackboneClassesSettings:
    """Settings of `backbone_classes`; the defaults were chosen on validation photos of Corel5k.

    Attributes:
        classify: `"regions"` (the classifier is applied to every region) or `"scene"` (to the scene
            feature, as CONSE; for classifiers that cannot be applied to regions).
        temperature: of the softmax over the backbone's classes.
        kept_classes: number of the most probable classes that are mixed.
        top_k: regions averaged for each class; at most h*w.
        center_embeddings: whether the mean of the names' embeddings, which is common to all of
            them, is subtracted from all embeddings (μ; else μ = 0).
        name_vectors: the source of the embeddings of the backbone's class names: a file of word
            vectors or a table, `minilm`, or the folder of a sentence encoder; it must be that of
            the class embeddings. `None`: `vocabulary.word_vectors` if it has the names, else
            `minilm`.
        template: what a sentence encoder reads, with `{name}` for the name.
    """

    classify: str = "regions"
    temperature: float = 3.0
    kept_classes: int = 20
    top_k: int = 10
    center_embeddings: bool = True
    name_vectors: str | None = None
    template: str = "a photo of {name}"

    def __post_init__(self) -> None:
        require_choice(self, "classify", ("regions", "scene"))
        require_setting(self.temperature > 0, "temperature", self.temperature, "above 0")
        for name in ("kept_classes", "top_k"):
            require_setting(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require_setting(
            NAME in self.template, "template", self.template, f"a text that contains {NAME}"
        )


BACKBONE_CLASSES = System(
    title="Backbone's classes",
    source=(
        "Norouzi et al., Zero-shot learning by convex combination of semantic embeddings, ICLR "
        "2014; over the classes of a pretrained backbone and per region, with BiAM's top-k pooling"
    ),
    presets={
        "paper": BackboneClassesSettings(),
        "conse": BackboneClassesSettings(
            classify="scene", temperature=1.0, kept_classes=10, center_embeddings=False
        ),
    },
    build=late("biam_tf.baselines.backbone_classes:build"),
    trained=False,
    classifier="region_classifier",
    uses_backbone_classes=True,
)


@dataclasses.dataclass(frozen=True)
class ConseSettings:
    """Settings of CONSE.

    Attributes:
        mixed_classes: T, number of the most probable seen classes that are mixed.
    """

    mixed_classes: int = 10

    def __post_init__(self) -> None:
        require_setting(self.mixed_classes >= 1, "mixed_classes", self.mixed_classes, "at least 1")


CONSE = System(
    title="CONSE",
    source=(
        "Norouzi et al., Zero-shot learning by convex combination of semantic embeddings, ICLR "
        "2014; its softmax classifier, here with equal weights for the present classes of an image"
    ),
    presets={"paper": ConseSettings()},
    build=late("biam_tf.baselines.conse:build"),
    training_outputs=late("biam_tf.baselines.conse:training_outputs"),
    make_losses=late("biam_tf.baselines.conse:make_losses"),
    classifier="scores",
)


@dataclasses.dataclass(frozen=True)
class ESZSLSettings:
    """Settings of ESZSL.

    Attributes:
        gamma: regularization of the feature side, for scene features of unit length.
        lam: regularization of the class embedding side.
        frequency_power: a class's labels are weighted by its frequency to minus this power.
    """

    gamma: float = 10.0
    lam: float = 1.0
    frequency_power: float = 0.5

    def __post_init__(self) -> None:
        # Without regularization there may be no solution.
        for name in ("gamma", "lam"):
            require_setting(getattr(self, name) > 0, name, getattr(self, name), "above 0")


ESZSL = System(
    title="ESZSL",
    source=(
        "Romera-Paredes and Torr, An embarrassingly simple approach to zero-shot learning, ICML "
        "2015; with several labels per image, 0 or 1, weighted by class frequency, where the "
        "original has one label per image, -1 or 1"
    ),
    presets={"paper": ESZSLSettings()},
    build=late("biam_tf.baselines.bilinear:build_eszsl"),
    fit=late("biam_tf.baselines.bilinear:fit_eszsl"),
    classifier="bilinear",
)


@dataclasses.dataclass(frozen=True)
class LabelEMSettings:
    """Settings of LabelEM.

    Attributes:
        margin: difference by which the score of a present class must exceed an absent one's.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        require_setting(self.margin > 0, "margin", self.margin, "above 0")


LABEL_EM = System(
    title="LabelEM",
    source=(
        "Akata et al., Label-embedding for image classification, PAMI 2016 (ALE); "
        "all absent classes are ranked, where the original samples"
    ),
    presets={"paper": LabelEMSettings()},
    build=late("biam_tf.baselines.bilinear:build_label_em"),
    make_losses=late("biam_tf.baselines.bilinear:label_em_losses"),
    classifier="bilinear",
)


@dataclasses.dataclass(frozen=True)
class Fast0TagSettings:
    """Settings of the network.

    Attributes:
        channels: units of the hidden layers, which have ReLU.
        dropout: dropout rate after each of them.
    """

    channels: tuple[int, ...] = (8192, 2048)
    dropout: float = 0.3

    def __post_init__(self) -> None:
        whole = all(size >= 1 for size in self.channels)
        require_setting(whole, "channels", list(self.channels), "a list of sizes of at least 1")
        require_setting(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")


@dataclasses.dataclass(frozen=True)
class LinearFast0TagSettings:
    """Settings of the linear variant.

    Attributes:
        svm_regularization: λ of the ranking SVM, λ/2 |w|² beside the mean hinge of the pairs.
        svm_steps: steps of its subgradient descent.
        ridge: regularization of the linear map from scene features of unit length to directions.
    """

    svm_regularization: float = 0.1
    svm_steps: int = 200
    ridge: float = 1.0

    def __post_init__(self) -> None:
        # Without regularization there may be no solution.
        for name in ("svm_regularization", "ridge"):
            require_setting(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require_setting(self.svm_steps >= 1, "svm_steps", self.svm_steps, "at least 1")


FAST0TAG = System(
    title="Fast0Tag",
    source="Zhang et al., Fast zero-shot image tagging, CVPR 2016, its network",
    presets={"paper": Fast0TagSettings()},
    build=late("biam_tf.baselines.fast0tag:build"),
    make_losses=late("biam_tf.baselines.fast0tag:make_losses"),
    classifier="scores",
)


FAST0TAG_LINEAR = System(
    title="Fast0Tag, linear",
    source="Zhang et al., Fast zero-shot image tagging, CVPR 2016, its linear mapping",
    presets={"paper": LinearFast0TagSettings()},
    build=late("biam_tf.baselines.fast0tag:build_linear"),
    fit=late("biam_tf.baselines.fast0tag:fit_linear"),
    classifier="scores",
)


@dataclasses.dataclass(frozen=True)
class AttentionPerLabelSettings:
    """Settings of Attention per Label.

    Attributes:
        channels: channels of the region features after the convolution.
        joint_size: dimension of the joint space of regions and classes, the rank of the attention.
        dropout: dropout rate on the class embeddings and the regions, before the joint space.
        batch_norm_momentum: share of the *old* running statistics kept at a training step.
    """

    channels: int = 512
    joint_size: int = 512
    dropout: float = 0.2
    batch_norm_momentum: float = 0.99

    def __post_init__(self) -> None:
        require_at_least(self, 1, "channels", "joint_size")
        require_share(self, "dropout", "batch_norm_momentum")


ATTENTION_PER_LABEL = System(
    title="Attention per Label",
    source=(
        "after Kim, Jun & Zhang, Bilinear attention networks, NeurIPS 2018, section 3, as compared "
        "by Huynh & Elhamifar (CVPR 2020): each class has its own softmax attention over the "
        "regions, and its score is the attended feature times W a_c. The regions pass through the "
        "convolution of LESA, so that the systems of that comparison differ in attention alone. "
        "The comparison does not specify rank and dropout of the attention."
    ),
    presets={"paper": AttentionPerLabelSettings()},
    build=late("biam_tf.baselines.attention_per_label:build_scores"),
)


@dataclasses.dataclass(frozen=True)
class AttentionPerClusterSettings:
    """Settings of Attention per Cluster.

    Attributes:
        channels: channels of the region features after the convolution, and of the attention's
            hidden layer.
        num_clusters: number of clusters of the seen classes; at most their number.
        batch_norm_momentum: share of the *old* running statistics kept at a training step.
    """

    channels: int = 512
    num_clusters: int = 10
    batch_norm_momentum: float = 0.99

    def __post_init__(self) -> None:
        require_at_least(self, 1, "channels", "num_clusters")
        require_share(self, "batch_norm_momentum")


ATTENTION_PER_CLUSTER = System(
    title="Attention per Cluster",
    source=(
        "Huynh & Elhamifar, A shared multi-attention framework for multi-label zero-shot learning, "
        "CVPR 2020, where it is a system to compare with: k-means clusters of the seen class "
        "embeddings, each with one attention of LESA's form softmax_r(w_kᵀ tanh(W f_r + b)); the "
        "score of a class is its cluster's attended feature times W a_c. The comparison does not "
        "specify the number of clusters and the convolution of the regions; here both are LESA's."
    ),
    presets={"paper": AttentionPerClusterSettings()},
    build=late("biam_tf.baselines.attention_per_cluster:build_scores"),
)


@dataclasses.dataclass(frozen=True)
class LesaSettings:
    """Settings of LESA; the defaults are those of the released code.

    The loss is the ranking loss plus weighted terms, each a mean over photos. The released code
    sums its global term over a batch of 32 and takes the root of the span term over the whole
    batch, with weights 0.001 and 0.01. The weights here give the same for a batch of 32, but do
    not depend on the batch size or on the number of devices.

    Attributes:
        channels: channels of the region features after the convolution, and of the attention's
            hidden layer.
        num_attentions: T, number of shared attentions.
        distribution_weight: weight of `distribution_term`.
        global_weight: weight of `global_term`.
        span_weight: weight of `span_term`.
        batch_norm_momentum: share of the *old* running statistics kept at a training step.
    """

    channels: int = 512
    num_attentions: int = 10
    distribution_weight: float = 0.1
    global_weight: float = 0.001 * RELEASED_BATCH
    span_weight: float = 0.01 * RELEASED_BATCH**0.5
    batch_norm_momentum: float = 0.99

    def __post_init__(self) -> None:
        require_at_least(self, 1, "channels", "num_attentions")
        require_at_least(self, 0, "distribution_weight", "global_weight", "span_weight")
        require_share(self, "batch_norm_momentum")


LESA = System(
    title="LESA",
    source=(
        "Huynh & Elhamifar, A shared multi-attention framework for multi-label zero-shot learning, "
        "CVPR 2020, in the form of its released code (github.com/hbdat/cvpr20_LESA, "
        "core/model_share_attention.py). Its optimizer is RMSProp (rate 0.001, decay and momentum "
        "0.9, epsilon 1); here it is that of the configuration. A photo without a present class "
        "has no ranking loss, only the other terms."
    ),
    presets={"paper": LesaSettings()},
    build=late("biam_tf.baselines.lesa:build_scores"),
    training_outputs=late("biam_tf.baselines.lesa:training_outputs"),
    make_losses=late("biam_tf.baselines.lesa:make_losses"),
)
