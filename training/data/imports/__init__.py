"""Other people's lists of labeled photos, brought into a folder data set."""
