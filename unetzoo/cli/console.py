"""Shared by the commands: the app, its two consoles, common options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from ..terminal import PlainConsole

ORDER = (
    "train", "plan", "evaluate", "predict", "stream", "export", "compare", "doctor", "stats", "twin", "compose", "list",
    "info", "draw", "verify", "plugin",
)  # fmt: skip


class InOrder(TyperGroup):
    """Lists the commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Commands of `ORDER`, then others."""
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=InOrder,
    help="Train, evaluate and use networks of the U-Net family.",
    epilog="Try it: unetzoo train demo --fast",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = PlainConsole(), PlainConsole(stderr=True)


def complain(problem: object, kind: str = "error", color: str = "red") -> None:
    """Print an error or a warning to stderr, as one paragraph."""
    err.print(Text(f"{kind}:", style=color), str(problem), soft_wrap=True)


PER_CLASS = "one number, or CLASS=NUMBER; may be repeated"
NUMBERS = "[CLASS=]NUMBER"

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Networks = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        help="A run folder, a folder of folds, a saved network, or the name of shipped weights; of several, the "
        "probabilities are averaged.",
    ),
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model; see `unetzoo list`.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, e.g. train.epochs=3. May be repeated."),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Constructor argument, e.g. classes=19. May be repeated."),
]
DataArguments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Argument of the dataset, e.g. 'ids=[0, 255]'. May be repeated."),
]
Thresholds = Annotated[
    list[str] | None,
    typer.Option(metavar=NUMBERS, help=f"Probability threshold: {PER_CLASS}. Default: that of the run."),
]
Blend = Annotated[str, typer.Option(metavar="BLEND", help="How tiles are merged: exact, constant or gaussian.")]
TTA = Annotated[str | None, typer.Option(metavar="TTA", help="Test-time augmentation: flips or d4.")]
Precision = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", help="fp32, bf16, fp16 or auto. Default: that of the run, where the device has it."),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps; auto takes a GPU if there is one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Timeout = Annotated[
    float,
    typer.Option(min=0.1, metavar="SECONDS", help="Limit of each import: CPU time, or time without any progress."),
]
ShardOption = Annotated[
    str | None,
    typer.Option(metavar="K/N", help="Predict the K-th of N parts, e.g. 3/16; the part that ends last joins all."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
