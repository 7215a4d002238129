"""Consoles that print text literally."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from .wording import printable


class PlainConsole(Console):
    """A console for foreign text: names, paths and messages are not parsed as markup and cannot control the terminal.

    Styled text is passed as `rich.text.Text`.

    Args:
        options: Those of `rich.console.Console`.

    Examples:
        >>> PlainConsole().print("person [sitting]")
        person [sitting]
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As the base class, of printable text: a character without a width would shift a table's columns."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As the base class, with control characters replaced."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def progress_console(*, quiet: bool = False) -> PlainConsole:
    """A console for progress on stderr; plain lines in a notebook without ipywidgets, which cannot redraw bars.

    Args:
        quiet: Print nothing.
    """
    console = PlainConsole(stderr=True, quiet=quiet)
    if console.is_jupyter and find_spec("ipywidgets") is None:  # rich would ask for it at every refresh of a bar
        return PlainConsole(stderr=True, quiet=quiet, force_jupyter=False, force_terminal=False)
    return console
