"""What a run leaves for a reader: curves, samples beside their predictions, one page of HTML, comparisons of runs."""
