"""Serving of trained runs: each command is `python -m serving.NAME`."""

import sys

if sys.argv[:1] == ["-m"]:  # Python is still looking for the command
    from biam_tf.__main__ import refuse_unknown_module

    refuse_unknown_module(__name__, __path__[0])

DEFAULT_MODEL_NAME = "tagger"
