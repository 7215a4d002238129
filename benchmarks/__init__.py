"""Speed and memory of unetzoo beside its peers: `python -m benchmarks` from a checkout."""
