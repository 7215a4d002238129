"""Signals that ask a run to stop: noted when they come, obeyed after the current optimizer step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)
GRACE = 60  # seconds


class SignalReceivedError(Exception):
    """A signal came where the work can be interrupted."""


class Signals:
    """Notes SIGTERM and SIGINT inside its `with` block; a second signal ends the process at once.

    Args:
        enabled: Whether to note them. Only the main thread can.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled and threading.current_thread() is threading.main_thread()
        self.received = 0  # the signal that came inside the block, or 0
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

    def check(self) -> None:
        """Interrupt the work if a signal came inside the block.

        Raises:
            SignalReceivedError: It did.
        """
        if self._before and self.received:
            raise SignalReceivedError

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number


def outlive_in_worker(worker: int) -> None:
    """Keep a loader's worker alive when the whole process group is signaled: its parent decides when to stop.

    A second SIGTERM ends the worker, or a minute: by then the parent has saved, or means the worker itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, _end_soon)


def _end_soon(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(GRACE)
