"""The quickstart data set: drawn pictures of colored shapes."""
