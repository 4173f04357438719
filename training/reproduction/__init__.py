"""The paper's tables and figures on a data set of one's own: behind `training.reproduce`."""
