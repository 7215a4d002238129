"""A loss whose import prints."""

from broken_losses import Good

print("welcome")


class Loud(Good):
    pass
