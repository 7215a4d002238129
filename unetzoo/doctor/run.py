"""`audit`: from a folder, or datasets, to a report."""

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
from ..errors import DataError
from .dataset_audit import audit_samples
from .findings import Findings
from .folder_audit import FolderAudit, Progress
from .layouts import USUAL, all_layouts, declared_layouts
from .manifest import SUFFIXES, manifest_layout
from .recognize import LEAST, MARGIN, Candidate, candidates, layout_of, likely_folder, looks_like
from .report import Report
from .sheet import draw_sheet, look_into_files
from .split_building import Options, build_splits, raise_first


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
    """Find what is wrong with data: pairs, files, sizes, label values, duplicates, leakage, balance.

    A folder is audited by its files, each read once, whether or not its dataset can be built. Anything else that keeps
    the contract of datasets (`len`, items, `labels`) is audited by its samples.

    Args:
        source: A folder, an archive of it, a manifest, a dataset, or datasets by split.
        dataset: The folder's dataset by registry name; recognized by the names of its files where it is None.
        options: The dataset's arguments, such as names and ids of `folder`. What masks hold is proposed without them.
        splits: Arguments of each split beyond these, as a recipe has them.
        limit: Read so many samples, evenly spread; names are compared for all.
        workers: Threads that read; one a CPU by default.
        progress: Called with the number of samples read and of all that will be.
        sheet: Where to draw samples under their colored masks, as PNG.

    Raises:
        DataError: No such folder, an empty one, or one whose dataset is not clear.
        UnknownNameError: No such dataset, or arguments that it does not take.

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
    elif dataset not in (None, "csv") and not declared_layouts(dataset, arguments):
        built, errors = build_splits(dataset, Path(source), arguments, splits)
        raise_first(built, errors)
        report, records, look = audit_samples(built, found, limit, progress)
        report.source, report.dataset, report.options = os.fspath(source), dataset, arguments
    else:
        root, dataset = _folder(source, dataset, arguments)
        tree = _listed(root, found)
        name, layout, confidence = _chosen(tree, dataset, arguments)
        report, records = FolderAudit(tree, name, layout, arguments, splits, found).run(limit, workers, progress)
        report.source, report.confidence = os.fspath(source), confidence
        look = look_into_files(root, layout, report.labels)
    report.findings = tuple(found)
    if sheet is not None:
        draw_sheet(records, report.labels, found, look, sheet)
    report.seconds = time.perf_counter() - start
    return report


def _folder(source: PathLike, dataset: str | None, options: dict[str, Any]) -> tuple[Path, str | None]:
    """The folder of a source, which may be an archive of it or a manifest in it; a manifest says that it is `csv`."""
    path = Path(source)
    if path.suffix.lower() in SUFFIXES and path.is_file() and dataset in (None, "csv"):
        options["manifest"] = path.name
        return path.parent, "csv"
    return data_root(path, progress=False), dataset


def _listed(root: Path, found: Findings) -> Tree:
    """All files of a folder that is there, can be read and is not empty."""
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise DataError(what, subject=root, hint="give the folder that holds the data, or an archive of it")
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
    """The dataset and the layout to read a folder by, and how sure that is where it was recognized."""
    best = _recognized(tree) if dataset is None else None
    name, confidence = (best.dataset, best.confidence) if best else (str(dataset), None)
    if name == "csv":
        return name, manifest_layout(tree, options), confidence
    layout = layout_of(tree, name, options)
    if name == "folder" and not options.keys() & USUAL.keys():
        layout = likely_folder(tree) or layout
    return name, layout, confidence


def _recognized(tree: Tree) -> Candidate:
    """The one dataset that a folder looks like.

    Raises:
        DataError: None, or several that are as likely.
    """
    likely = candidates(tree)
    guesses = ", ".join(f"{found.dataset} ({found.confidence:.0%}: {found.layout.about})" for found in likely[:3])
    if not likely or likely[0].confidence < LEAST:
        known = dict.fromkeys(f"{dataset}: {layout.about}" for dataset, layout in all_layouts())
        top = sorted({file.split("/")[0] + "/" * ("/" in file) for file in tree.files})
        below = looks_like(tree.root)
        nearest = f"; nearest to {guesses}" if guesses else f"; {below}" if below else ""
        raise DataError(
            "the folder's layout is not known", subject=tree.root, found=shown(top) + nearest,
            expected="; ".join(("folder: images/ and masks/ by stem", "csv: a table that names the files", *known)),
            hint="arrange the files so; if they are, say which it is with --dataset",
        )  # fmt: skip
    if len(likely) > 1 and likely[0].confidence - likely[1].confidence < MARGIN:
        raise DataError("the folder's layout is not clear", subject=tree.root, found=guesses,
                        hint=f"say which with --dataset, e.g. --dataset {likely[0].dataset}")  # fmt: skip
    return likely[0]
