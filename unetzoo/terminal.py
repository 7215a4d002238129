"""Where progress is shown. Standard library only, until something is."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def progress_console(*, quiet: bool = False) -> Console:
    """The terminal, or the notebook where it has widgets; without them plain lines, since bars cannot be redrawn.

    Args:
        quiet: Whether to show nothing.
    """
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet, highlight=False)
    if console.is_jupyter and find_spec("ipywidgets") is None:  # rich would ask for it at every refresh of a bar
        return Console(stderr=True, quiet=quiet, highlight=False, force_jupyter=False, force_terminal=False)
    return console
