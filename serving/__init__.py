"""Serving of trained runs: each command is `python -m serving.NAME`."""
