"""Run reports: curves, samples with their predictions, an HTML page, and comparisons of runs."""
