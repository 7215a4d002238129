"""Samples listed in a manifest, a CSV file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..datasets.layout import FileLayout
from ..datasets.manifest import Csv, lies_inside
from ..datasets.table import read_table
from ..datasets.tree import Inventory, Item, Tree
from ..errors import DataError
from .findings import Findings

SUFFIXES = (".csv", ".tsv")
_ROLES = ("image", "mask", "depth")
_COLUMNS = (*_ROLES, "weight", "split", "id", "group")
_NEEDED = frozenset({"image", "mask"})


def manifests(tree: Tree) -> list[str]:
    """Tables in the top folder with columns for images and masks."""
    return [file for file in tree.files if "/" not in file and file.lower().endswith(SUFFIXES)
            and _is_manifest(tree.root / file)]  # fmt: skip


def _is_manifest(path: Path) -> bool:
    try:
        return bool(read_table(path, {role: role for role in _NEEDED}, _NEEDED).rows)
    except DataError:
        return False


def manifest_layout(tree: Tree, options: Mapping[str, Any]) -> FileLayout:
    """The layout of a folder with a manifest.

    Raises:
        DataError: There is no manifest, or there are several.
    """
    named = options.get("manifest")
    found = [str(named)] if named else manifests(tree)
    if not found:
        found = [file for file in tree.files if "/" not in file and file.lower().endswith(SUFFIXES)]
    if len(found) != 1:
        raise DataError("several manifests" if found else "no manifest", subject=tree.root,
                        expected="one CSV file with columns image and mask", found=", ".join(found) or "none",
                        hint="select it with --set manifest=FILE")  # fmt: skip
    return listed_layout(found[0])


def listed_layout(table: str) -> FileLayout:
    """The layout of a folder with this manifest."""
    return replace(Csv.layouts_for()[0], table=table)


def inventory_of_manifest(tree: Tree, layout: FileLayout, options: Mapping[str, Any], found: Findings) -> Inventory:
    """The samples of a manifest; rows with the same id become one sample with too many files.

    Raises:
        DataError: The manifest cannot be read, or columns are missing.
    """
    headers = {role: role for role in _COLUMNS} | dict(options.get("columns") or {})
    table = read_table(tree.root / layout.table, headers, _NEEDED, options.get("delimiter"))
    for fault in table.faults:
        found.add("broken-row", layout.table, fault)
    items: dict[str, Item] = {}
    groups: dict[str, set[str]] = {}
    there, named = set(tree.files), {layout.table}
    for row in table.rows:
        name = row.cells.get("id") or row.cells["image"].rpartition(".")[0] or f"line {row.line}"
        item = items.setdefault(name, Item((name,), row.cells.get("split") or None))
        if row.cells.get("group") and row.cells.get("split"):
            groups.setdefault(row.cells["group"], set()).add(row.cells["split"])
        for role in _ROLES:
            file = row.cells.get(role)
            if file and not (options.get("allow_outside") or lies_inside(tree.root, file)):
                found.add("outside-folder", layout.table, f"line {row.line}: {file}")
            if file and (file in there or os.path.isfile(tree.root / file)):
                item.files.setdefault(role, []).append(file)
            elif file:
                item.absent[role] = file
        named.update(row.cells.get(role, "") for role in (*_ROLES, "weight"))
    for group, splits in groups.items():
        if len(splits) > 1:
            found.add("group-in-two-splits", layout.table, f"{group}: {', '.join(sorted(splits))}")
    return Inventory(list(items.values()), strays=[file for file in tree.files if file not in named])
