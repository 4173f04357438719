"""Sentences to vectors: what embeds class names of several words as a whole."""
