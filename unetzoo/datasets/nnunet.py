"""Raw data of nnU-Net, and of the Medical Segmentation Decathlon.

Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18:203–211; the format: documentation/dataset_format.md of https://github.com/MIC-DKFZ/nnUNet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import DataError
from ..images import Pixels
from ..images.decode import IMAGE_SUFFIXES, split_name
from ..labels import LabelSpec
from .base import SampleTransform, seeded_split
from .declared import check_reading
from .file_dataset import FileDataset
from .files import PathLike
from .layout import FileLayout, FilePattern
from .listing import list_folder, summary

PLAN = "dataset.json"
_LARGEST = 64 * 2**20  # bytes of a dataset.json, which may list all files
_ASIDE = (re.escape(PLAN), r"(?:imagesTs|labelsTs)/.*", r"splits_final\.json")


def _layout(name: str, ending: str, about: str, certainty: float) -> FileLayout:
    return FileLayout(
        name, about,
        (FilePattern("image", f"imagesTr/{{name}}{ending}.png"), FilePattern("mask", "labelsTr/{name}.png")),
        aside=(*_ASIDE, r"imagesTr/[^/]+_\d{4}\.[^/]+"), strict=False, sample_names="case_{:03d}", certainty=certainty,
    )  # fmt: skip


class NnUNet(FileDataset):
    r"""Images and labels as nnU-Net reads them: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and `dataset.json`.

    `dataset.json` declares the classes (`labels`) and the channels (`channel_names`, formerly `modality`); each channel
    is a file with the ending `_0000`, `_0001`, …. A label named "ignore" is not learned. Labels in the old order
    (`{"0": "background"}`) are read too, and so are the volumes of the Medical Segmentation Decathlon, which have no
    ending and all channels in one file. PNG, TIFF and NIfTI files are read; NIfTI files need nibabel
    (`pip install "unetzoo[medical]"`).

    Volumes are cut into slices, which are the samples. A seeded share of the cases is "val", and all slices of a case
    are on the same side. `imagesTs/` has no labels; use `unetzoo predict`, which joins slices to volumes.

    Args:
        root: The folder that contains these, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val" or "all".
        axis: The axis along which volumes are cut, "x", "y" or "z"; by default "z" for NIfTI files. Declare "z" if the
            pages of TIFF files are slices.
        range: The values that become 0 and 1; see `unetzoo.images.Pixels`. By default "image" (percentiles of each
            volume and channel) for NIfTI files, else undeclared, for images of 8 bits. For computed tomography declare
            Hounsfield units, e.g. [-160, 240].
        val_fraction: Share of the cases in "val".
        split_seed: Seed of this division.
        group: Regular expression of the group of a case in its name, e.g. of the patient: its first capturing group, or
            else the whole match. The cases of a group are on the same side.
        fold: "k/n": "val" is the k-th of n folds of the cases, instead of `val_fraction`.
        transform: `transform(sample, rng) -> sample`, or None.

    Raises:
        ConfigError: Inconsistent arguments, or nibabel is missing.
        DataError: Wrong layout, or an invalid `dataset.json`; `PairingError` for unmatched files, `SizeMismatchError`
            for volumes and labels of different shapes. On access also `ImageDecodeError`, `LabelRangeError`.

    Examples:
        >>> import tempfile, numpy as np; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        ...     (root / folder).mkdir()
        ...     for case in ("a", "b"):
        ...         Image.fromarray(np.eye(8, dtype=np.uint8)).save(root / folder / f"{case}{ending}.png")
        >>> plan = {"channel_names": {"0": "gray"}, "labels": {"background": 0, "line": 1}, "file_ending": ".png"}
        >>> _ = (root / "dataset.json").write_text(json.dumps(plan))
        >>> data = NnUNet(root, "all")
        >>> len(data), data.labels.names, data[0]["image"].shape
        (2, ('background', 'line'), (8, 8, 1))
    """

    how_to_get: ClassVar[str] = (
        "root is the folder DatasetXXX_NAME of nnUNet_raw, or TaskXX_NAME of the Medical Segmentation Decathlon, with "
        "imagesTr/, labelsTr/ and dataset.json"
    )
    layouts = (
        _layout("nnunet", "_0000", "nnU-Net: imagesTr/CASE_0000, labelsTr/CASE and dataset.json", 1.0),
        _layout("", "", "Medical Segmentation Decathlon: imagesTr/CASE, labelsTr/CASE and dataset.json", 0.9),
    )
    splits = ("train", "val", "all")

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "all"] = "train",
        *,
        axis: str | None = None,
        range: Any = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        group: str | None = None,
        fold: str | None = None,
        transform: SampleTransform | None = None,
    ) -> None:
        check_reading(val_fraction)
        super().__init__(
            root, split, transform=transform, axis=axis, range=range, val_fraction=val_fraction, split_seed=split_seed,
            group=group, fold=fold,
        )  # fmt: skip

    @classmethod
    def layouts_in(cls, root: Path, **options: Any) -> tuple[FileLayout, ...]:
        """The layout of a folder: labels and channels from its `dataset.json`, the kind of files from their names."""
        suffix, endings = _kinds(root)
        if not (root / PLAN).is_file():
            return cls.layouts[1:] if suffix and not endings else cls.layouts[:1]  # the error names what is missing
        labels, channels = read_plan(root / PLAN)
        axis, limits = ("z", "image") if suffix in (".nii", ".nii.gz") else (None, None)
        pixels = Pixels(
            channels, files="_{:04d}" if endings == channels else (), axis=options.get("axis") or axis,
            range=options.get("range") or limits,
        )  # fmt: skip
        layout = cls.layouts[0 if endings else 1]
        return (replace(layout, labels=labels, pixels=pixels),)

    @classmethod
    def divide(
        cls, names: Sequence[str], split: str, root: Path, *, val_fraction: float = 0.2, split_seed: int = 0,
        group: str | None = None, fold: str | None = None, **options: Any,
    ) -> Collection[str]:  # fmt: skip
        """A seeded share of the cases, or a fold, is val."""
        if split == "all":
            return names
        return seeded_split(names, split, val_fraction, split_seed, group=group, fold=fold, subject=root)

    def _choose(self, layouts: Sequence[FileLayout], split: str | None) -> FileLayout:
        layout = super()._choose(layouts, split)
        if layout.labels is None:
            raise self._wrong_layout(self.root, PLAN)
        return layout


def _kinds(root: Path) -> tuple[str, int]:
    """Suffix of the images, and the number of endings `_0000`, `_0001`, … that their stems have and labels do not."""
    images, labels = (sorted(split_name(path) for path in list_folder(root / name)) if (root / name).is_dir() else []
                      for name in ("imagesTr", "labelsTr"))  # fmt: skip
    cases = {stem for stem, _ in labels}
    found = {stem[-5:] for stem, _ in images if re.search(r"_\d{4}$", stem) and stem[:-5] in cases}
    return next((suffix.lower() for _, suffix in images if suffix.lower() in IMAGE_SUFFIXES), ""), len(found)


def read_plan(path: Path) -> tuple[LabelSpec, int]:
    """Read the label set and the number of channels from a `dataset.json`.

    Raises:
        DataError: It cannot be read, or is invalid; all faults are reported at once.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "dataset.json"
        >>> _ = path.write_text('{"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "tumor"}}')
        >>> read_plan(path)[0].names, read_plan(path)[1]
        (('background', 'tumor'), 1)
    """
    hint = "correct it; see documentation/dataset_format.md of nnU-Net"
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError("not a dataset.json", subject=path, expected=f"at most {_LARGEST // 2**20} MiB", hint=hint)
        plan = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise DataError("cannot read dataset.json", subject=path, found=found, hint=hint) from error
    plan = plan if isinstance(plan, Mapping) else {}
    given, channels = plan.get("labels"), plan.get("channel_names", plan.get("modality"))
    tables = {"labels": given, "channel_names": channels}
    faults = [f"{name} is missing, or not a table" for name, table in tables.items()
              if not isinstance(table, Mapping) or not table]  # fmt: skip
    values: dict[str, int] = {}
    for key, value in given.items() if isinstance(given, Mapping) else ():
        name, number = (str(value), key) if str(key).isdecimal() and not str(value).isdecimal() else (str(key), value)
        if isinstance(number, list | tuple):
            faults.append(f"the label {name!r} is a region of several values, which is not supported")
        elif not re.fullmatch(r"\d{1,5}", str(number)):
            faults.append(f"the label {name!r} has the value {number!r}, not a number")
        elif name in values or int(number) in values.values():
            faults.append(f"the label {name!r} or its value {number} occurs twice")
        else:
            values[name] = int(number)
    ignored = values.pop("ignore", None)
    if not faults and not values:
        faults.append("there are no labels")
    if faults:
        raise DataError("invalid dataset.json", subject=path, expected='"labels" and "channel_names"',
                        found=summary(faults), hint=hint)  # fmt: skip
    names = sorted(values, key=values.__getitem__)
    ignore = {} if ignored is None else {"ignore_ids": (ignored,), "ignore_index": 255}
    return LabelSpec(tuple(names), tuple(values[name] for name in names), **ignore), len(channels or ())
