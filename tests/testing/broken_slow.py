"""A loss whose import takes two seconds of processor time."""

import time

from broken_losses import Good

began = time.process_time()
while time.process_time() < began + 2.5:  # however busy the machine is
    pass


class Slow(Good):
    pass
