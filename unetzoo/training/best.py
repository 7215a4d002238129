"""Which epoch is the best so far, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from typing import Any


class Best:
    """Follows one score over the epochs.

    Args:
        mode: Whether a larger ("max") or smaller ("min") score is better.
        patience: Epochs without a better score after which it is time to stop.
        latest: Take the latest epoch for the best, for a run that is not evaluated.

    Examples:
        >>> best = Best("max", patience=2)
        >>> [best.follow(score) for score in (0.1, 0.3, 0.2)], best.is_over
        ([True, True, False], False)
        >>> best.follow(float("nan")), best.is_over
        (False, True)
    """

    def __init__(self, mode: str = "max", patience: int | None = None, latest: bool = False) -> None:
        self.mode, self.patience, self.latest = mode, patience, latest
        self.score: float | None = None
        self.epoch = self.epochs = 0

    def follow(self, value: float) -> bool:
        """Take in the score of one more epoch; whether it is the best."""
        self.epochs += 1
        score = float(self.epochs) if self.latest else value if self.mode == "max" else -value
        better = not math.isnan(score) and (self.score is None or score > self.score)
        if better:
            self.score, self.epoch = score, self.epochs
        return better

    @property
    def is_over(self) -> bool:
        """Whether patience is at its end."""
        return self.patience is not None and self.epochs - self.epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"score": self.score, "epoch": self.epoch, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.score, self.epoch, self.epochs = state["score"], state["epoch"], state["epochs"]
