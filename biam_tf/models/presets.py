"""The settings of BiAM's head, as a frozen dataclass, and the named presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from biam_tf.models.context_blocks import REGION_CONTEXT, SCENE_CONTEXT
from biam_tf.models.system import System, require_choice, require_setting
from biam_tf.registries import late


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """Settings of `build_head`; the defaults are the paper's model.

    Attributes:
        channels: channels d_r of h_r and of both context blocks.
        region_dropout: rate at which whole channels of the region features are dropped in
            training (0 in the paper).
        region_source: which features of the regions are classified: `"regions"`, those of the
            backbone, or `"backbone_classifier"`, what the backbone's own classifier computes of
            them before its last layer, if `use_backbone_classes` is in use and that classifier
            is applied to regions.
        region_embedding: how h_r is computed from the region features: `"conv_3x3"` (convolution,
            ReLU, batch normalization, as in the paper) or `"dense"` (1x1 convolution, ReLU).
        region_context: a name in `context_blocks.REGION_CONTEXT`, the block that relates regions
            to each other, or `"none"`: `"self_attention"` (RCB, eq. 2-5); from the paper's table 4
            `"self_attention_layer_norm"` (RCB with LayerNorm), `"self_attention_sigmoid"` (RCB
            with sigmoid instead of softmax), `"non_local"` (`NonLocalBlock`) and `"criss_cross"`
            (`CrissCrossAttention`).
        scene_context: a name in `context_blocks.SCENE_CONTEXT`, the block that adds the scene, or
            `"none"`: `"channel_gate"` (SCB, eq. 6-8), `"channel_softmax"` (SCB with softmax
            instead of sigmoid, table 4).
        num_heads: attention heads H of RCB in all its forms.
        attention_dropout: dropout on the attention weights of the region context block.
        output_dropout: dropout on the output projection of the region context block.
        mask_zero_scores: whether query-key pairs whose score is exactly 0 are left out (released
            code).
        value_projection: whether the scene context block computes query and value from a 1x1
            convolution with LeakyReLU(0.2) (released code) instead of h_r itself (eq. 6).
        residual: what the scene context block adds its convolution to: `"input"` (h_r, eq. 8)
            or `"attended"` (alpha^g, released code).
        scene_dropout: dropout on the scene feature inside the scene context block.
        fused_channels: channels after the fusion of both blocks; `None`: `channels`.
        fusion_activation: `"linear"` (eq. 9) or `"leaky_relu"` (slope 0.2, released code).
        classifier: `"dot_product"` (eq. 1: class embeddings are mapped to the features) or
            `"cosine"` (features are mapped to the class embeddings, and scored by `score_scale`
            times the cosine).
        score_scale: factor of the cosine; the steepness of a softmax over the scores.
        center_embeddings: whether the mean of the seen class embeddings, which is common to all
            word vectors, is subtracted from all class embeddings before the cosine.
        anchor_weight: length of a class's similarities to the seen classes relative to that of its
            embedding, 1 (`CosineRegionClassifier`); 0: no similarities.
        anchor_temperature: temperature of the softmax over the seen classes that gives the
            similarities.
        anchor_dropout: rate at which seen classes are left out of the softmax in training.
        max_anchors: largest number of anchors; k-means centroids replace more seen classes.
        scene_scores: whether the scene feature is mapped to the embedding space too, and its
            scores are added to those of every region.
        scene_scores_channels: channels of a hidden layer with ReLU in this mapping; `None`: no
            hidden layer.
        scene_scores_dropout: dropout on the scene feature before this mapping.
        use_backbone_classes: whether the classes that a pretrained backbone knows give each region
            a direction of its own (`biam_tf.models.backbone_direction`), which is added to that of
            its features: `"none"`, `"required"`, or `"if_known"` (no, if the backbone comes
            without a classifier).
        backbone_weight: weight of this direction before training, which learns it.
        backbone_input: factor by which the direction is also an input of the layer that maps
            region features to the embedding space; 0: it is none.
        kept_classes: number of the backbone's most probable classes whose embeddings are mixed.
        class_temperature: temperature of the softmax over the backbone's classes.
        name_vectors: the source of the embeddings of the backbone's class names: a file of word
            vectors or a table, `minilm`, or the folder of a sentence encoder; it must be that of
            the class embeddings. Several that are concatenated are separated by `" + "`.
            `"auto"`: `vocabulary.word_vectors` if it has the names, or the sources that it was
            made from, else `minilm`.
        template: what a sentence encoder reads, with `{name}` for the name.
        classifier_bias: whether the dense layer that maps class embeddings has a bias (released
            code).
        classify: `"regions"` (response maps, then the mean of the `top_k` strongest, eq. 1) or
            `"pooled_features"` (the mean region feature is classified; the paper's figure 5).
        top_k: regions averaged for each class; at most h*w.
        batch_norm_momentum: share of the *old* running statistics kept at a training step.
        batch_norm_epsilon: constant added to the variance.
    """

    channels: int = 512
    region_dropout: float = 0.0
    region_source: str = "regions"
    region_embedding: str = "conv_3x3"
    region_context: str = "self_attention"
    scene_context: str = "channel_gate"
    num_heads: int = 8
    attention_dropout: float = 0.1
    output_dropout: float = 0.1
    mask_zero_scores: bool = False
    value_projection: bool = False
    residual: str = "input"
    scene_dropout: float = 0.2
    fused_channels: int | None = None
    fusion_activation: str = "linear"
    classifier: str = "dot_product"
    score_scale: float = 10.0
    center_embeddings: bool = False
    anchor_weight: float = 0.0
    anchor_temperature: float = 0.1
    anchor_dropout: float = 0.0
    max_anchors: int = 1024
    scene_scores: bool = False
    scene_scores_channels: int | None = None
    scene_scores_dropout: float = 0.0
    use_backbone_classes: str = "none"
    backbone_weight: float = 1.0
    backbone_input: float = 0.0
    kept_classes: int = 20
    class_temperature: float = 3.0
    name_vectors: str = "auto"
    template: str = "a photo of {name}"
    classifier_bias: bool = False
    classify: str = "regions"
    top_k: int = 10
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-3

    def __post_init__(self) -> None:
        """Checks every value that does not depend on the shape of the region features."""
        for name in ("channels", "num_heads", "top_k", "max_anchors", "kept_classes"):
            require_setting(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("fused_channels", "scene_scores_channels"):
            value = getattr(self, name)
            require_setting(value is None or value >= 1, name, value, "at least 1")
        for name in DROPOUTS:
            value = getattr(self, name)
            require_setting(0.0 <= value < 1.0, name, value, "at least 0 and below 1")
        for name in ("score_scale", "anchor_temperature", "class_temperature"):
            require_setting(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("anchor_weight", "backbone_input"):
            require_setting(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require_setting(
            "{name}" in self.template, "template", self.template, "a text that contains {name}"
        )
        momentum = self.batch_norm_momentum
        require_setting(
            0.0 <= momentum < 1.0, "batch_norm_momentum", momentum, "at least 0 and below 1"
        )
        blocks = {"region_context": REGION_CONTEXT, "scene_context": SCENE_CONTEXT}
        valid_blocks = {name: (*registered, "none") for name, registered in blocks.items()}
        for name, valid in {**CHOICES, **valid_blocks}.items():
            require_choice(self, name, valid)
        block = REGION_CONTEXT.get(self.region_context)
        require_setting(
            block is None or not block.multi_head or self.channels % self.num_heads == 0,
            "num_heads",
            self.num_heads,
            f"a divisor of channels ({self.channels})",
        )
        if self.classifier != "cosine":
            for name in ("center_embeddings", "scene_scores"):
                require_setting(
                    not getattr(self, name), name, True, "false without classifier: cosine"
                )
            weight, known = self.anchor_weight, self.use_backbone_classes
            require_setting(not weight, "anchor_weight", weight, "0 without classifier: cosine")
            require_setting(
                known == "none", "use_backbone_classes", known, "none without classifier: cosine"
            )
        else:
            require_setting(
                not self.classifier_bias, "classifier_bias", True, "false with a cosine"
            )


DROPOUTS = (
    "region_dropout",
    "anchor_dropout",
    "attention_dropout",
    "output_dropout",
    "scene_dropout",
    "scene_scores_dropout",
)

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "region_source": ("regions", "backbone_classifier"),
        "region_embedding": ("conv_3x3", "dense"),
        "residual": ("input", "attended"),
        "fusion_activation": ("linear", "leaky_relu"),
        "classifier": ("dot_product", "cosine"),
        "classify": ("regions", "pooled_features"),
        "use_backbone_classes": ("none", "if_known", "required"),
    }
)


_COSINE = HeadSettings(
    channels=256,
    region_dropout=0.5,
    region_embedding="dense",
    classifier="cosine",
    score_scale=10.0,
    center_embeddings=True,
    anchor_weight=1.0,
    anchor_dropout=0.2,
    scene_scores=True,
    scene_scores_channels=512,
    scene_scores_dropout=0.6,
)

PRESETS: Mapping[str, HeadSettings] = MappingProxyType(
    {
        # Equations of the paper. What it does not specify (biases of the 1x1 convolutions, ReLU
        # between the two of c^r, dropout rates) is as in the authors' released code.
        "paper": HeadSettings(),
        # The authors' released code, whose checkpoints it loads unchanged. PyTorch's batch
        # normalization momentum of 0.99 is the weight of the *new* batch: 0.01 in Keras.
        "released": HeadSettings(
            channels=256,
            fused_channels=512,
            mask_zero_scores=True,
            value_projection=True,
            residual="attended",
            fusion_activation="leaky_relu",
            classifier_bias=True,
            top_k=6,
            batch_norm_momentum=0.01,
        ),
        # Cosine scores, similarities to seen classes, and what the backbone knows already: chosen
        # by cross-validation on Corel5k, see docs/recommended.md. It is meant for training with
        # the `softmax` losses.
        "recommended": dataclasses.replace(
            _COSINE,
            region_source="backbone_classifier",
            region_context="none",
            scene_context="none",
            use_backbone_classes="if_known",
            backbone_input=4.0,
        ),
        # What `recommended` was before the backbone's classes: both blocks at half their width.
        "recommended_0_1": _COSINE,
    }
)

# Changes to a preset that give the systems of the paper's table 3 and figure 5.
ABLATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "standard_region_features": {"region_context": "none", "scene_context": "none"},
        "region_context_alone": {"scene_context": "none"},
        "scene_context_alone": {"region_context": "none"},
        "pooled_classification": {"classify": "pooled_features"},
    }
)

# Changes to a preset that give the systems of the paper's table 4. Non-Local and Criss-Cross
# replace both blocks.
ATTENTION_VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "region_context_layer_norm": {"region_context": "self_attention_layer_norm"},
        "region_context_sigmoid": {"region_context": "self_attention_sigmoid"},
        "scene_context_softmax": {"scene_context": "channel_softmax"},
        "non_local": {"region_context": "non_local", "scene_context": "none"},
        "criss_cross": {"region_context": "criss_cross", "scene_context": "none"},
    }
)


BIAM = System(
    title="BiAM",
    source=(
        "Narayan et al., Discriminative region-based multi-label zero-shot learning, ICCV 2021, "
        "section 2"
    ),
    presets=PRESETS,
    build=late("biam_tf.models.head:build_scores"),
    classifier="region_classifier",
    uses_backbone_classes=True,
    earlier_presets=MappingProxyType({"recommended": "recommended_0_1"}),
)
