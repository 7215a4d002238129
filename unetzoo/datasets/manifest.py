"""Your own images, listed in a table: a CSV file with one row per sample."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..errors import ConfigError, DataError, did_you_mean
from ..images import Pixels, Stored, channel_files, decode_image, read_stored
from .archive import data_root
from .base import Sample, SampleTransform, SegmentationDataset, groups_of, refuse_division, seeded_split
from .color_masks import COLOR_FILES
from .declared import check_reading, declared_masks
from .depth_files import check_scale, read_depth
from .files import PathLike, check_same_size, without_missing
from .layout import FileLayout, FilePattern
from .listing import check_pixels, list_folder, shown, summary
from .table import Row, read_table

FILES = ("image", "mask", "depth", "weight")
ROLES = (*FILES, "split", "id", "group")
REQUIRED = frozenset({"image", "mask"})
_SUFFIXES = (".csv", ".tsv")
ALLOW_OUTSIDE = "if you trust the table, set allow_outside=true; or move the files into its folder"


class Csv(SegmentationDataset):
    r"""Images and masks listed in a manifest: a UTF-8 CSV file with a header and one row per sample.

    Columns: `image` and `mask`, and optionally `depth`, `weight`, `split`, `id` and `group`; others are ignored. Paths
    are relative to `root`. The delimiter (`,` `;` tab `|`) is detected from the header.

    - **Masks** are declared as for `Folder`: values 0, 1, 2, … unless `ids` is given.
    - **Depth** files are gray PNG of 8 or 16 bits, float TIFF, or JPEG; see `read_depth`.
    - **Weight** files hold the weight of each pixel in the loss and are read like depth (8 bits become 0…1).
    - **Splits** come from the column `split`. Without it the rows are divided into `"train"` and `"val"`: val is about
      `val_fraction` of them, chosen with `split_seed`, or one of n folds. `None` is all rows.
    - **Groups**, such as the patient or video of an image, come from the column `group`, or from a pattern of the ids.
      When the rows are divided, those of a group are on the same side.
    - **Ids** come from the column `id`, or are the image paths without suffix.

    Args:
        root: The folder, archive or CSV file. Paths are relative to the folder, or to the folder of the CSV file.
        split: None, or one of `splits`.
        manifest: The CSV file, relative to `root`; by default the only one there.
        columns: Headers that differ from the default, e.g. {"image": "photo", "mask": "annotation"}. Columns named
            here are required.
        delimiter: The delimiter, if it cannot be detected.
        splits: Valid names in the column `split`.
        names: Class names; alternatively `classes`.
        classes: Number of classes without names.
        ids: The value of each class in mask files, e.g. (0, 255).
        ignore_ids: File values of unlabeled pixels.
        ignore_index: The value of these pixels in loaded masks, e.g. 255.
        swap_pairs: Pairs of classes that are exchanged when an image is mirrored.
        side: Whether left and right are the viewer's or the subject's.
        colors: For masks of colors, instead of names and ids: class name → color, e.g. {"road": (128, 64, 128)}, or a
            file in `root` that lists them (CVAT's `labelmap.txt`, or a CSV file with name, r, g, b).
        ignore_colors: Colors of unlabeled pixels.
        unknown_color: Whether undeclared colors are an "error", or "ignore": unlabeled.
        instances: Whether each mask is a label image with one number per object: 8, 16 or 32 bits, also `.npy`. Objects
            are class 1, and samples have `instances`. `names` is optional.
        channels: 3 for RGB images, 1 for gray ones, another number for the channels as stored; by default that of
            `bands` or `channel_files`, or 3. See `unetzoo.images.Pixels`.
        bands: The channels that are read, in this order, counted from 1, e.g. [3, 2, 1, 7].
        range: The values that become 0 and 1, required for images of more than 8 bits: [low, high], one such pair per
            channel, "dtype", "percentile" or "image".
        channel_files: If each channel is in a file of its own and the column lists the first one: the endings of the
            stems, e.g. ["_red", "_nir"], or a format such as "_{:04d}", counted from 0.
        depth_scale: Value of one unit of depth files, e.g. 0.001 to convert millimeters to meters.
        depth_gaps: Depth of 0, NaN or infinity means "unknown": it becomes 0, and samples have a mask `valid`.
        allow_outside: Accept files outside `root`.
        val_fraction: Share of "val" without a column `split`.
        split_seed: Seed of this division.
        group: Regular expression of the group of a row in its id, instead of a column: its first capturing group, or
            else the whole match.
        fold: "k/n": "val" is the k-th of n folds, k = 1…n, instead of `val_fraction`.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, channels), or float32 in 0…1 with a range, `mask` (H, W); `depth` and `weight` float32
        (H, W), `valid` bool (H, W).

    Raises:
        ConfigError: Inconsistent arguments; an unknown split.
        DataError: No manifest, or a faulty one; all faults are reported at once, by line. On access also
            `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

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
        "write a CSV file with the header image,mask (and depth, split, id if you have them), one row per sample "
        "and paths relative to its folder"
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
        colors: Mapping[str, Sequence[int]] | PathLike | None = None,
        ignore_colors: Sequence[Sequence[int]] = (),
        unknown_color: Literal["error", "ignore"] = "error",
        instances: bool = False,
        channels: int | None = None,
        bands: Sequence[int] | None = None,
        range: Any = None,
        channel_files: Sequence[str] = (),
        depth_scale: float | None = None,
        depth_gaps: bool = False,
        allow_outside: bool = False,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        group: str | None = None,
        fold: str | None = None,
        transform: SampleTransform | None = None,
    ) -> None:
        check_reading(val_fraction)
        self.pixels: Pixels = Pixels(channels, bands, range, channel_files)
        columns = _checked_columns(columns or {})
        if split is not None and split not in splits:
            raise ConfigError("unknown split", subject="Csv", expected=" | ".join(splits), found=repr(split),
                              hint=did_you_mean(split, splits, "split"))  # fmt: skip
        folder, file = self._locate(root, manifest)
        self.values = declared_masks(
            "Csv", folder, names=names, classes=classes, ids=ids, ignore_ids=ignore_ids, ignore_index=ignore_index,
            swap_pairs=swap_pairs, side=side, colors=colors, ignore_colors=ignore_colors, unknown_color=unknown_color,
            instances=instances,
        )  # fmt: skip
        assert self.values.labels is not None
        super().__init__(labels=self.values.labels, split=split, transform=transform)
        check_scale(depth_scale)
        self.depth_scale, self.depth_gaps = depth_scale, depth_gaps
        self.root, self.manifest = folder, file
        table = read_table(self.manifest, {role: columns.get(role, role) for role in ROLES}, REQUIRED | set(columns),
                           delimiter)  # fmt: skip
        self.roles = tuple(role for role in FILES if role in table.roles)
        checks = _Checks(self.root, table.roles, splits, allow_outside, table.faults)
        rows = {checks.name(row): row for row in table.rows if checks.sound(row)}
        by_column = group is None and "group" in table.roles
        self._group: Any = {name: row.cells["group"] for name, row in rows.items()} if by_column else group
        chosen = self._chosen(rows, table.roles, checks.any, val_fraction=val_fraction, seed=split_seed, group=group,
                              fold=fold)  # fmt: skip
        self.files = [(name, *(checks.file(rows[name], role) for role in self.roles)) for name in chosen]
        checks.raise_faults(self.manifest)
        check_pixels(self._images(), self.pixels, self.manifest)

    def _images(self) -> list[Path]:
        return [files[self.roles.index("image")] for _, *files in self.files]

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
        """The folder to which paths are relative, and the CSV file."""
        if manifest is None and Path(root).suffix.lower() in _SUFFIXES:
            return Path(root).parent, Path(root)
        folder = data_root(root)
        if manifest is not None:
            return folder, folder / manifest
        found = sorted(path for path in list_folder(folder, self.how_to_get)
                       if path.suffix.lower() in _SUFFIXES and path.name not in COLOR_FILES)  # fmt: skip
        if len(found) != 1:
            raise DataError("several manifests" if found else "no manifest", subject=folder, expected="one CSV file",
                            found=shown(path.name for path in found or sorted(folder.iterdir())),
                            hint="select one with manifest=" if found else self.how_to_get)  # fmt: skip
        return folder, found[0]

    def _chosen(self, rows: Mapping[str, Row], roles: frozenset[str], faults: bool, **division: Any) -> list[str]:
        """The ids of a split."""
        names = list(rows)
        if not names and not faults:
            raise DataError("an empty manifest", subject=self.manifest, hint=self.how_to_get)
        if "split" in roles:
            refuse_division(division, self.manifest, "a column split")
        if self.split is None or (faults and len(names) < 2):
            return names
        if "split" in roles:
            part = [name for name in names if rows[name].cells["split"] == self.split]
            if not part and not faults:
                found = shown(sorted({row.cells["split"] for row in rows.values()}))
                raise DataError(f"no rows of split {self.split!r}", subject=self.manifest, found=found,
                                hint="choose another split, or correct the column")  # fmt: skip
            return part
        if self.split not in ("train", "val"):
            raise DataError(f"no split {self.split!r}", subject=self.manifest, expected="a column split",
                            found="none", hint='without this column there are "train" and "val"')  # fmt: skip
        return seeded_split(names, self.split, subject=self.manifest, **(division | {"group": self._group}))

    def __len__(self) -> int:
        return len(self.files)

    def groups(self) -> Mapping[str, str]:
        """The group of each sample by its id; empty if none are declared."""
        return {} if self._group is None else groups_of([name for name, *_ in self.files], self._group, self.manifest)

    def sources(self) -> list[Path]:
        """The manifest and all files that it lists."""
        others = (path for image in self._images() for path in channel_files(image, self.pixels)[1:])
        return [self.manifest, *(path for _, *files in self.files for path in files), *others]

    def read_stored(self, index: int) -> Stored:
        """Read the image of a sample without mapping its range."""
        return read_stored(self._images()[index], self.pixels)

    def load(self, index: int) -> Sample:
        """Decode the files of one row."""
        name, *files = self.files[index]
        paths = dict(zip(self.roles, files, strict=True))
        image, missing = decode_image(paths["image"], self.pixels)
        planes = self.values.planes(paths["mask"])
        check_same_size(image, planes["mask"], paths["image"], paths["mask"])
        sample: Sample = {"image": image, **planes, "mask": without_missing(planes["mask"], missing, self.labels)}
        if "depth" in paths:
            depth = read_depth(paths["depth"], self.depth_scale)
            check_same_size(image, depth, paths["image"], paths["depth"], "depth")
            if self.depth_gaps:
                valid = np.isfinite(depth) & (depth != 0)
                sample["valid"], depth = valid, np.where(valid, depth, np.float32(0))
            elif not np.isfinite(depth).all():
                raise DataError("depth that is not finite", subject=paths["depth"], hint="if these pixels were not "
                                "measured, set depth_gaps=True")  # fmt: skip
            sample["depth"] = depth
        if "weight" in paths:
            weight = read_depth(paths["weight"])
            check_same_size(image, weight, paths["image"], paths["weight"], "weight")
            if not (np.isfinite(weight) & (weight >= 0)).all():
                raise DataError("wrong weights", subject=paths["weight"], expected="finite numbers ≥ 0",
                                found=f"{weight.min()}…{weight.max()}", hint="correct the file")  # fmt: skip
            sample["weight"] = weight
        return {**sample, "id": name}


class _Checks:
    """Collects the faults of a manifest."""

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
        """Check a row by itself, and note its faults."""
        before = len(self.faults) + len(self._outside)
        for role in ROLES:
            if role in self.roles and not row.cells[role]:
                self._note(row, f"no {role}")
        split = row.cells.get("split")
        if split and split not in self.splits:
            self._note(row, f"unknown split {split!r}; {did_you_mean(split, self.splits, 'split')}")
        name = self.name(row)
        if name and self._lines.setdefault(name, row.line) != row.line:
            self._note(row, f"the id {name!r} is also in line {self._lines[name]}")
        for role in FILES:
            cell = row.cells.get(role)
            if cell and not (self.allow_outside or lies_inside(self.root, cell)):
                self._outside.append((row.line, cell))
        return len(self.faults) + len(self._outside) == before

    def file(self, row: Row, role: str) -> Path:
        """The path in a cell; a missing file is noted."""
        path = self.root / row.cells[role]
        if not os.path.isfile(path):
            what = "is not a file" if os.path.exists(path) else "does not exist"
            hint = "; use / instead of \\" if "\\" in row.cells[role] else ""
            self._note(row, f"{role} {row.cells[role]} {what}{hint}")
        return path

    @property
    def any(self) -> bool:
        """Whether there is a fault."""
        return bool(self.faults or self._outside)

    def raise_faults(self, manifest: Path) -> None:
        """Raise one error for all faults; files outside the folder count as one fault, as they have one fix."""
        faults, hint = list(self.faults), "correct the named lines"
        if self._outside:
            line, path = self._outside[0]
            more = f" (and {len(self._outside) - 1:,} more)" if len(self._outside) > 1 else ""
            faults.append(f"line {line}: {path} is outside the folder{more}")
            hint = f"{ALLOW_OUTSIDE}" + ("; correct the other lines" if self.faults else "")
        if faults:
            by_line = sorted(faults, key=lambda fault: int(fault.removeprefix("line ").partition(":")[0]))
            raise DataError("faulty manifest", subject=manifest, expected="one valid row per sample",
                            found=summary(by_line), hint=hint)  # fmt: skip

    def _note(self, row: Row, fault: str) -> None:
        self.faults.append(f"line {row.line}: {fault}")


def lies_inside(root: Path, cell: str) -> bool:
    """Whether a path is inside a folder as written; links in the folder are trusted."""
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
