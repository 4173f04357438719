"""Models built from the layers: the head, and the tagger that joins a backbone to it."""

from biam_tf.models.head import bind_vocabulary, build_head
from biam_tf.models.presets import ABLATIONS, PRESETS, HeadSettings, head_settings
from biam_tf.models.tagger import build_tagger

__all__ = [
    "ABLATIONS",
    "PRESETS",
    "HeadSettings",
    "bind_vocabulary",
    "build_head",
    "build_tagger",
    "head_settings",
]
