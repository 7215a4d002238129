"""A loss whose import takes two seconds."""

import time

from broken_losses import Good

time.sleep(2.0)


class Slow(Good):
    pass
