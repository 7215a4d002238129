"""For tests and doctests alike: what a machine cannot import it need not collect."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("triton") else ["unetzoo/losses/kernels.py", "unetzoo/metrics/kernels.py"]
