"""Settings and presets of the rivals that score only the classes that they were trained on.

As in `biam_tf.models.presets`, nothing here imports Keras: wrong settings are answered at once.
"""

import dataclasses

from biam_tf.models.system import System, require_setting
from biam_tf.registries import late


@dataclasses.dataclass(frozen=True)
class WarpSettings:
    """Settings of WARP.

    Attributes:
        margin: difference by which the score of a present class must exceed an absent one's.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        require_setting(self.margin > 0, "margin", self.margin, "above 0")


WARP = System(
    title="WARP",
    source=(
        "Gong, Jia, Leung, Toshev and Ioffe, Deep convolutional ranking for multilabel image "
        "annotation, arXiv:1312.4894, 2013, the weighted approximate ranking loss"
    ),
    presets={"paper": WarpSettings()},
    build=late("biam_tf.baselines.linear:build_warp"),
    make_losses=late("biam_tf.baselines.linear:warp_losses"),
    open_vocabulary=False,
    classifier="scores",
)


@dataclasses.dataclass(frozen=True)
class LogisticSettings:
    """Logistic regression has no settings."""


LOGISTIC = System(
    title="Logistic",
    source=(
        "Tsoumakas and Katakis, Multi-label classification: an overview, International Journal "
        "of Data Warehousing and Mining 3(3), 2007: binary relevance, here with logistic "
        "regression"
    ),
    presets={"paper": LogisticSettings()},
    build=late("biam_tf.baselines.linear:build_logistic"),
    make_losses=late("biam_tf.baselines.linear:logistic_losses"),
    open_vocabulary=False,
    classifier="scores",
)


@dataclasses.dataclass(frozen=True)
class WsabieSettings:
    """Settings of WSABIE.

    Attributes:
        dimension: D, dimension of the space that images and classes are mapped to.
        max_norm: C, largest norm of the vector of a class or of a scene channel.
        margin: difference by which the score of a present class must exceed an absent one's.
    """

    dimension: int = 100
    max_norm: float = 1.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        require_setting(self.dimension >= 1, "dimension", self.dimension, "at least 1")
        require_setting(self.max_norm > 0, "max_norm", self.max_norm, "above 0")
        require_setting(self.margin > 0, "margin", self.margin, "above 0")


WSABIE = System(
    title="WSABIE",
    source=(
        "Weston, Bengio and Usunier, WSABIE: scaling up to large vocabulary image annotation, "
        "IJCAI 2011, sections 2 and 3"
    ),
    presets={"paper": WsabieSettings()},
    build=late("biam_tf.baselines.wsabie:build"),
    make_losses=late("biam_tf.baselines.wsabie:make_losses"),
    open_vocabulary=False,
    classifier="scores",
)


@dataclasses.dataclass(frozen=True)
class CnnRnnSettings:
    """Settings of CNN-RNN.

    Attributes:
        label_size: length of a label embedding, in the space that it shares with the image.
        units: units of the LSTM.
        max_labels: longest sequence of labels, in training and in the search.
        beams: sequences per image that the search keeps.
    """

    label_size: int = 64
    units: int = 512
    max_labels: int = 10
    beams: int = 5

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            require_setting(value >= 1, name, value, "at least 1")


CNN_RNN = System(
    title="CNN-RNN",
    source=(
        "Wang, Yang, Mao, Huang, Huang and Xu, CNN-RNN: a unified framework for multi-label "
        "image classification, CVPR 2016, section 3"
    ),
    presets={"paper": CnnRnnSettings()},
    build=late("biam_tf.baselines.cnn_rnn:build"),
    training_outputs=late("biam_tf.baselines.cnn_rnn:training_outputs"),
    make_losses=late("biam_tf.baselines.cnn_rnn:make_losses"),
    prepare=late("biam_tf.baselines.cnn_rnn:prepare"),
    open_vocabulary=False,
    classifier="scores",
)
