"""Serving of trained runs: each command is `python -m serving.NAME`."""

DEFAULT_MODEL_NAME = "tagger"
