"""Models built from the layers: the head, and the tagger, which is a backbone and a head."""

from biam_tf.models.head import BIAM, bind_vocabulary, build_head, scores_alone
from biam_tf.models.presets import ABLATIONS, ATTENTION_VARIANTS, PRESETS, HeadSettings
from biam_tf.models.system import HeadInputs, System
from biam_tf.models.tagger import build_tagger

__all__ = [
    "ABLATIONS",
    "ATTENTION_VARIANTS",
    "BIAM",
    "PRESETS",
    "HeadInputs",
    "HeadSettings",
    "System",
    "bind_vocabulary",
    "build_head",
    "build_tagger",
    "scores_alone",
]
