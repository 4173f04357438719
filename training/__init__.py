"""Training, evaluation and data for biam_tf: each command is `python -m training.NAME`."""
