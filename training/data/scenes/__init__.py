"""The quickstart data set: generated pictures of colored shapes."""
