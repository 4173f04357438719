"""Scores and figures of trained runs on labeled photos."""
