"""Run reports: curves, samples beside their predictions, one page of HTML, and comparisons of runs."""
