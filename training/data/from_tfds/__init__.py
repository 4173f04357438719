"""Any multi-label image data set of TensorFlow Datasets, read as a folder data set."""
