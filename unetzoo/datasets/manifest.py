"""Your own images, named in a table: a CSV file with a row a sample."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..errors import ConfigError, DataError, SizeMismatchError, did_you_mean
from .archive import data_root
from .base import Sample, SampleTransform, SegmentationDataset, seeded_split
from .declared import check_reading, declared_labels
from .depth_files import check_scale, read_depth
from .files import PathLike, check_same_size, read_image, read_mask
from .layout import FileLayout, FilePattern
from .listing import list_folder, shown, summary
from .table import Row, read_table

FILES = ("image", "mask", "depth", "weight")
ROLES = (*FILES, "split", "id")
REQUIRED = frozenset({"image", "mask"})
_SUFFIXES = (".csv", ".tsv")
ALLOW_OUTSIDE = "if you trust the table, set allow_outside=true; or move the files into its folder"


class Csv(SegmentationDataset):
    r"""Images and masks that a manifest names: a CSV file in UTF-8 with a header and a row a sample.

    Columns: `image` and `mask`, and where they are there `depth`, `weight`, `split`, `id`. Paths are relative to
    `root`. Other columns are passed over. What stands between cells (`,` `;` tab `|`) is told by the header.

    - **Masks** are declared as for `Folder`: classes 0, 1, 2, … unless `ids` says otherwise.
    - **Depth** is a gray PNG of 8 or 16 bits, a float TIFF, or a JPEG; see `read_depth`.
    - **Weight** is read as depth is (8 bits become 0…1): how much each pixel counts in the loss.
    - **Splits** are those of the column `split`. Without it `"train"` and `"val"` share the rows: val takes
      `val_fraction` of a shuffle of the sorted ids that depends on `split_seed` alone. `None` is every row.
    - **Ids** are those of the column `id`, else the images' paths without their endings.

    Args:
        root: The folder, archive or CSV file. Paths are relative to the folder, or to the folder of the CSV file.
        split: None, or one of `splits`.
        manifest: The CSV file, relative to `root`; by default the only one there.
        columns: Headers that differ from the roles' names, e.g. {"image": "photo", "mask": "annotation"}. A column
            named here must be there.
        delimiter: What stands between cells, if the header does not tell.
        splits: The names that may stand in the column `split`.
        names: Names of the classes; or give `classes`.
        classes: Number of classes, for classes without names.
        ids: The value that mask files hold for each class, e.g. (0, 255).
        ignore_ids: File values that mean "not labeled".
        ignore_index: What these become in a loaded mask, e.g. 255.
        swap_pairs: Classes that change places when an image is mirrored.
        side: Whose left and right the pairs mean: the viewer's or the subject's.
        channels: 3 for RGB images, 1 for gray ones.
        depth_scale: What one unit of a depth file is worth, e.g. 0.001 for millimeters that shall be meters.
        depth_gaps: Depth that is 0 or not finite is not known: samples get a mask `valid`, and 0 there.
        allow_outside: Take files that do not lie in `root`.
        val_fraction: Share of "val" where no column says.
        split_seed: Seed of that division.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, channels), `mask` (H, W); `depth` and `weight` float32 (H, W), `valid` bool (H, W).

    Raises:
        ConfigError: Arguments that contradict each other; an unknown split.
        DataError: No manifest, or faults of it: all together, by line. On access also `ImageDecodeError`,
            `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 6)).save(root / "a.png")
        >>> Image.new("L", (8, 6), 255).save(root / "a_mask.png")
        >>> _ = (root / "data.csv").write_text("image;mask\na.png;a_mask.png\n")
        >>> data = Csv(root, names=("background", "cell"), ids=(0, 255))
        >>> data[0]["id"], int(data[0]["mask"].max())
        ('a', 1)
    """

    how_to_get: ClassVar[str] = (
        "write a CSV file with the header image,mask (and depth, split, id where you have them) and a row a sample, "
        "with paths relative to its folder"
    )

    def __init__(
        self,
        root: PathLike,
        split: str | None = None,
        manifest: PathLike | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        delimiter: str | None = None,
        splits: Sequence[str] = ("train", "val", "test"),
        names: Sequence[str] | None = None,
        classes: int | None = None,
        ids: Sequence[int] | None = None,
        ignore_ids: Sequence[int] = (),
        ignore_index: int | None = None,
        swap_pairs: Sequence[tuple[int, int]] = (),
        side: Literal["viewer", "subject"] | None = None,
        channels: Literal[1, 3] = 3,
        depth_scale: float | None = None,
        depth_gaps: bool = False,
        allow_outside: bool = False,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        transform: SampleTransform | None = None,
    ) -> None:
        check_reading("Csv", channels, val_fraction)
        columns = _checked_columns(columns or {})
        if split is not None and split not in splits:
            raise ConfigError("unknown split", subject="Csv", expected=" | ".join(splits), found=repr(split),
                              hint=did_you_mean(split, splits, "split"))  # fmt: skip
        labels = declared_labels(
            "Csv", names=names, classes=classes, ids=ids, ignore_ids=ignore_ids, ignore_index=ignore_index,
            swap_pairs=swap_pairs, side=side,
        )  # fmt: skip
        super().__init__(labels=labels, split=split, transform=transform)
        check_scale(depth_scale)
        self.channels, self.depth_scale, self.depth_gaps = channels, depth_scale, depth_gaps
        self.root, self.manifest = self._locate(root, manifest)
        table = read_table(self.manifest, {role: columns.get(role, role) for role in ROLES}, REQUIRED | set(columns),
                           delimiter)  # fmt: skip
        self.roles = tuple(role for role in FILES if role in table.roles)
        checks = _Checks(self.root, table.roles, splits, allow_outside, table.faults)
        rows = {checks.name(row): row for row in table.rows if checks.sound(row)}
        chosen = self._chosen(rows, "split" in table.roles, val_fraction, split_seed, checks.any)
        self.files = [(name, *(checks.file(rows[name], role) for role in self.roles)) for name in chosen]
        checks.raise_faults(self.manifest)

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """A manifest, and the files it lists."""
        files = (FilePattern("image", "photos/{name}.png"), FilePattern("mask", "masks/{name}.png"),
                 FilePattern("depth", "depth/{name}.png"))  # fmt: skip
        return (
            FileLayout(
                "csv", "a manifest with columns image and mask, perhaps id, depth (16 bits), weight and split", files,
                table=str(options.get("manifest") or "manifest.csv"), sample_names="scene_{:03d}", certainty=0.9,
            ),
        )  # fmt: skip

    def _locate(self, root: PathLike, manifest: PathLike | None) -> tuple[Path, Path]:
        """The folder that paths are relative to, and the CSV file."""
        if manifest is None and Path(root).suffix.lower() in _SUFFIXES:
            return Path(root).parent, Path(root)
        folder = data_root(root)
        if manifest is not None:
            return folder, folder / manifest
        found = sorted(path for path in list_folder(folder, self.how_to_get) if path.suffix.lower() in _SUFFIXES)
        if len(found) != 1:
            raise DataError("several manifests" if found else "no manifest", subject=folder, expected="one CSV file",
                            found=shown(path.name for path in found or sorted(folder.iterdir())),
                            hint="name it by manifest=" if found else self.how_to_get)  # fmt: skip
        return folder, found[0]

    def _chosen(self, rows: Mapping[str, Row], column: bool, val_fraction: float, seed: int, faults: bool) -> list[str]:
        """The ids of the split."""
        names = list(rows)
        if not names and not faults:
            raise DataError("a manifest without rows", subject=self.manifest, hint=self.how_to_get)
        if self.split is None or (faults and len(names) < 2):
            return names
        if column:
            part = [name for name in names if rows[name].cells["split"] == self.split]
            if not part and not faults:
                found = shown(sorted({row.cells["split"] for row in rows.values()}))
                raise DataError(f"no rows of split {self.split!r}", subject=self.manifest, found=found,
                                hint="choose another split, or correct the column")  # fmt: skip
            return part
        if self.split not in ("train", "val"):
            raise DataError(f"no split {self.split!r}", subject=self.manifest, expected="a column that says it",
                            found="none", hint='without a column split there are "train" and "val"')  # fmt: skip
        if len(names) < 2:
            raise DataError("too few rows to divide", subject=self.manifest, expected="2", found=len(names),
                            hint="use split=None, or add rows")  # fmt: skip
        return seeded_split(names, self.split, val_fraction, seed)

    def __len__(self) -> int:
        return len(self.files)

    def sources(self) -> list[Path]:
        """All files that the rows name, and the manifest."""
        return [self.manifest, *(path for _, *files in self.files for path in files)]

    def load(self, index: int) -> Sample:
        """Decode the files of one row."""
        name, *files = self.files[index]
        paths = dict(zip(self.roles, files, strict=True))
        image = read_image(paths["image"], self.channels)
        sample: Sample = {"image": image, "mask": read_mask(paths["mask"], self.labels)}
        check_same_size(image, sample["mask"], paths["image"], paths["mask"])
        if "depth" in paths:
            depth = _sized(read_depth(paths["depth"], self.depth_scale), "depth", image, paths)
            if self.depth_gaps:
                valid = np.isfinite(depth) & (depth != 0)
                sample["valid"], depth = valid, np.where(valid, depth, np.float32(0))
            elif not np.isfinite(depth).all():
                raise DataError("depth that is not finite", subject=paths["depth"], hint="if these pixels were not "
                                "measured, declare depth_gaps=True")  # fmt: skip
            sample["depth"] = depth
        if "weight" in paths:
            weight = _sized(read_depth(paths["weight"]), "weight", image, paths)
            if not (np.isfinite(weight) & (weight >= 0)).all():
                raise DataError("wrong weights", subject=paths["weight"], expected="finite numbers ≥ 0",
                                found=f"{weight.min()}…{weight.max()}", hint="correct the file")  # fmt: skip
            sample["weight"] = weight
        return {**sample, "id": name}


class _Checks:
    """What is wrong with the rows of a manifest, collected."""

    def __init__(
        self, root: Path, roles: frozenset[str], splits: Sequence[str], allow_outside: bool, faults: list[str]
    ) -> None:
        self.root, self.roles, self.splits, self.allow_outside, self.faults = root, roles, splits, allow_outside, faults
        self._lines: dict[str, int] = {}
        self._outside: list[tuple[int, str]] = []  # line and path of files that lie outside the folder

    def name(self, row: Row) -> str:
        """The id of a row."""
        return row.cells["id"] if "id" in self.roles else os.path.splitext(row.cells["image"])[0]

    def sound(self, row: Row) -> bool:
        """Whether a row alone is free of faults; those found are noted."""
        before = len(self.faults) + len(self._outside)
        for role in ROLES:
            if role in self.roles and not row.cells[role]:
                self._note(row, f"no {role}")
        split = row.cells.get("split")
        if split and split not in self.splits:
            self._note(row, f"unknown split {split!r}; {did_you_mean(split, self.splits, 'split')}")
        name = self.name(row)
        if name and self._lines.setdefault(name, row.line) != row.line:
            self._note(row, f"the id {name!r} is that of line {self._lines[name]}")
        for role in FILES:
            cell = row.cells.get(role)
            if cell and not (self.allow_outside or lies_inside(self.root, cell)):
                self._outside.append((row.line, cell))
        return len(self.faults) + len(self._outside) == before

    def file(self, row: Row, role: str) -> Path:
        """The path of a cell; that there is no such file is noted."""
        path = self.root / row.cells[role]
        if not os.path.isfile(path):
            what = "is no file" if os.path.exists(path) else "does not exist"
            hint = "; write / in place of \\" if "\\" in row.cells[role] else ""
            self._note(row, f"{role} {row.cells[role]} {what}{hint}")
        return path

    @property
    def any(self) -> bool:
        """Whether there is a fault."""
        return bool(self.faults or self._outside)

    def raise_faults(self, manifest: Path) -> None:
        """Raise one error for all faults; files outside the folder share one fix, and so are one fault."""
        faults, hint = list(self.faults), "correct the named lines"
        if self._outside:
            line, path = self._outside[0]
            more = f" (and {len(self._outside) - 1:,} more)" if len(self._outside) > 1 else ""
            faults.append(f"line {line}: {path} is outside the folder{more}")
            hint = f"{ALLOW_OUTSIDE}" + ("; correct the other lines" if self.faults else "")
        if faults:
            by_line = sorted(faults, key=lambda fault: int(fault.removeprefix("line ").partition(":")[0]))
            raise DataError("faulty manifest", subject=manifest, expected="a sound row for each sample",
                            found=summary(by_line), hint=hint)  # fmt: skip

    def _note(self, row: Row, fault: str) -> None:
        self.faults.append(f"line {row.line}: {fault}")


def lies_inside(root: Path, cell: str) -> bool:
    """Whether a path stays in a folder as it is written; links in the folder are the user's own."""
    top = os.path.join(os.path.abspath(root), "")
    return os.path.abspath(os.path.join(top, cell)).startswith(top)


def _checked_columns(columns: Mapping[str, str]) -> dict[str, str]:
    for role, header in columns.items():
        if role not in ROLES:
            raise ConfigError("unknown column", subject="Csv", found=repr(role), hint=did_you_mean(role, ROLES, "role"))
        if not isinstance(header, str) or not header.strip():
            raise ConfigError("wrong column", subject=role, expected="a header", found=repr(header),
                              hint='e.g. columns={"image": "photo"}')  # fmt: skip
    return dict(columns)


def _sized(array: np.ndarray, role: str, image: np.ndarray, paths: Mapping[str, Path]) -> np.ndarray:
    """The array, which must have the image's size."""
    if array.shape != image.shape[:2]:
        raise SizeMismatchError(
            f"{role} and image differ in size", subject=paths[role],
            expected=f"{image.shape[1]}×{image.shape[0]} as {paths['image']}",
            found=f"{array.shape[1]}×{array.shape[0]}",
            hint="the file belongs to another image, or one of them was resized or turned",
        )  # fmt: skip
    return array
