"""Any data set of TensorFlow Datasets with several labels a photo, read as a folder data set."""
