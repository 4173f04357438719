"""Data sets, feature stores and input pipelines."""
