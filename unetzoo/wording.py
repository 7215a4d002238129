"""How numbers are said in texts. Standard library only."""

from __future__ import annotations


def counted(number: int, one: str) -> str:
    """A number with its noun, in the plural unless there is one.

    Examples:
        >>> counted(1, "window"), counted(0, "window"), counted(1234, "window")
        ('1 window', '0 windows', '1,234 windows')
    """
    return f"{number:,} {one}" + "s" * (number != 1)
