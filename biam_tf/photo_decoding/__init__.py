"""Decoding of photos: what a file's bytes say, in Python, with Pillow and in TensorFlow graphs."""
