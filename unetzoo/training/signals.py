"""Signals that ask a run to stop: noted here, obeyed at the next optimizer step's edge."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)
GRACE = 60  # seconds


class Signals:
    """Notes SIGTERM and SIGINT inside its `with` block; the second one ends the process at once.

    Args:
        enabled: Note them at all. Only the main thread can.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled and threading.current_thread() is threading.main_thread()
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self.received = 0
        if self.enabled:
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def pending(self) -> int:
        """The signal that came inside the block, or 0; outside of it always 0."""
        return self.received if self._before else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number


def outlive_in_worker(worker: int) -> None:
    """Let a loader's worker live through a signal to the whole process group: its parent decides when to stop.

    The second SIGTERM, or a minute, ends it: by then the parent has saved, or means the worker itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, _soon)


def _soon(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(GRACE)
