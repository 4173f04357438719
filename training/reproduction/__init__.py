"""The paper's tables and figures on another data set, for `training.reproduce`."""
