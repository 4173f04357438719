"""Import of photo lists in other formats, and of files of class embeddings."""
