"""The page of `python -m serving.demo`: each view in a module, what they share in the others."""
