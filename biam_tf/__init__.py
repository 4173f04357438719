"""BiAM for TensorFlow and Keras: multi-label zero-shot image tagging.

`Tagger` tags photos in a few lines:

>>> from biam_tf import Tagger
>>> tagger = Tagger.load("models/mine")
>>> tags = tagger.tag("beach.jpg", ["dog", "red car", "sunset"])

It is imported when it is first used, so that ``import biam_tf`` costs nothing; import everything
else from the submodules, e.g. ``from biam_tf.layers import RegionContextBlock``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biam_tf.tagger import Tag, Tagger

__version__ = "0.1.0"

__all__ = ["Tag", "Tagger", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Tag", "Tagger"):
        from biam_tf import tagger

        return getattr(tagger, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
