"""Settings and presets of image-text models as taggers, and of methods made for them.

As in `biam_tf.models.presets`, nothing here imports Keras: wrong settings are answered at once.
"""

import dataclasses

from biam_tf.models.system import System, require_at_least, require_setting, require_share
from biam_tf.registries import late


@dataclasses.dataclass(frozen=True)
class ClipSettings:
    """Settings of `clip`.

    Attributes:
        top_k: regions averaged for each class, at most h*w. `None`: chosen on the validation
            photos, and 3 without labels.
        region_weight: w, from 0 (the scene alone) to 1 (regions alone). `None`: chosen on the
            validation photos, and 0.5 without labels.
        scale: the logit of a cosine of 1, without the bias. `None`: the model's.
        bias: added to every score. `None`: the model's.
    """

    top_k: int | None = None
    region_weight: float | None = None
    scale: float | None = None
    bias: float | None = None

    def __post_init__(self) -> None:
        top_k, weight, scale = self.top_k, self.region_weight, self.scale
        require_setting(top_k is None or top_k >= 1, "top_k", top_k, "at least 1")
        require_setting(weight is None or 0 <= weight <= 1, "region_weight", weight, "from 0 to 1")
        require_setting(scale is None or scale > 0, "scale", scale, "above 0")


CLIP = System(
    title="CLIP, without training",
    source=(
        "Radford et al., Learning transferable visual models from natural language supervision, "
        "ICML 2021; with regions as in Zhou et al., Extract free dense labels from CLIP, ECCV "
        "2022, and BiAM's top-k pooling; also for SigLIP (Zhai et al., ICCV 2023)"
    ),
    presets={
        "paper": ClipSettings(),
        "scene": ClipSettings(top_k=1, region_weight=0.0),
    },
    build=late("biam_tf.baselines.clip:build"),
    trained=False,
    classifier="region_classifier",
    uses_joint_space=True,
    candidates=late("biam_tf.baselines.clip:candidates"),
)


@dataclasses.dataclass(frozen=True)
class MktSettings:
    """Settings of MKT.

    Attributes:
        top_k: regions averaged for each class, at most h*w; 16 of the released code's 14x14.
        channels: units of a hidden layer of regions and scene, with tanh; `None`: there is none,
            which was worse on validation photos of Corel5k.
        dropout: dropout rate of the scene feature and, for whole channels, of the regions.
        margin: of the ranking loss.
    """

    top_k: int = 16
    channels: int | None = 512
    dropout: float = 0.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(self, 1, "top_k", *(["channels"] if self.channels is not None else []))
        require_share(self, "dropout")
        require_setting(self.margin > 0, "margin", self.margin, "above 0")


MKT = System(
    title="MKT",
    source=(
        "He et al., Open-vocabulary multi-label classification via multi-modal knowledge transfer, "
        "AAAI 2023, in the form of its released code (github.com/sunanhe/MKT, models/clip_vit.py). "
        "Its two streams are those of CLIP's fine-tuned image encoder, drawn to CLIP's own by a "
        "distillation loss, and its prompts of the class names are tuned in a second stage; "
        "without an image-text model there is neither, and a layer maps the backbone's regions and "
        "scene to the class embeddings. Its norms run over the classes of the request, so that a "
        "score depends on which other classes are asked for; here they run over the seen classes. "
        "In training, both are the same. The loss is the ranking loss of BiAM, as in its code."
    ),
    presets={"paper": MktSettings()},
    build=late("biam_tf.baselines.mkt:build_scores"),
    make_losses=late("biam_tf.baselines.mkt:make_losses"),
    classifier="region_classifier",
)


@dataclasses.dataclass(frozen=True)
class DualPromptSettings:
    """Settings of dual prompts; scales and loss are those of DualCoOp's code.

    Attributes:
        channels: units of a hidden layer of the regions, with ReLU; `None`: there is none.
        region_dropout: dropout rate of whole channels of the regions.
        region_scale: of the cosines, whose softmax over the regions weights them.
        score_scale: of the weighted sums.
        gamma_positive: focusing of present classes in the asymmetric loss.
        gamma_negative: focusing of absent classes.
        clip: shift of the probability of absent classes.
    """

    channels: int | None = 512
    region_dropout: float = 0.0
    region_scale: float = 20.0
    score_scale: float = 5.0
    gamma_positive: float = 1.0
    gamma_negative: float = 2.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        require_at_least(self, 1, *(["channels"] if self.channels is not None else []))
        for name in ("region_scale", "score_scale"):
            require_setting(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require_at_least(self, 0, "gamma_positive", "gamma_negative")
        require_share(self, "region_dropout", "clip")


DUAL_PROMPT = System(
    title="Dual prompts",
    source=(
        "after Sun, Hu and Saenko, DualCoOp: fast adaptation to multi-label recognition with "
        "limited annotations, NeurIPS 2022, in the form of its released code "
        "(github.com/sunxm2357/DualCoOp, models/dualcoop.py): positive and negative embeddings "
        "and regions weighted by a softmax. Its embeddings are those that CLIP's text encoder "
        "makes of the class name after learned context words; here two learned affine maps of "
        "the class embedding take the place of the contexts, and a layer maps the backbone's "
        "regions to the class embeddings, in place of CLIP's frozen projection."
    ),
    presets={"paper": DualPromptSettings()},
    build=late("biam_tf.baselines.dual_prompt:build_scores"),
    make_losses=late("biam_tf.losses.asymmetric:asymmetric_losses"),
)


@dataclasses.dataclass(frozen=True)
class OtMatchSettings:
    """Settings of optimal-transport matching.

    Attributes:
        channels: units of a hidden layer of regions and scene, with ReLU; `None`: there is none.
        dropout: dropout rate of the scene feature and, for whole channels, of the regions.
        scale: initial scale of the cosines in the global and local scores; both are learned.
        cost_scale: of the cosines in the softmax over the seen classes that gives the cost.
        weight_temperature: of the softmax over the regions that gives their mass.
        regularization: weight of the entropy of the transport plan.
        iterations: of Sinkhorn's algorithm.
    """

    channels: int | None = 512
    dropout: float = 0.0
    scale: float = 10.0
    cost_scale: float = 10.0
    weight_temperature: float = 0.1
    regularization: float = 0.1
    iterations: int = 20

    def __post_init__(self) -> None:
        require_at_least(self, 1, *(["channels"] if self.channels is not None else []))
        require_at_least(self, 1, "iterations")
        require_share(self, "dropout")
        for name in ("scale", "cost_scale", "weight_temperature", "regularization"):
            require_setting(getattr(self, name) > 0, name, getattr(self, name), "above 0")


OT_MATCH = System(
    title="Optimal-transport matching",
    source=(
        "after Tan et al., Recover and match: open-vocabulary multi-label recognition through "
        "knowledge-constrained optimal transport, CVPR 2025, in the form of its released code "
        "(github.com/EricTan7/RAM, model/model.py, model/ot_solver.py, loss/mmc_loss.py). It "
        "adapts CLIP, and in training a frozen CLIP constrains the plan; without an image-text "
        "model there is neither, and layers map the backbone's regions and scene to the class "
        "embeddings. Its plan and its softmax run over the classes of the request, so that a "
        "score depends on which other classes are asked for; here they run over the seen classes. "
        "Sinkhorn's algorithm makes a fixed number of iterations, where the code stops earlier or "
        "later by a tolerance. The scales of the cosines are not CLIP's but that of this project's "
        "cosine classifier; they were not tuned."
    ),
    presets={"paper": OtMatchSettings()},
    build=late("biam_tf.baselines.ot_match:build_scores"),
    training_outputs=late("biam_tf.baselines.ot_match:training_outputs"),
    make_losses=late("biam_tf.baselines.ot_match:make_losses"),
    compares_images=True,
)
