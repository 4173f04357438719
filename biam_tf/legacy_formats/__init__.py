"""Readers of PyTorch checkpoints and pickles that never run a stranger's code."""
