"""Processes that die at a chosen step, instead of at a chosen time."""

import os
import signal
import sys

STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


def die_at(folder, count):
    """Kill this process by SIGKILL right before its `count`-th operation on files under `folder`."""
    folder, seen = os.fspath(folder), 0

    def hook(event, args):
        nonlocal seen
        if event in STEPS and isinstance(args[0], str | os.PathLike) and os.fspath(args[0]).startswith(folder):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
