"""Audit a dataset by its samples: for plugins without a declared layout, and for data without files."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..datasets.layout import FileLayout
from ..datasets.stats import clipping
from ..errors import DataError, UnetzooError
from ..images.display import as_rgb
from ..labels import LabelSpec
from ..wording import describe
from .alignment import BLOCK, compare
from .facts import DepthFacts, Record
from .findings import Findings
from .report import Report
from .sample_checks import check_record
from .set_checks import check_balance, check_set, class_shares, spread
from .sheet import Look
from .stacks import image_of_array, label_map_of, mask_of_array

SAMPLES = FileLayout("", "samples", ())


def records_of(
    dataset: Any, split: str | None, indices: Sequence[int], found: Findings, tick: Callable[[], None]
) -> Iterator[Record]:
    """A record of each valid sample; errors and violations of the contract become findings."""
    plain = untransformed(dataset)
    for index in indices:
        place = place_of(split, index)
        try:
            sample = plain[index]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit included
            found.add("sample-error", place, str(error) if isinstance(error, UnetzooError) else describe(error))
        else:
            record = _record(sample, place, split, labels_of(dataset), found)
            if record is not None:
                check_record(record, SAMPLES, found)
                yield record
        tick()


def untransformed(dataset: Any) -> Any:
    """A copy of the dataset without its transform."""
    plain = copy.copy(dataset)
    if getattr(plain, "transform", None) is not None:
        plain.transform = None
    return plain


def place_of(split: str | None, index: int) -> str:
    """Name of a sample by its index."""
    return f"{split} {index}" if split else f"sample {index}"


def labels_of(dataset: Any) -> LabelSpec | None:
    """The label set of a dataset; None if it violates the contract."""
    labels = getattr(dataset, "labels", None)
    return labels if isinstance(labels, LabelSpec) else None


def _record(sample: Any, place: str, split: str | None, labels: LabelSpec | None, found: Findings) -> Record | None:
    if not isinstance(sample, dict) or not {"image", "mask", "id"} <= set(sample):
        keys = ", ".join(map(str, sample)) if isinstance(sample, dict) else type(sample).__name__
        found.add("broken-contract", place, f"expected a dict with image, mask and id, found {keys}")
        return None
    name = f"{place} ({sample['id']})"
    image, mask = _array(sample["image"]), _array(sample["mask"])
    if image is None or image.ndim not in (2, 3) or not image.size:
        found.add("broken-contract", name, "expected an image (H, W, C)")
        return None
    if mask is None or mask.ndim != 2 or not mask.size or mask.dtype.kind not in "ui":
        shape = f"{mask.dtype} {mask.shape}" if mask is not None else type(sample["mask"]).__name__
        found.add("broken-contract", name, f"expected a mask of integers (H, W), found {shape}")
        return None
    record = Record(
        (place,), split, image_of_array(name, _bytes(image)), [mask_of_array(name, mask)], id=str(sample["id"])
    )
    if "instances" in sample:
        numbers = _array(sample["instances"])
        if numbers is None or numbers.dtype.kind not in "ui" or numbers.shape != mask.shape or numbers.min() < 0:
            shape = f"{numbers.dtype} {numbers.shape}" if numbers is not None else type(sample["instances"]).__name__
            found.add("broken-contract", name, f"expected instances as integers ≥ 0 {mask.shape}, found {shape}")
    if labels is not None:
        _check_classes(mask, labels, name, found)
        record.label_map = label_map_of(mask, labels)
    depth = _array(sample["depth"]) if "depth" in sample else None
    if depth is not None and depth.size:
        plane = np.squeeze(depth)
        record.depth = DepthFacts(name, size=plane.shape[::-1], constant=bool(plane.min() == plane.max()))  # type: ignore[arg-type]
    return record


def _check_classes(mask: np.ndarray, labels: LabelSpec, name: str, found: Findings) -> None:
    values, counts = np.unique(mask, return_counts=True)
    strange = [
        f"{value} ({count:,} px)" for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if not 0 <= value < labels.classes and value != labels.ignore_index
    ]  # fmt: skip
    if strange:
        found.add("out-of-range-id", name, ", ".join(strange[:5]) + f"; classes are 0…{labels.classes - 1}")


def _array(value: Any) -> np.ndarray | None:
    try:
        array = np.asarray(value)
    except Exception:  # foreign types may raise anything
        return None
    return array if array.dtype.kind in "uifb" else None


def image_of(image: Any) -> np.ndarray:
    """The image of a sample for display, uint8 (H, W, 3): the first three channels, or gray."""
    planes = _bytes(np.asarray(image))
    return np.ascontiguousarray(as_rgb(planes if planes.ndim == 3 else planes[..., None]))


def _bytes(image: np.ndarray) -> np.ndarray:
    """The image as uint8 (H, W, C); other types are scaled to 0…255."""
    if image.dtype.kind == "f" and image.ndim == 3 and image.shape[0] <= 6 < image.shape[2]:
        image = np.moveaxis(image, 0, 2)
    if image.dtype != np.uint8:
        low, high = float(np.nanmin(image)), float(np.nanmax(image))
        image = np.nan_to_num((image - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image


def audit_samples(
    parts: Mapping[Any, Any], found: Findings, limit: int | None, progress: Callable[[int, int], None] | None
) -> tuple[Report, list[Record], Look]:
    """Audit datasets, given by split. Samples are read in sequence, because datasets need not be thread-safe.

    Raises:
        DataError: There is no dataset, or one without a length.
    """
    if not parts:
        raise DataError("no datasets", expected="datasets by split", found="none", hint="pass at least one")
    chosen = {str(split): (part, spread(_length(part), limit)) for split, part in parts.items()}
    total, done = sum(len(indices) for _, indices in chosen.values()), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    labels = next((labels for part, _ in chosen.values() if (labels := labels_of(part))), None)
    if labels is None:
        found.add("broken-contract", "labels", "the dataset has no labels, a LabelSpec")
    records = [record for split, (part, indices) in chosen.items()
               for record in records_of(part, split, indices, found, tick)]  # fmt: skip
    for start in range(0, len(records), BLOCK):
        compare(records[start : start + BLOCK], found)
    check_set(records, labels, {record.image_file: record.split for record in records if record.split}, found)
    for split, (part, indices) in chosen.items():
        with contextlib.suppress(UnetzooError):  # files that cannot be read are other findings
            if outside := clipping(part, indices):
                found.add("range-clips", split, str(outside))
    shares = class_shares(records, labels) if labels else ()
    check_balance(shares, found, doubt=False)
    name = type(next(iter(parts.values()))).__name__
    report = Report(
        name, name, labels=labels, classes=shares, samples=sum(_length(part) for part, _ in chosen.values()),
        audited=len(records), splits={split: _length(part) for split, (part, _) in chosen.items()},
    )  # fmt: skip
    places = {place_of(split, index): (untransformed(part), index)
              for split, (part, indices) in chosen.items() for index in indices}  # fmt: skip
    return report, records, look_into_samples(places)


def look_into_samples(places: Mapping[str, tuple[Any, int]]) -> Look:
    """A function that reads samples again, each given by its dataset, without transform, and its index."""

    def look(record: Record) -> tuple[Image.Image | None, np.ndarray | None]:
        dataset, index = places[record.name]
        sample = dataset[index]
        return Image.fromarray(image_of(sample["image"])), np.asarray(sample["mask"]).astype(np.int64)

    return look


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except Exception as error:  # a plugin may raise anything
        raise DataError("not a dataset", subject=type(dataset).__name__, expected="a length, items and labels",
                        found=describe(error), hint="pass a dataset of finite length") from error  # fmt: skip
