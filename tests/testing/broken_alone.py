"""A loss whose module can only be imported by pytest."""

import sys

from broken_losses import Good

if "pytest" not in sys.modules:
    raise ImportError("this needs conftest.py")


class Alone(Good):
    pass
