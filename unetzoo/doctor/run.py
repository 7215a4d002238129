"""`audit`: the report of a folder or of datasets."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..datasets.archive import data_root
from ..datasets.files import PathLike
from ..datasets.layout import FileLayout
from ..datasets.listing import shown
from ..datasets.tree import Tree
from ..errors import ConfigError, DataError, LayoutError, UnknownNameError
from ..registry import DATASETS
from ..wording import inline
from .dataset_audit import audit_samples
from .facts import Record
from .findings import Findings
from .folder_audit import FolderAudit, Progress
from .manifest import SUFFIXES, manifest_layout
from .recognize import (
    LEAST,
    MARGIN,
    USUAL,
    Candidate,
    all_layouts,
    candidates,
    declared_layouts,
    layout_of,
    likely_folder,
    looks_like,
)
from .report import Report
from .sheet import Look, draw_sheet, look_into_files
from .split_building import Options, build_splits, raise_first
from .volumes import propose_volumes


def audit(
    source: PathLike | Any,
    dataset: str | None = None,
    *,
    options: Options | None = None,
    splits: Mapping[str, Options] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    sheet: PathLike | None = None,
) -> Report:
    """Check data: pairs, files, sizes, label values, duplicates, leakage, class balance.

    A folder is audited by its files, each read once, even if its dataset cannot be built. Anything else that meets the
    contract of datasets (`len`, items, `labels`) is audited by its samples.

    Args:
        source: A folder, an archive, a manifest, a dataset, or a dict of datasets by split.
        dataset: Registry name of the dataset of a folder; by default it is recognized by the file names.
        options: Arguments of the dataset, such as names and ids of `folder`. Without them, labels are proposed.
        splits: Additional arguments of each split, as in a recipe.
        limit: Read only this many samples, evenly spread; names are checked for all.
        workers: Number of reading threads; one per CPU by default.
        progress: Called with the number of samples read so far and in total.
        sheet: PNG file to draw samples with their masks into.

    Raises:
        DataError: The folder does not exist, is empty, or its dataset is not recognized.
        UnknownNameError: Unknown dataset or argument.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for part, suffix in (("images", "jpg"), ("masks", "png")):
        ...     (root / part).mkdir()
        ...     for stem in "ab":
        ...         Image.new("L", (8, 6), ord(stem)).save(root / part / f"{stem}.{suffix}")
        >>> (root / "masks" / "a.png").unlink()
        >>> report = audit(root, "folder", options={"names": ("background", "cell"), "ids": (0, 98)})
        >>> [(finding.code, str(finding.cases[0])) for finding in report.errors]
        [('missing-mask', 'images/a.jpg')]
    """
    start = time.perf_counter()
    found = Findings()
    arguments = dict(options or {})
    if not isinstance(source, str | os.PathLike):
        parts = source if isinstance(source, Mapping) else {getattr(source, "split", None) or "all": source}
        report, records, look = audit_samples(parts, found, limit, progress)
    elif dataset is not None and not declared_layouts(dataset, arguments):
        built, errors = build_splits(dataset, Path(source), arguments, splits)
        raise_first(built, errors)
        report, records, look = audit_samples(built, found, limit, progress)
        report.source, report.dataset, report.options = os.fspath(source), dataset, arguments
    else:
        root, dataset = _folder(source, dataset, arguments)
        tree = _listed(root, found)
        name, layout, fits = _chosen(tree, dataset, arguments)
        proposed = propose_volumes(tree, layout, arguments, found) if name == "folder" else {}
        arguments |= proposed
        if layout.annotations is not None or _are_volumes(layout, arguments):
            report, records, look = _audit_by_samples(root, name, layout, arguments, splits, found, limit, progress)
        else:
            folder = FolderAudit(tree, name, layout, arguments, splits, found)
            report, records = folder.run(limit, workers, progress)
            look = look_into_files(root, folder.layout)
        report.source, report.fits = os.fspath(source), fits
        report.proposal = {**proposed, **(report.proposal or {})} or None
    report.findings = tuple(found)
    if sheet is not None:
        draw_sheet(records, report.labels, found, look, sheet)
    report.seconds = time.perf_counter() - start
    return report


def _folder(source: PathLike, dataset: str | None, options: dict[str, Any]) -> tuple[Path, str | None]:
    """The folder of a source, which may also be an archive or a manifest, and the dataset, `csv` for a manifest."""
    path = Path(source)
    if path.suffix.lower() in SUFFIXES and path.is_file() and dataset in (None, "csv"):
        options["manifest"] = path.name
        return path.parent, "csv"
    return data_root(path, progress=False), dataset


def _listed(root: Path, found: Findings) -> Tree:
    """The files of a folder, which must exist, be readable and not be empty."""
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise DataError(what, subject=root, hint="pass the folder of the data, or an archive")
    tree = Tree.walk(root)
    if "." in tree.unreadable:
        raise DataError("unreadable folder", subject=root, found=tree.unreadable["."], hint="change its permissions")
    for folder, reason in tree.unreadable.items():
        found.add("unreadable-folder", folder, reason)
    if not tree.files and not tree.unreadable:
        raise DataError("the folder is empty", subject=root, expected="images and masks", found="no files",
                        hint="check the path, or unpack the data into it")  # fmt: skip
    return tree


def _chosen(tree: Tree, dataset: str | None, options: dict[str, Any]) -> tuple[str, FileLayout, float | None]:
    """Dataset and layout of a folder and, if they were recognized, the share of its images that fit."""
    best = _recognized(tree) if dataset is None else None
    name, fits = (best.dataset, best.fits) if best else (str(dataset), None)
    if best is not None and best.layout.annotations is not None:
        return name, best.layout, None
    layout = layout_of(tree, name, options)
    if layout.table:
        return name, manifest_layout(tree, options), fits
    if name == "folder" and not options.keys() & {*USUAL, "channel_files"}:
        layout = likely_folder(tree) or layout
    layouts_in = getattr(DATASETS.get(name), "layouts_in", None)
    known = layouts_in(tree.root, **options) if layouts_in is not None and layout.labels is None else ()
    return name, next((one for one in known if one.labels is not None), layout), fits


def _are_volumes(layout: FileLayout, options: Mapping[str, Any]) -> bool:
    return options.get("axis") is not None or (layout.pixels is not None and layout.pixels.axis is not None)


def _audit_by_samples(
    root: Path, dataset: str, layout: FileLayout, options: dict[str, Any], splits: Mapping[str, Options] | None,
    found: Findings, limit: int | None, progress: Progress | None,
) -> tuple[Report, list[Record], Look]:  # fmt: skip
    """Audit volumes and data with annotation files by their samples, and propose the names of classes."""
    options = {**layout.options, **options}
    built, errors = build_splits(dataset, root, options, splits)
    raise_first(built, errors)
    for split, error in errors.items():
        if not isinstance(error, ConfigError | LayoutError):  # these mean that there is no such split
            found.add("refused", split, str(error))
    report, records, look = audit_samples(built, found, limit, progress)
    report.dataset, report.options = dataset, options
    if layout.annotations is not None and report.labels is not None and "names" not in options:
        report.proposal = {"names": list(report.labels.names)}
    return report, records, look


def _is_empty(path: Path) -> bool:
    """Whether a file of annotations has no content, or only an empty list or object."""
    if path.suffix.lower() not in (".json", ".csv", ".xml"):
        return False
    try:
        return path.stat().st_size < 8 and path.read_text(encoding="utf-8").strip() in ("", "{}", "[]")
    except (OSError, ValueError):
        return False


def _recognized(tree: Tree) -> Candidate:
    """The best candidate for a folder.

    Raises:
        DataError: There is none, the second is almost as likely, or its dataset is in a plugin that is not installed.
    """
    likely = candidates(tree)
    guesses = "; ".join(f"{found}: {found.layout.about}" for found in likely[:3])
    if not likely or likely[0].confidence < LEAST:
        known = dict.fromkeys(f"{dataset}: {layout.about}" for dataset, layout in all_layouts())
        top = sorted({file.split("/")[0] + "/" * ("/" in file) for file in tree.files})
        below = looks_like(tree.root)
        nearest = f"; nearest to {guesses}" if guesses else f"; {below}" if below else ""
        empty = [file for file in tree.files if _is_empty(tree.root / file)]
        if empty:
            raise DataError("empty annotation file", subject=tree.root / empty[0], expected="the annotations of images",
                            found=shown(empty), hint="export the annotations again")  # fmt: skip
        raise DataError(
            "unknown layout", subject=tree.root, found=shown(top) + nearest,
            expected="; ".join(("folder: images/ and masks/ by stem", *known)),
            hint="arrange the files in one of these layouts; if they are, name it with --dataset",
        )  # fmt: skip
    best = likely[0]
    rivals = [found for found in likely if best.confidence - found.confidence < MARGIN]
    if len(rivals) > 1:
        tables = (inline({"name": found.dataset, "root": str(tree.root), **found.layout.options}) for found in rivals)
        choices = (f"--dataset {found.dataset} (in a recipe, data = {table})"
                   for found, table in zip(rivals, tables, strict=True))  # fmt: skip
        raise DataError("ambiguous layout", subject=tree.root, found=f"{len(rivals)} possible layouts"
                        + "".join(f"\n  {found}: {found.layout.about}" for found in rivals),
                        hint=f"name the dataset: {', or '.join(choices)}")  # fmt: skip
    if best.layout.annotations is not None:
        try:
            DATASETS.entry(best.dataset)
        except UnknownNameError as error:
            raise DataError("annotation files need a plugin", subject=tree.root,
                            found=f"{best.dataset} ({best.layout.about})", hint=error.hint) from error  # fmt: skip
    return best
