"""The report of a run, one HTML page: training curves, figures, classes and photos."""
