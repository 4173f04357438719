"""Training, evaluation and data for biam_tf: each command is `python -m training.NAME`."""

import sys

if sys.argv[:1] == ["-m"]:  # Python is still looking for the command
    from biam_tf.__main__ import refuse_unknown_module

    refuse_unknown_module(__name__, __path__[0])
