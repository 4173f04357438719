"""The TensorFlow graph of an exported tagger, its checks, and the files beside it."""
