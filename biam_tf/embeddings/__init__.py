"""Class names to embeddings: names, files of vectors, sentence encoders."""
