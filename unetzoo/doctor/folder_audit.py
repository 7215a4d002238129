"""Audit a folder by its files, each read once, even if its dataset cannot be built."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from ..datasets.color_masks import COLOR_FILES
from ..datasets.layout import FileLayout, MaskValues
from ..datasets.tree import Inventory, Tree, sort_files
from ..errors import DataError, LayoutError
from ..labels import LabelSpec, color_of
from ..wording import inline, pluralize
from .alignment import BLOCK, compare
from .examine import examine
from .facts import Record
from .findings import Findings
from .manifest import inventory_of_manifest
from .mask_value_checks import check_objects, check_undeclared, check_values
from .pixel_checks import check_pixels, declared_pixels, propose_pixels, unusual
from .probe import mode_of
from .propose import as_objects, as_options, color_proposal, declaration, proposals
from .recognize import EXPORT, declared_layouts, looks_like
from .report import Report
from .sample_checks import check_pairing, check_record
from .set_checks import check_balance, check_set, class_shares, spread
from .split_building import SPLITS, Options, build_splits, files_by_split, raise_first
from .stacks import examine_stacks

Progress = Callable[[int, int], None]
_HEADERS = 25  # masks that are looked at to decide whether masks are colors


class FolderAudit:
    """Audit a folder by its files."""

    def __init__(
        self,
        tree: Tree,
        dataset: str,
        layout: FileLayout,
        options: dict[str, Any],
        splits: Mapping[str, Options] | None,
        found: Findings,
    ) -> None:
        self.options = {**layout.options, **options}
        self.tree, self.dataset, self.splits, self.found = tree, dataset, splits, found
        channels = layout.pixels.channels if layout.pixels is not None else self.options.get("channels")
        pixels = declared_pixels(self.options) or unusual(layout.pixels)
        self.layout = replace(layout, gray=layout.gray or channels == 1, pixels=pixels)
        if dataset == "folder" and layout.options:
            found.add("other-folders", layout.about, f"a recipe needs {as_options(layout.options, 'data.')}")
        self.user_labels = layout.labels is None  # the dataset has no labels of its own: the user declares them
        values = declaration(self.options, tree.root) if self.user_labels else None
        if values is not None:
            self.layout = self.layout.with_values(values)
        self.declared_by_user = values is not None
        self.proposed: dict[str, Any] = {}
        self.alternative: dict[str, Any] = {}

    @property
    def declared(self) -> LabelSpec | None:
        """The label set of the layout, or the declared or proposed one."""
        values = self.layout.of("mask")[0].values if self.user_labels else None
        return values.labels if values is not None else self.layout.labels

    def run(self, limit: int | None, workers: int | None, progress: Progress | None) -> tuple[Report, list[Record]]:
        """Read the files and check them.

        Raises:
            DataError: No file matches the layout.
        """
        inventory = self._inventory()
        if not inventory.items:
            self._raise_no_samples()
        check_pairing(inventory, self.layout, self.found)
        self._propose_threshold(inventory)
        self._expect_colors(inventory)
        self._propose_pixels(inventory)
        records = self._read(inventory, limit, workers, progress)
        for record in records:
            check_record(record, self.layout, self.found)
        self._propose(records)
        splits = self._divide(inventory, records)
        for record in records:
            record.split = splits.get(record.image_file, record.split)
        self._judge(records, splits)
        shares = class_shares(records, self.declared) if self.declared else ()
        sound = not self.found.any("error")
        check_balance(shares, self.found, doubt=self.declared_by_user and sound)
        read = [record for record in records if record.is_sample]
        items = [item for item in inventory.items if item.absent or set(item.files) != {"background"}]
        report = Report(
            str(self.tree.root), self.dataset, options=self.options, proposal=self.proposed or None,
            alternative=self.alternative or None, labels=self.declared, classes=shares,
            samples=len(read) if self.layout.stacked else len(items),
            audited=len(read), splits=dict(Counter(record.split for record in read if record.split)),
        )  # fmt: skip
        return report, records

    def _raise_no_samples(self) -> NoReturn:
        """Raise the error of the dataset, which describes the layout it expects."""
        labels = {"classes": 2} if self.user_labels and self.declared is None else {}  # its error must be about files
        _, errors = build_splits(self.dataset, self.tree.root, {**labels, **self.options}, self.splits)
        error = next(iter(errors.values()), None)
        likely = looks_like(self.tree.root)
        if isinstance(error, LayoutError) and likely:
            raise error.replace(found=f"{error.found}; {likely}") from error
        raise_first({}, errors)
        raise DataError("no samples", subject=self.tree.root, expected=self.layout.about, hint="check the path")

    def _inventory(self) -> Inventory:
        if self.layout.table:
            inventory = inventory_of_manifest(self.tree, self.layout, self.options, self.found)
            if self.found.has("outside-folder"):
                self.proposed["allow_outside"] = True
            return inventory
        return sort_files(self.tree.files, self.layout)

    def _read(
        self, inventory: Inventory, limit: int | None, workers: int | None, progress: Progress | None
    ) -> list[Record]:
        root, layout = self.tree.root, self.layout
        if layout.stacked:
            records = examine_stacks(root, inventory.items[0], layout)
            compare(records, self.found)
            return records
        items = [inventory.items[index] for index in spread(len(inventory.items), limit)]
        work = partial(examine, root, layout=layout)
        records = []
        with warnings.catch_warnings(), ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            warnings.simplefilter("ignore")  # Pillow's warnings about broken files become findings
            for start in range(0, len(items), BLOCK):
                futures = [pool.submit(work, item) for item in items[start : start + BLOCK]]
                try:
                    for future in futures:
                        records.append(future.result())
                        if progress is not None:
                            progress(len(records), len(items))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                compare(records[start:], self.found)
        return records

    def _propose_threshold(self, inventory: Inventory) -> None:
        """Propose a threshold for exports of EVA, whose masks are JPEG files."""
        masks = [file for item in inventory.items for file in item.of("mask")]
        lossy = sum(file.lower().endswith((".jpg", ".jpeg")) for file in masks)
        if self.dataset == EXPORT and "mask_threshold" not in self.options and 2 * lossy > len(masks):
            self.proposed["mask_threshold"] = 128
            (self.layout,) = declared_layouts(EXPORT, self.options | self.proposed)
            self.found.add("undeclared-labels", "masks", f"{pluralize(lossy, 'JPEG file')}, which need a threshold")

    def _expect_colors(self, inventory: Inventory) -> None:
        """Read undeclared masks as colors if most have three channels, or a palette whose colors a file declares."""
        if not self.user_labels or self.declared is not None:
            return
        masks = [file for item in inventory.items for file in item.of("mask")[:1]]
        some = [masks[index] for index in spread(len(masks), _HEADERS)]
        modes = {"RGB", "RGBA", *("P" for file in COLOR_FILES if file in self.tree.files)}
        if 2 * sum(mode_of(self.tree.root / file) in modes for file in some) > len(some):
            self.layout = self.layout.with_values(MaskValues(None, "colors"))

    def _propose_pixels(self, inventory: Inventory) -> None:
        """Propose a declaration of images that are not of 8 bits in gray or RGB, and continue with it."""
        declared = self.layout.pixels
        if not self.user_labels or self.layout.stacked:
            return
        if declared is not None and (not declared.files or declared.range is not None):
            return
        proposed = propose_pixels(self.tree.root, inventory, declared)
        if proposed:
            self.proposed |= proposed
            pixels = declared_pixels({**self.options, **proposed})
            self.layout = replace(self.layout, pixels=pixels, gray=proposed.get("channels") == 1)
            self.found.add(
                "undeclared-pixels", "images", ", ".join(f"{key} = {inline(proposed[key])}" for key in proposed)
            )

    def _propose(self, records: Sequence[Record]) -> None:
        """Propose a declaration of undeclared labels, and continue with it."""
        masks = [mask for record in records for mask in record.masks]
        if self.declared is not None or not masks:
            return
        counts = sum((Counter(mask.counts) for mask in masks), Counter())
        values = self.layout.of("mask")[0].values
        if values is not None and values.how == "colors":
            self.proposed |= color_proposal(masks, self.tree) or {}
            shown = [f"{color_of(value)} ({count:,} px)" for value, count in counts.most_common()]
        else:
            pixels = dict(self.proposed)
            first, *others = proposals(masks) or [{}]
            self.proposed |= first
            self.alternative = {**pixels, **others[0]} if others else {}
            shown = [str(value) for value in sorted(counts)]
        declared = declaration(self.proposed, self.tree.root)
        if declared is not None:
            self.layout = self.layout.with_values(declared)
        for mask in masks:
            if mask.mode == "I" and not (declared and declared.numbered):
                code = "unsupported-image" if mask.format == "array" else "sixteen-bit-mask"
                self.found.add(code, mask.file, f"{mask.bits} bits")
        if declared is not None and declared.numbered:
            for record in records:
                for facts in (*record.masks, *([record.label_map] if record.label_map else ())):
                    facts.counts = as_objects(facts.counts, declared.labels)
        kind = "colors" if values is not None else "values"
        more = f", … ({len(shown)} {kind})" if len(shown) > 12 else ""
        held = f"{kind} {', '.join(shown[:12])}{more}" if shown else "none is readable"
        if self.alternative:
            held += ", each in one piece: either classes or numbers of objects; both declarations are below"
        self.found.add("undeclared-labels", "masks", held)

    def _divide(self, inventory: Inventory, records: Sequence[Record]) -> dict[str, str]:
        """The split of each file: that of the dataset if it can be built, otherwise that of its folder."""
        splits = {file: item.split for item in inventory.items if item.split for files in item.files.values()
                  for file in files}  # fmt: skip
        if self.user_labels and self.declared is None:
            return splits  # the dataset needs a declaration
        options = {**self.proposed, **self.options}
        built, errors = build_splits(self.dataset, self.tree.root, options, self.splits)
        splits |= files_by_split(built, self.tree.root, self.layout, options)
        if self.layout.stacked and {"train", "val"} <= set(built):
            slices = (split for split in SPLITS if split in built for _ in range(len(built[split])))
            splits |= {record.image_file: split for record, split in zip(records, slices, strict=False)}
        if not self.found.any("error"):
            there = {item.split for item in inventory.items}
            relevant = {split: error for split, error in errors.items() if split in there}
            refusals: dict[str, list[str]] = {}  # splits that fail for the same reason are one case
            for split, error in (relevant or ({} if built else errors)).items():
                refusals.setdefault(str(error), []).append(split)
            for text, names in refusals.items():
                self.found.add("refused", ", ".join(names), text)
        return splits

    def _judge(self, records: Sequence[Record], splits: Mapping[str, str]) -> None:
        layout, declared = self.layout, MaskValues(self.declared)
        masks = [(mask, layout.values_of(mask.file) or declared) for record in records for mask in record.masks]
        if self.declared is None:
            check_undeclared([mask for mask, _ in masks], self.found)
        check_values(masks, self.found)
        check_pixels(self.tree.root, records, layout.pixels, self.found)
        check_objects(masks, self.found)
        check_set(records, self.declared, splits, self.found, layout.withheld)
