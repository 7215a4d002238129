"""A cache of decoded and resized samples, one file per split.

A cache is never stale: it is valid only for the same options and code of the dataset, the same versions of the decoding
libraries and the same contents of all files.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CacheError, ConfigError, DataError, UnetzooError
from ..labels import LabelSpec
from ..terminal import progress_console
from . import cachefile, fingerprint
from .base import Sample, SegmentationDataset
from .cachefile import CacheReader, Damage, Packed
from .files import PathLike
from .listing import SHOWN, summary
from .parallel import processes
from .settings import pair
from .store import building, cache_root

FEW = 32  # up to this many samples, processes take longer to start than they save


def cached(
    dataset: Any,
    size: int | Sequence[int] | None = None,
    *,
    folder: PathLike | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CachedDataset:
    """Decode and resize the samples of a dataset once, and read them from one file afterwards.

    The first call builds the file, and later calls in any process use it until options, code or files of the dataset
    change. If several processes call at the same time, one of them builds and the others wait. A killed build leaves no
    file that could be mistaken for a complete one.

    Files are compared by content: all are read when the cache is built, and later those whose size, times or inode have
    changed.

    Args:
        dataset: The dataset; `sources()` lists its files. Its transform becomes that of the cached dataset.
        size: Side, or (height, width), to resize to, as by `Transform(size=…)`, which then does nothing.
        folder: Folder of the file; by default `$UNETZOO_CACHE/samples`, or `samples` in the user's cache folder.
        workers: Number of worker processes; by default one per CPU, 0 for none.
        progress: Show progress, and a message while waiting for another process.

    Raises:
        ConfigError: Wrong size or workers; the dataset does not list its files, or has options that cannot be compared.
        DataError: Faults of samples, in one error; files that changed while they were cached.
        CacheError: The cache cannot be written.

    Examples:
        >>> import tempfile
        >>> from unetzoo.datasets import Composites
        >>> data = Composites(length=4, size=64)
        >>> small = cached(data, 32, folder=tempfile.mkdtemp())
        >>> small[3]["image"].shape, small[3]["id"] == data[3]["id"]
        ((32, 32, 6), True)
    """
    if isinstance(dataset, CachedDataset):
        raise ConfigError("the dataset is already cached", subject=dataset, hint="cache the original dataset")
    sides = pair("size", size, subject="cached")
    processes(workers)  # refuses a wrong number before any work
    raw = copy.copy(dataset)
    raw.transform = None
    identity = fingerprint.digest(
        "cache", str(cachefile.FORMAT).encode(), fingerprint.of_value(sides, "size"), fingerprint.of_dataset(raw)
    )
    place = Path(folder) if folder is not None else cache_root() / "samples"
    split = re.sub(r"[^\w-]", "_", str(getattr(raw, "split", None) or "all"))[:40]
    path = place / f"{type(raw).__name__.lower()}-{split}-{identity.hex()[:20]}.cache"
    with _Display(progress) as display:
        sources = fingerprint.Sources(_sources(raw), path.with_name(f"{path.name}.sources"))
        key = fingerprint.digest("key", identity, sources.digest(display.track("reading the files")))
        with building(path, usable=lambda path: _usable(path, key), say=display.say) as draft:
            if draft is not None:
                if path.exists():
                    display.say(f"{path} is damaged, or its dataset has changed: building it again")
                count = _processes(workers, len(raw))
                _build(raw, sides, draft, key, count, display.track(f"caching {type(raw).__name__}"))
                if fingerprint.digest("key", identity, sources.digest()) != key:
                    raise DataError("files changed while they were cached", subject=dataset, hint="run it again")
    return CachedDataset(dataset, path, key)


class CachedDataset(SegmentationDataset):
    """A dataset whose samples are in a cache file; created by `cached`.

    Label set, split, transform and, if any, the baseline are those of the original. Each process opens the file on
    first access.

    Args:
        source: The original dataset.
        path: The cache file.
        key: The required key of the file.

    Raises:
        CacheError: On access, if the file was deleted, replaced, truncated or modified.
    """

    def __init__(self, source: Any, path: Path, key: bytes) -> None:
        super().__init__(
            labels=source.labels, split=getattr(source, "split", None), transform=getattr(source, "transform", None)
        )
        self.source, self.path, self.key = source, path, key
        self.pixels = getattr(source, "pixels", None)
        if hasattr(source, "baseline"):
            self.baseline: Callable[[Sample], Any] = source.baseline
        self._reader: CacheReader | None = None

    def __getstate__(self) -> dict[str, object]:
        """Each process opens the file itself."""
        return self.__dict__ | {"_reader": None}

    def __len__(self) -> int:
        return len(self.source)

    def load(self, index: int) -> Sample:
        """Copy a sample out of the file."""
        if self._reader is None or self._reader.process != os.getpid():  # forked processes share the position in a file
            self._reader = CacheReader(self.path, self.key)
        return self._reader[index]

    def sources(self) -> list[Path]:
        """The files of the original dataset."""
        return [Path(file) for file in self.source.sources()]


class _Samples:
    """Samples in the form in which they are stored.

    Errors are returned, since an error raised in a worker process loses its attributes.
    """

    def __init__(self, dataset: Any, sides: tuple[int, int] | None) -> None:
        self.dataset, self.sides = dataset, sides
        self.mask_type = _mask_type(dataset.labels)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Packed | UnetzooError:
        try:
            return cachefile.pack(self._sample(index), self.mask_type)
        except UnetzooError as error:
            return error
        except Exception as error:  # third-party datasets may raise anything
            return DataError(
                "the dataset raises an error for a sample", subject=f"{type(self.dataset).__name__}[{index}]",
                found=f"{type(error).__name__}: {error}", hint="load this sample to see the traceback",
            )  # fmt: skip

    def _sample(self, index: int) -> Sample:
        sample = self.dataset[index]
        if self.sides is None:
            return sample
        from .geometry import planes_of, resize

        return {**sample, **resize(planes_of(sample), *self.sides)}


def _build(
    dataset: Any, sides: tuple[int, int] | None, draft: Path, key: bytes, workers: int, track: Callable[..., Any]
) -> None:
    """Write all samples into `draft`.

    Raises:
        DataError: Faults of samples, at most 20, in one error.
        CacheError: It cannot be written, or a process died.
    """
    samples = _Samples(dataset, sides)
    faults: list[UnetzooError] = []

    def valid(made: Iterator[Packed | UnetzooError]) -> Iterator[Packed]:
        """Yield the samples before the first fault, and collect faults after it."""
        for found in track(made, total=len(samples)):
            if isinstance(found, UnetzooError):
                faults.append(found)
                if not isinstance(found, DataError) or isinstance(found, CacheError) or len(faults) == SHOWN:
                    return
            elif not faults:
                yield found

    try:
        with contextlib.closing(_each(samples, workers)) as made:
            cachefile.write(draft, key, valid(made))
    except RuntimeError as error:  # torch raises it from a signal handler, wherever this process happens to be
        raise CacheError("a process that builds the cache died", subject=draft, found=str(error),
                         hint="if memory ran out, use fewer workers") from error  # fmt: skip
    if len(faults) == 1 or (faults and isinstance(faults[-1], CacheError)):
        raise faults[-1]
    if faults:
        raise DataError("samples cannot be cached", subject=dataset, found=summary([str(fault) for fault in faults]),
                        hint="correct the named files")  # fmt: skip


def _each(samples: _Samples, workers: int) -> Generator[Packed | UnetzooError]:
    if not workers:
        yield from (samples[index] for index in range(len(samples)))
        return
    import torch
    from torch.utils.data import DataLoader

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # the user chose the number
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)  # from the progress bar
        loader = DataLoader(
            samples,  # pyright: ignore[reportArgumentType] -- it needs only length and items
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,  # pyright: ignore[reportArgumentType] -- there are no batches
            generator=torch.Generator(),  # leaves the global state alone
            prefetch_factor=4,
        )
        iterator = iter(loader)
    yield from iterator


def _unchanged(found: Packed | UnetzooError) -> Packed | UnetzooError:
    return found


def _sources(dataset: Any) -> list[Path]:
    named = dataset.sources() if hasattr(dataset, "sources") else SegmentationDataset.sources(dataset)
    return [Path(file) for file in named]


def _usable(path: Path, key: bytes) -> bool:
    try:
        return path.exists() and len(CacheReader(path, key)) >= 0
    except Damage:
        return False


def _mask_type(labels: LabelSpec) -> np.dtype:
    """The smallest integer type for class indices and the ignored value.

    Examples:
        >>> _mask_type(LabelSpec.indexed(19, 255)), _mask_type(LabelSpec.indexed(2, -100))
        (dtype('uint8'), dtype('int8'))
    """
    ignored = labels.ignore_index if labels.ignore_index is not None else 0
    wide = np.promote_types(np.min_scalar_type(labels.classes - 1), np.min_scalar_type(ignored))
    narrow = (np.dtype(kind) for kind in (np.uint8, np.int8, np.uint16, np.int16))
    low, high = min(0, ignored), max(labels.classes - 1, ignored)
    return next((kind for kind in narrow if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max), wide)


def _processes(workers: int | None, samples: int) -> int:
    count = min(processes(workers), samples)
    return 0 if workers is None and (samples <= FEW or count == 1) else count


class _Display:
    """Progress bars and messages on the terminal."""

    def __init__(self, enabled: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.console = progress_console(quiet=not enabled)
        self.bars = Progress(*columns, console=self.console, transient=True, disable=not enabled)

    def __enter__(self) -> _Display:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def track(self, what: str) -> Callable[..., Any]:
        def track(pieces: Any, total: int | None = None) -> Iterator[Any]:
            return iter(self.bars.track(pieces, total=total if total is not None else len(pieces), description=what))

        return track
