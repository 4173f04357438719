"""Settings and presets of the rivals that give a photo, or each class, vectors of its own.

As in `biam_tf.models.presets`, nothing here imports Keras: wrong settings are answered at once.
"""

import dataclasses

from biam_tf.models.system import System, require_at_least, require_setting, require_share
from biam_tf.registries import late


def _require_heads(num_heads: int, channels: int) -> None:
    """Raises a `UserError` unless `num_heads` is a divisor of `channels`."""
    fits = channels % num_heads == 0
    require_setting(fits, "num_heads", num_heads, f"a divisor of channels, {channels}")


@dataclasses.dataclass(frozen=True)
class SdlSettings:
    """Settings of SDL; the defaults are those of the released code for NUS-WIDE.

    Attributes:
        vectors: M, number of vectors of a photo.
        regularization: λ, share of the spread of a photo's vectors in the loss.
    """

    vectors: int = 7
    regularization: float = 0.3

    def __post_init__(self) -> None:
        require_at_least(self, 1, "vectors")
        require_share(self, "regularization")


SDL = System(
    title="SDL",
    source=(
        "Ben-Cohen et al., Semantic diversity learning for zero-shot multi-label classification, "
        "ICCV 2021, in the form of its released code (github.com/Alibaba-MIIL/ZS_SDL, "
        "src/loss_functions/SDL_loss.py). Its classes of unknown presence count as absent; here "
        "they take no part. It trains the backbone (TResNet-M) together with the matrix; here the "
        "backbone is that of the configuration, frozen or trained."
    ),
    presets={"paper": SdlSettings()},
    build=late("biam_tf.baselines.sdl:build_scores"),
    training_outputs=late("biam_tf.baselines.sdl:training_outputs"),
    make_losses=late("biam_tf.baselines.sdl:make_losses"),
)


@dataclasses.dataclass(frozen=True)
class MlDecoderSettings:
    """Settings of ML-Decoder; the defaults are those of the released code for NUS-WIDE.

    Attributes:
        channels: dimensions of queries and regions.
        num_heads: heads of the attention; a divisor of `channels`.
        feed_forward_units: hidden units of the feed-forward network.
        dropout: dropout rate in the decoder, and of the queries.
        gamma_positive: focusing of present classes in the asymmetric loss.
        gamma_negative: focusing of absent classes.
        clip: shift of the probability of absent classes.
    """

    channels: int = 768
    num_heads: int = 8
    feed_forward_units: int = 2048
    dropout: float = 0.1
    gamma_positive: float = 0.0
    gamma_negative: float = 4.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        require_at_least(self, 1, "channels", "num_heads", "feed_forward_units")
        _require_heads(self.num_heads, self.channels)
        require_at_least(self, 0, "gamma_positive", "gamma_negative")
        require_share(self, "dropout", "clip")


ML_DECODER = System(
    title="ML-Decoder",
    source=(
        "Ridnik et al., ML-Decoder: scalable and versatile classification head, WACV 2023, with "
        "the word queries of its zero-shot model, in the form of its released code "
        "(github.com/Alibaba-MIIL/ML_Decoder, src_files/ml_decoder/ml_decoder.py and "
        "train_zsl_nus.py). It trains the backbone (TResNet-L), with averaged weights, RandAugment "
        "and Cutout; here backbone, optimizer and averaging are those of the configuration. The "
        "dropout of a class's query is the same for all photos of a step. The paper's query "
        "augmentations are not in the released code and are left out."
    ),
    presets={
        "paper": MlDecoderSettings(),
        "small": MlDecoderSettings(channels=256, feed_forward_units=512),
    },
    build=late("biam_tf.baselines.ml_decoder:build_scores"),
    make_losses=late("biam_tf.losses.asymmetric:asymmetric_losses"),
)


@dataclasses.dataclass(frozen=True)
class QuerySharingSettings:
    """Settings of QKS.

    Number of queries and loss are those of the released code for NUS-WIDE.

    Attributes:
        queries: T, number of learned queries.
        channels: dimensions of queries and regions in the decoder.
        num_layers: layers of the decoder.
        num_heads: heads of the attention; a divisor of `channels`.
        feed_forward_units: hidden units of the feed-forward networks.
        dropout: dropout rate in the decoder.
        gamma_positive: focusing of present classes in the asymmetric loss.
        gamma_negative: focusing of absent classes.
        clip: shift of the probability of absent classes.
    """

    queries: int = 12
    channels: int = 512
    num_layers: int = 1
    num_heads: int = 8
    feed_forward_units: int = 2048
    dropout: float = 0.1
    gamma_positive: float = 0.0
    gamma_negative: float = 4.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        require_at_least(self, 1, "queries", "channels", "num_layers", "num_heads")
        require_at_least(self, 1, "feed_forward_units")
        _require_heads(self.num_heads, self.channels)
        require_at_least(self, 0, "gamma_positive", "gamma_negative")
        require_share(self, "dropout", "clip")


QUERY_SHARING = System(
    title="QKS",
    source=(
        "Zhu et al., Query-based knowledge sharing for open-vocabulary multi-label classification, "
        "arXiv 2401.01181: label-agnostic query tokens that gather from the regions, shared by all "
        "labels, and classification by unnormalized products with the asymmetric loss in place of "
        "ranking. Its regions are those of a hidden layer of CLIP's image encoder and its classes "
        "are embedded by CLIP with a pool of prompts; here both are those of the configuration. "
        "Heads and hidden units of the decoder are those of ML-Decoder's layer; none was tuned."
    ),
    presets={"paper": QuerySharingSettings()},
    build=late("biam_tf.baselines.query_sharing:build_scores"),
    make_losses=late("biam_tf.losses.asymmetric:asymmetric_losses"),
)
