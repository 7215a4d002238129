"""A loss whose import takes 2.5 seconds of CPU time."""

import time

from broken_losses import Good

began = time.process_time()
while time.process_time() < began + 2.5:  # however busy the machine is
    pass


class Slow(Good):
    pass
