"""The page of `python -m serving.demo`."""
