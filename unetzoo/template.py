"""Create a new plugin from the template."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from .errors import ConfigError
from .plugins import FIRST_PARTY, installed, normalize

NAME = "unetzoo-template"
OURS = ("unetzoo", NAME, *FIRST_PARTY)
IGNORED = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build", "dist", "runs")


def source() -> Path:
    """Folder of the template: inside an installed package, or under `plugins/` in a checkout."""
    here = Path(__file__).parent
    packed = here / "_template"
    return packed if packed.is_dir() else here.parent / "plugins" / NAME


def create(name: str, folder: str | Path = ".") -> Path:
    """Write a working plugin.

    Args:
        name: Name of the distribution; its package has the same name with underscores.
        folder: Where to create the folder of the distribution.

    Returns:
        The folder of the new distribution.

    Raises:
        ConfigError: Invalid or taken name, or the folder exists.

    Examples:
        >>> import tempfile
        >>> sorted(path.name for path in create("acme-cells", tempfile.mkdtemp()).iterdir())
        ['LICENSE', 'README.md', 'pyproject.toml', 'src', 'tests']
    """
    package = _package(name)
    target = Path(folder) / name
    if target.exists():
        raise ConfigError("the folder exists", subject=target, hint="choose another name, or --out ANOTHER_FOLDER")
    try:
        shutil.copytree(source(), target, ignore=IGNORED)
        for path in sorted(target.rglob("*"), reverse=True):  # deepest first
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                text = text.replace(NAME, name).replace(normalize(NAME).replace("-", "_"), package)
                path.write_text(text, encoding="utf-8")
            elif path.name == "unetzoo_template":
                path.rename(path.with_name(package))
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ConfigError(
            "cannot write the plugin", subject=target, found=str(error), hint="--out A_FOLDER_YOU_OWN"
        ) from error
    return target


def _package(name: str) -> str:
    """Name of the package of a distribution.

    Raises:
        ConfigError: Invalid or taken name.
    """
    package = normalize(name).replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or keyword.iskeyword(package):
        raise ConfigError(
            "invalid package name",
            subject=repr(name),
            expected="lower-case letters, digits and single hyphens, starting with a letter",
            hint=f"use {suggestion!r}" if (suggestion := _suggestion(name)) else "e.g. acme-seg",
        )
    taken = (
        "part of unetzoo" if normalize(name) in OURS
        else "a module of the standard library" if package in sys.stdlib_module_names
        else "an installed distribution" if normalize(name) in {one.name for one in installed()}
        else "an installed package" if (spec := find_spec(package)) and spec.origin
        else None
    )  # fmt: skip
    if taken:
        raise ConfigError("the name is taken", subject=repr(name), found=taken, hint=f"e.g. {name}-seg, or my-{name}")
    return package


def _suggestion(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
    return f"{plain}-seg" if keyword.iskeyword(plain) else plain
