"""The command line: parse, call, print. Each command imports what it needs when it runs.

Exit codes: 2 usage or recipe, 3 data, 4 checkpoint, 5 plugin, 6 training, 75 locked, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import LayoutError, PairingError, UnetzooError
from . import compare, data, doctor, draw, export, models, plugin, predict, runs, stream, twin  # noqa: F401 -- importing them adds their commands
from .console import app, complain, err, out


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
) -> None:
    """Train, evaluate and use networks of the U-Net family."""
    if debug:
        os.environ["UNETZOO_DEBUG"] = "1"


def _seen_from_outside(error: UnetzooError) -> str:
    """Advice of the doctor on a dataset's error; the dataset knows only its own layout."""
    if isinstance(error, LayoutError):
        from ..doctor.recognize import looks_like

        likely = looks_like(str(error.subject))
        return f"; {likely}" if likely else ""
    if isinstance(error, PairingError) and os.path.isdir(str(error.subject)):  # not a file of annotations
        return f"; unetzoo doctor {shlex.quote(str(error.subject))} lists all problems"
    return ""


def main(args: list[str] | None = None) -> None:
    """Entry point: our errors are printed as one line and become an exit code, and warnings are lines too."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        _run(args)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(message, "warning", "yellow")


def _run(args: list[str] | None) -> None:
    try:
        app(args)
    except UnetzooError as error:
        if os.environ.get("UNETZOO_DEBUG"):
            raise
        complain(f"{error}{_seen_from_outside(error)}")
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk behind stdout, too many open files
        if os.environ.get("UNETZOO_DEBUG"):
            raise
        file = f": {error.filename}" if error.filename else ""
        fix = "make room" if error.errno == errno.ENOSPC else "--debug before the command shows where it happened"
        complain(f"{error.strerror or error}{file}. Fix: {fix}")
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
