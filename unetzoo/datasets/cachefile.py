"""The cache file of a split: an uncompressed NumPy archive (.npz) with one entry per plane.

`numpy.load` can read it: `"12/image"` is the image of sample 12. Sizes, offsets and CRC-32 checksums are those of the
zip format. The last entry, `samples.json`, has the key of the file and the other values of each sample.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CacheError, DataError
from .base import Sample
from .geometry import PLANES, planes_of
from .store import our_errors

FORMAT = 3
_SAMPLES = "samples.json"


class Packed(NamedTuple):
    """A sample in the form in which it is stored: planes, and the other values as JSON."""

    planes: dict[str, np.ndarray]
    extra: str


def pack(sample: Sample, mask_type: np.dtype) -> Packed:
    """Convert a sample to the types that are stored.

    Raises:
        DataError: Planes of unexpected types, or values that JSON cannot represent.
    """
    planes = planes_of(sample)
    extra = {name: value for name, value in sample.items() if name not in PLANES}
    try:
        text = json.dumps(extra)
        kept = json.loads(text) == extra
    except (TypeError, ValueError):
        text, kept = "", False
    if not kept:
        raise DataError("a sample has values that cannot be cached", subject=sample.get("id"), found=repr(extra)[:200],
                        expected="planes, and strings, numbers, lists and dicts",
                        hint="change the samples of the dataset")  # fmt: skip
    types = _types(mask_type)
    return Packed({name: _narrowed(plane, types[name], name, sample.get("id")) for name, plane in planes.items()}, text)


def _narrowed(plane: np.ndarray, kind: np.dtype, name: str, subject: object) -> np.ndarray:
    """Convert a plane to its stored type, if that preserves its values."""
    if name == "instances":  # planes_of has checked their range
        return plane.astype(kind)
    if name == "mask" and plane.dtype.kind in "iu":
        limits = np.iinfo(kind)
        if plane.size and (int(plane.min()) < limits.min or int(plane.max()) > limits.max):
            raise DataError("mask values outside the label set", subject=subject, expected=f"{limits.min}…{limits.max}",
                            found=f"{plane.min()}…{plane.max()}", hint="correct the labels of the dataset")  # fmt: skip
        return plane.astype(kind)
    if plane.dtype != kind and not (name == "image" and plane.dtype == np.float32):
        raise DataError("a plane that cannot be cached", subject=subject, expected=f"{name} as {kind}",
                        found=str(plane.dtype), hint="see unetzoo.datasets.base for the types of samples")  # fmt: skip
    return plane


def _types(mask_type: np.dtype) -> dict[str, np.dtype]:
    others = {"image": np.uint8, "instances": np.int32, "depth": np.float32, "valid": np.bool_, "weight": np.float32}
    return {name: mask_type if name == "mask" else np.dtype(others[name]) for name in PLANES}


def write(place: Path, key: bytes, samples: Iterable[Packed]) -> None:
    """Write all samples into a new file.

    Raises:
        CacheError: The disk is full or cannot be written.
    """
    said: list[tuple[str, list[str]]] = []
    with our_errors(place), zipfile.ZipFile(place, "w") as archive:
        for planes, extra in samples:
            for name, plane in planes.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, plane, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{len(said)}/{name}.npy"), content.getbuffer())
            said.append((extra, list(planes)))
        archive.writestr(zipfile.ZipInfo(_SAMPLES), json.dumps({"key": key.hex(), "samples": said}))


class Damage(CacheError):
    """A damaged cache file."""


class CacheReader:
    """Reads samples of a cache file in one process.

    Args:
        path: The file.
        key: Its required key.

    Raises:
        Damage: A wrong key, or a damaged file.
        CacheError: It cannot be read.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self.path, self.process = path, os.getpid()
        try:
            self._file = open(path, "rb")
        except OSError as error:
            raise CacheError("cannot read the cache", subject=path, found=str(error),
                             hint="change its permissions, or delete it") from error  # fmt: skip
        try:
            self._archive = zipfile.ZipFile(self._file)
            about = json.loads(self._archive.read(_SAMPLES))
            self._said, found = about["samples"], about["key"]
        except Exception as error:  # zipfile raises anything for a broken archive
            raise self._damage(f"{type(error).__name__}: {error}") from error
        if found != key.hex():
            raise Damage("the cache is of other data", subject=path, hint="run it again: the cache is rebuilt")

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # never opened
            self._file.close()

    def _damage(self, found: str) -> Damage:
        return Damage("the cache is damaged", subject=self.path, found=found, hint="delete it: the cache is rebuilt")

    def __len__(self) -> int:
        return len(self._said)

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises:
            Damage: The file was truncated or modified. It is deleted, so that the next call rebuilds it.
        """
        extra, names = self._said[index]
        try:
            planes = {name: self._plane(f"{index}/{name}.npy") for name in names}
        except Exception as error:  # zipfile and NumPy raise anything for a broken archive
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise self._damage(f"sample {index}: {type(error).__name__}: {error}") from error
        found: dict[str, Any] = {name: planes[name] for name in PLANES if name in planes}
        return found | json.loads(extra)

    def _plane(self, name: str) -> np.ndarray:
        content = io.BytesIO(self._archive.read(name))  # zipfile verifies the checksum
        return np.lib.format.read_array(content, allow_pickle=False)
