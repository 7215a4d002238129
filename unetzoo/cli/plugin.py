"""`plugin list`, `plugin check`, `plugin new`."""

from __future__ import annotations

import json
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError, PluginError
from ..plugins import ENV_VAR, IMPORT_LIMIT, Distribution, installed, is_enabled, selected_plugins
from ..registry import REGISTRIES
from .console import AsJson, Timeout, app, err, out

if TYPE_CHECKING:
    from ..probing import Health
    from ..testing import Result

plugin = typer.Typer(help="List, check and create plugins.", no_args_is_help=True)
app.add_typer(plugin, name="plugin")
MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "xpassed": ("!", "red"), "xfailed": ("~", "yellow"),
         "blocked": ("·", "dim"), "skipped": ("–", "dim")}  # fmt: skip


@plugin.command("list", epilog="Example: unetzoo plugin list --json")
def list_plugins(as_json: AsJson = False, timeout: Timeout = IMPORT_LIMIT) -> None:
    """List installed plugins, the names they add, and whether they can be imported."""
    from ..probing import health_of_all

    found = installed()
    wanted = [one for one in found if not one.builtin and is_enabled(one.name)]
    with err.status("importing plugins"):
        found_health = health_of_all(wanted, timeout=timeout)
    for name in sorted((selected_plugins() or frozenset()) - {one.name for one in found}):
        err.print(f"{ENV_VAR} names {name!r}, which is not installed or adds nothing")
    rows = [_row(one, found_health.get(one.name)) for one in sorted(found, key=lambda one: (not one.builtin, one.name))]
    if as_json:
        out.print_json(json.dumps(rows))
        return
    table = Table("distribution", "version", "adds", "", box=None)
    for row in rows:
        adds = "\n".join(f"{kind}: {' '.join(names)}" for kind, names in row["adds"].items())
        if row["distribution"] == "unetzoo":
            counts = ((len(names), kind, REGISTRIES[kind].kind) for kind, names in row["adds"].items())
            adds = ", ".join(f"{number} {one if number == 1 else several}" for number, several, one in counts)
        color = {"importable": "green", "off": "yellow", "slow": "yellow", "broken": "red"}[row["state"]]
        state = Text.assemble((row["state"], color), *(f"\n{fault}" for fault in row["faults"]))
        table.add_row(row["distribution"], row["version"], adds, state)
    out.print(table)
    if wanted:
        out.print("To build and test what a plugin adds: unetzoo plugin check DISTRIBUTION", style="dim")


@plugin.command(epilog="Example: unetzoo plugin check acme-seg --only 'model*'")
def check(
    distribution: Annotated[
        str, typer.Argument(metavar="DISTRIBUTION", help="An installed distribution; see `unetzoo plugin list`.")
    ],
    only: Annotated[str, typer.Option(metavar="PATTERN", help="Shell pattern of check names.")] = "*",
    as_json: AsJson = False,
    timeout: Timeout = IMPORT_LIMIT,
) -> None:
    """Run the conformance checks on everything that a distribution adds. Exit code 5 if one fails."""
    from ..probing import Health, health
    from ..testing import cases_of, checks
    from ..testing.discovery import distribution as find

    found = find(distribution)
    if not is_enabled(found.name):
        raise ConfigError(f"{found.name} is disabled", subject=ENV_VAR, hint=f"unset {ENV_VAR}, or add the name to it")
    with err.status(Text(f"importing {found.name}")):
        imported = Health([], []) if found.builtin else health(found, timeout=timeout)
    if imported.faults:
        raise PluginError(
            f"{found.name} {found.version} is broken", found="; ".join(imported.faults), hint="fix the import first"
        )
    if imported.slow:
        raise PluginError(
            f"{found.name} {found.version} is slow", found="; ".join(imported.slow), hint="--timeout SECONDS"
        )
    known = sorted({one.name for one in checks()})
    if not any(fnmatchcase(name, only) for name in known):
        raise ConfigError("no check matches this pattern", subject=only, hint="choose from: " + ", ".join(known))
    from ..testing.common import probe_all

    results = []
    with err.status("checking") as status:
        if any(fnmatchcase(name, only) for name in known if name.startswith("import")):
            probe_all(found.entries, timeout=timeout)
        for case in cases_of(distribution):
            status.update(Text(f"checking {case}"))
            results += _run(case, only)
    if as_json:
        out.print_json(json.dumps([_dict(result) for result in results]))
    else:
        _print_results(results)
    if any(result.failed for result in results):
        raise typer.Exit(PluginError.exit_code)


@plugin.command(epilog="Example: unetzoo plugin new acme-seg --out plugins")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the distribution, e.g. acme-seg.")],
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder in which to create it.")] = Path("."),
) -> None:
    """Create a working plugin with a model, a loss, a metric, a dataset, a recipe and tests."""
    from ..template import create

    made = create(name, folder)
    out.print(f"{made} is a working plugin. Next:", soft_wrap=True)
    name = made.name
    for command in (
        f"pip install -e {made}",
        f"unetzoo plugin check {name}",
        f"unetzoo twin {name}-data shapes --count 240",
        f"unetzoo train {name}-demo",
    ):
        out.print(f"  {command}", soft_wrap=True)


def _run(case: Any, only: str) -> list[Result]:
    """Run the checks of a case; what they print goes to stderr, so that stdout stays clean."""
    import contextlib
    import sys

    from ..testing import run

    with contextlib.redirect_stdout(sys.stderr):
        return list(run(case, only))


def _row(one: Distribution, found: Health | None) -> dict[str, Any]:
    faults, slow = found or ([], [])
    state = "off" if not is_enabled(one.name) else "broken" if faults else "slow" if slow else "importable"
    row = {"distribution": one.name, "version": one.version, "adds": one.names_by_kind(), "state": state}
    return {**row, "faults": [*faults, *slow]}


def _dict(result: Result) -> dict[str, Any]:
    case = {"kind": result.case.kind, "case": str(result.case)}
    return {**case, "check": result.check, "outcome": result.outcome, "message": result.message}


def _print_results(results: list[Result]) -> None:
    from itertools import groupby

    table = Table("", "checks", box=None)
    for name, group in groupby(results, key=lambda result: str(result.case)):
        row = list(group)
        bad = [f"{result.check}" for result in row if result.outcome != "passed"]
        marks = (MARKS[result.outcome] for result in row)
        table.add_row(name, Text.assemble(*marks, f"  {'  '.join(bad[:6])}{' …' if len(bad) > 6 else ''}"))
    out.print(table)
    for result in results:
        if result.failed:
            out.print(Text("\n✗", style="red"), f"{result.case} {result.message}", soft_wrap=True)
    counts = Counter(result.outcome for result in results)
    words = {"passed": "passed", "failed": "failed", "xpassed": "unexpectedly passed",
             "xfailed": "failed as expected", "blocked": "blocked", "skipped": "skipped"}  # fmt: skip
    out.print("\n" + ", ".join(f"{counts[outcome]} {word}" for outcome, word in words.items() if counts[outcome]))
