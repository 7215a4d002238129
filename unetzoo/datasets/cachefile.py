"""The one file that holds a split's samples: an uncompressed NumPy archive (.npz), an entry for each plane.

`numpy.load` reads it, too: `"12/image"` is the image of sample 12. Sizes, places and CRC-32 checksums are those of the
zip format. `samples.json` comes last: what the file was made of, and what else each sample says.
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

FORMAT = 2
_SAMPLES = "samples.json"


class Packed(NamedTuple):
    """A sample as it is kept: its planes, and what else it says, as JSON."""

    planes: dict[str, np.ndarray]
    extra: str


def pack(sample: Sample, mask_type: np.dtype) -> Packed:
    """A sample in the types that are kept.

    Raises:
        DataError: Planes of types that samples do not have, or extras that JSON does not keep.
    """
    planes = planes_of(sample)
    extra = {name: value for name, value in sample.items() if name not in PLANES}
    try:
        text = json.dumps(extra)
        kept = json.loads(text) == extra
    except (TypeError, ValueError):
        text, kept = "", False
    if not kept:
        raise DataError("a cache cannot keep all of a sample", subject=sample.get("id"), found=repr(extra)[:200],
                        expected="beside its planes only texts, numbers, lists and tables of them",
                        hint="change the dataset's samples")  # fmt: skip
    types = _types(mask_type)
    return Packed({name: _narrowed(plane, types[name], name, sample.get("id")) for name, plane in planes.items()}, text)


def _narrowed(plane: np.ndarray, kind: np.dtype, name: str, subject: object) -> np.ndarray:
    """A plane in the type it is kept in, unless that would change its values."""
    if name == "mask" and plane.dtype.kind in "iu":
        limits = np.iinfo(kind)
        if plane.size and (int(plane.min()) < limits.min or int(plane.max()) > limits.max):
            raise DataError("mask values beyond the label set", subject=subject, expected=f"{limits.min}…{limits.max}",
                            found=f"{plane.min()}…{plane.max()}", hint="correct the dataset's labels")  # fmt: skip
        return plane.astype(kind)
    if plane.dtype != kind:
        raise DataError("a plane that a cache cannot keep", subject=subject, expected=f"{name} as {kind}",
                        found=str(plane.dtype), hint="give samples as unetzoo.datasets.base says")  # fmt: skip
    return plane


def _types(mask_type: np.dtype) -> dict[str, np.dtype]:
    others = {"image": np.uint8, "depth": np.float32, "valid": np.bool_, "weight": np.float32}
    return {name: mask_type if name == "mask" else np.dtype(others[name]) for name in PLANES}


def write(place: Path, key: bytes, samples: Iterable[Packed]) -> None:
    """Write all samples into a new file.

    Raises:
        CacheError: The disk is full, or will not be written.
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
    """A cache file that is not as it was written."""


class CacheReader:
    """Samples of a finished file, for one process.

    Args:
        path: The file.
        key: What it must have been made of.

    Raises:
        Damage: Another key, or not whole.
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
        except Exception as error:  # whatever a broken archive makes zipfile raise
            raise self._damage(f"{type(error).__name__}: {error}") from error
        if found != key.hex():
            raise Damage("the cache was made of other data", subject=path, hint="start again: it is made anew")

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it was never opened
            self._file.close()

    def _damage(self, found: str) -> Damage:
        return Damage("the cache is damaged", subject=self.path, found=found, hint="delete it: it is made anew")

    def __len__(self) -> int:
        return len(self._said)

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises:
            Damage: The file has been cut or altered. It is deleted, so that the next start makes it anew.
        """
        extra, names = self._said[index]
        try:
            planes = {name: self._plane(f"{index}/{name}.npy") for name in names}
        except Exception as error:  # whatever a broken archive makes zipfile and NumPy raise
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise self._damage(f"sample {index} cut or altered: {type(error).__name__}: {error}") from error
        found: dict[str, Any] = {name: planes[name] for name in PLANES if name in planes}
        return found | json.loads(extra)

    def _plane(self, name: str) -> np.ndarray:
        content = io.BytesIO(self._archive.read(name))  # zipfile compares the checksum
        return np.lib.format.read_array(content, allow_pickle=False)
