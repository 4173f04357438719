"""Many trainings side by side: grids, trials, learning-rate ranges."""
