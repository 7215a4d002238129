"""What the commands share: the app, its two consoles, the options that several take."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ..terminal import PlainConsole

app = typer.Typer(
    help="U-Nets from paper to prediction: list, look at, train, evaluate and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = PlainConsole(), PlainConsole(stderr=True)


def complain(problem: object, kind: str = "error", color: str = "red") -> None:
    """Print an error or a warning to stderr, as one paragraph."""
    err.print(Text(f"{kind}:", style=color), str(problem), soft_wrap=True)


Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, e.g. --set train.epochs=3; may be repeated."),
]
