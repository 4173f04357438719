"""Several trainings compared: grids of settings, learning-rate range tests."""
