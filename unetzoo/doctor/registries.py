"""Audit of the installation: every registered name is imported once, versions are compared with requirements."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..plugins import ENV_VAR, IMPORT_LIMIT, Distribution, Entry, installed, is_enabled, own_metadata
from ..probing import probe
from ..registry import REGISTRIES
from ..wording import describe
from .findings import Finding, Findings, legible
from .report import render_finding

OPTIONAL = ("onnx", "onnxruntime", "tensorboard")  # shown if installed


@dataclass(frozen=True)
class Package:
    """A required and an installed version; `found` is None if the package is missing."""

    name: str
    wanted: str
    found: str | None
    fits: bool


@dataclass
class InstallReport:
    """The report of `unetzoo doctor` without a path.

    Args:
        packages: Python, our dependencies, CUDA and GPUs.
        distributions: The names that each distribution adds, by registry.
        findings: Broken plugins, ambiguous names, unmet requirements.
    """

    packages: tuple[Package, ...]
    distributions: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Broken plugins and unmet requirements."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "packages": [vars(package) for package in self.packages], "distributions": self.distributions,
            "findings": [finding.to_dict() for finding in self.findings],
        }  # fmt: skip

    def __rich__(self) -> RenderableType:
        """Packages, distributions with the names they add, findings."""
        packages, names = Table("package", "required", "found", "", box=None), Table("distribution", "adds", box=None)
        for package in self.packages:
            mark = Text("✓", style="green") if package.fits else Text("✗", style="red")
            texts = (package.name, package.wanted, package.found or "missing")
            packages.add_row(*(Text(legible(text)) for text in texts), mark if package.wanted else "")
        for owner, kinds in self.distributions.items():
            added = "; ".join(f"{kind}: {', '.join(found)}" for kind, found in kinds.items())
            names.add_row(Text(legible(owner)), Text(legible(added)))
        findings = list(map(render_finding, self.findings))
        healthy = Text("all names can be imported, all packages meet their requirements", style="green")
        return Group(packages, Padding(names, (1, 0)), *(findings or [healthy]))


def audit_install(timeout: float = IMPORT_LIMIT) -> InstallReport:
    """Import every registered name in child processes, and compare the installed packages with our requirements.

    A plugin that fails is a finding; it affects neither other plugins nor this process.

    Args:
        timeout: Limit of each import, in seconds; see `unetzoo.probing.probe`.
    """
    found = Findings()
    distributions: dict[str, dict[str, list[str]]] = {}
    for distribution in installed():
        owner = f"{distribution.name} {distribution.version}"
        distributions[owner] = distribution.names_by_kind()
        if distribution.fault is not None:
            found.add("broken-plugin", owner, distribution.fault)
        elif not is_enabled(distribution.name):
            found.add("switched-off", owner, f"{ENV_VAR}={os.environ.get(ENV_VAR)}")
        else:
            _check_entries(distribution, found, timeout)
    for registry in REGISTRIES.values():
        for name, claims in sorted(registry.entries().items()):
            _check_claims(name, claims, registry.kind, found)
    packages = tuple(_packages())
    for package in packages:
        if not package.fits:
            found.add("unfit-version", package.name, f"required {package.wanted}, found {package.found or 'nothing'}")
    return InstallReport(packages, distributions, tuple(found))


def _check_claims(name: str, claims: list[Entry], kind: str, found: Findings) -> None:
    if len(claims) > 1:
        winner = next((f"; {entry.qualified} is used" for entry in claims if entry.builtin), "")
        found.add("name-clash", f"{kind}: {name}", ", ".join(entry.qualified for entry in claims) + winner)


def _check_entries(distribution: Distribution, found: Findings, timeout: float) -> None:
    for probed in probe(distribution.entries, timeout=timeout):
        entry = probed.entry
        for code, reason in (("broken-plugin", probed.fault), ("slow-plugin", probed.slow)):
            if reason is not None:
                found.add(code, f"{REGISTRIES[entry.kind].kind} {entry.qualified}",
                          f"{entry.distribution} {entry.version} ({entry.target}): {reason}")  # fmt: skip


def _packages() -> list[Package]:
    from packaging.requirements import InvalidRequirement, Requirement

    ours = own_metadata()
    python = ours.metadata["Requires-Python"] if ours is not None else ""
    rows = [_package("python", python, platform.python_version())]
    for text in ours.requires or [] if ours is not None else []:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            rows.append(_package(requirement.name, str(requirement.specifier), _version(requirement.name)))
    rows += [Package(name, "", version, True) for name in OPTIONAL if (version := _version(name))]
    return rows + _accelerators()


def _package(name: str, wanted: str, found: str | None) -> Package:
    from packaging.specifiers import SpecifierSet

    return Package(name, wanted, found, found is not None and SpecifierSet(wanted).contains(found, prereleases=True))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _accelerators() -> list[Package]:
    """CUDA in torch, and usable devices."""
    try:
        import torch
    except Exception as error:  # a broken installation may raise anything
        return [Package("torch imports", "yes", describe(error)[:120], False)]
    rows = [Package("CUDA in torch", "", str(torch.version.cuda or "none"), True)]
    usable = torch.cuda.is_available()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if usable else []
    rows.append(Package("GPUs", "", ", ".join(devices) or "none", True))
    if sys.platform == "darwin":
        rows.append(Package("MPS", "", str(torch.backends.mps.is_available()), True))
    return rows
