"""Models built from the layers: the head, and the tagger, which is a backbone and a head."""

from typing import TYPE_CHECKING

from biam_tf.registries import importing_from

if TYPE_CHECKING:
    from biam_tf.models.head import bind_vocabulary, build_head, scores_alone
    from biam_tf.models.presets import (
        ABLATIONS,
        ATTENTION_VARIANTS,
        BIAM,
        PRESETS,
        HeadSettings,
    )
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

# Names and settings are checked without Keras, which most of these modules import.
__getattr__ = importing_from(
    __name__,
    {
        "ABLATIONS": "presets",
        "ATTENTION_VARIANTS": "presets",
        "BIAM": "presets",
        "HeadInputs": "system",
        "HeadSettings": "presets",
        "PRESETS": "presets",
        "System": "system",
        "bind_vocabulary": "head",
        "build_head": "head",
        "build_tagger": "tagger",
        "scores_alone": "head",
    },
)
