"""The folder data set: the user's own photos, listed in two CSV files."""
