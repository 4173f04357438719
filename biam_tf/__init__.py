"""BiAM for TensorFlow and Keras: multi-label zero-shot image tagging.

Nothing is imported here, so that ``import biam_tf`` costs nothing; import from the
submodules, e.g. ``from biam_tf.layers import RegionContextBlock``.
"""

__version__ = "0.1.0"
