"""Plugins as third parties ship them: projects, built into wheels and installed into a separate folder."""

import subprocess
import sys
import tomllib
from pathlib import Path

BUILD = """
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "{version}"
description = "{description}"
readme = "README.md"
[tool.hatch.build.targets.wheel]
only-include = ["{package}.py"]
"""


def project(folder, name, source, points, version="1.2"):
    """A project of one module; `points` are its entry points, group → {name: target}."""
    package = name.replace("-", "_")
    place = folder / name
    place.mkdir(parents=True)
    (place / f"{package}.py").write_text(source)
    (place / "README.md").write_text("A plugin.\n" * 40)
    text = PROJECT.format(name=name, version=version, description="A plugin.", package=package)
    for group, names in points.items():
        text += f'[project.entry-points."unetzoo.{group}"]\n'
        text += "".join(f'{key} = "{target.format(package=package)}"\n' for key, target in names.items())
    tomllib.loads(text)
    (place / "pyproject.toml").write_text(text)
    return place


def install(projects, site, work):
    """Build the wheels of projects in one process, and install them with pip."""
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", BUILD, str(work), *map(str, projects)], check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    wheels = sorted(map(str, work.glob("*.whl")))
    assert len(wheels) == len(projects)
    subprocess.run([*pip, "--disable-pip-version-check", "--target", str(site), *wheels], check=True)
    return Path(site)
