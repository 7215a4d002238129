"""Decoded and resized samples, kept in one file per split, so that the work is done once.

A cache is never stale: it is used only while the dataset's options, its code, the decoding libraries and the content of
every file it reads are those it was made of.
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

FEW = 32  # samples for which starting processes does not pay


def cached(
    dataset: Any,
    size: int | Sequence[int] | None = None,
    *,
    folder: PathLike | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CachedDataset:
    """The same dataset, its samples decoded and resized once and then read from one file.

    The file is built by the first call and used by all later ones, in any process, until options, code or files of the
    dataset change. Of several processes that call together one builds and the others wait for it. A build that is
    killed leaves nothing that a later one takes for whole.

    Files are compared by content: all are read when the cache is built, and later those whose size, times or place on
    the disk have changed.

    Args:
        dataset: The dataset; it names its files by `sources()`. Its transform goes on to the cached one.
        size: Resize to this side, or to (height, width), as `Transform(size=…)` does, which then has nothing to do.
        folder: Where the file goes; `$UNETZOO_CACHE/samples`, or that of the user's cache folder, by default.
        workers: Processes that build; one a CPU by default, 0 for none beside this one.
        progress: Show a bar while files are read and samples are made, and say when another process is waited for.

    Raises:
        ConfigError: The dataset does not say which files it reads, or has options that cannot be compared.
        DataError: Faults of the samples, all together; files that changed meanwhile.
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
        raise ConfigError("the dataset is cached already", subject=dataset, hint="cache the dataset itself")
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
                    display.say(f"{path} is damaged, or its dataset has changed: it is made anew")
                count = _processes(workers, len(raw))
                _build(raw, sides, draft, key, count, display.track(f"caching {type(raw).__name__}"))
                if fingerprint.digest("key", identity, sources.digest()) != key:
                    raise DataError("files changed while they were cached", subject=dataset, hint="start again")
    return CachedDataset(dataset, path, key)


class CachedDataset(SegmentationDataset):
    """A dataset whose samples come from a cache file; made by `cached`.

    Label set, split, transform and, if there is one, the baseline are the original's. Each process opens the file when
    it first reads from it.

    Args:
        source: The dataset whose samples were kept.
        path: The file.
        key: What the file must have been made of.

    Raises:
        CacheError: On access, where the file has been deleted, replaced, cut or altered.
    """

    def __init__(self, source: Any, path: Path, key: bytes) -> None:
        super().__init__(
            labels=source.labels, split=getattr(source, "split", None), transform=getattr(source, "transform", None)
        )
        self.source, self.path, self.key = source, path, key
        if hasattr(source, "baseline"):
            self.baseline: Callable[[Sample], Any] = source.baseline
        self._reader: CacheReader | None = None

    def __getstate__(self) -> dict[str, object]:
        """Each process opens the file itself."""
        return self.__dict__ | {"_reader": None}

    def __len__(self) -> int:
        return len(self.source)

    def load(self, index: int) -> Sample:
        """Copy one sample out of the file."""
        if self._reader is None or self._reader.process != os.getpid():  # a forked process shares the place in a file
            self._reader = CacheReader(self.path, self.key)
        return self._reader[index]

    def sources(self) -> list[Path]:
        """The original's files."""
        return [Path(file) for file in self.source.sources()]


class _Samples:
    """A dataset as those who build see it: sample i as it is kept.

    Faults are handed on too: raised in a process of its own, an error would lose its parts.
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
        except Exception as error:  # a dataset that we did not write may raise anything
            return DataError(
                "the dataset failed on a sample", subject=f"{type(self.dataset).__name__}[{index}]",
                found=f"{type(error).__name__}: {error}", hint="load this sample alone to see where",
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
        DataError: Faults of samples, all together, 20 at most.
        CacheError: It cannot be written, or a process died.
    """
    samples = _Samples(dataset, sides)
    faults: list[UnetzooError] = []

    def sound(made: Iterator[Packed | UnetzooError]) -> Iterator[Packed]:
        """The samples up to the first fault; behind it, more faults."""
        for found in track(made, total=len(samples)):
            if isinstance(found, UnetzooError):
                faults.append(found)
                if not isinstance(found, DataError) or isinstance(found, CacheError) or len(faults) == SHOWN:
                    return
            elif not faults:
                yield found

    with contextlib.closing(_each(samples, workers, draft)) as made:
        cachefile.write(draft, key, sound(made))
    if len(faults) == 1 or (faults and isinstance(faults[-1], CacheError)):
        raise faults[-1]
    if faults:
        raise DataError("samples cannot be cached", subject=dataset, found=summary([str(fault) for fault in faults]),
                        hint="correct the named files")  # fmt: skip


def _each(samples: _Samples, workers: int, draft: Path) -> Generator[Packed | UnetzooError]:
    if not workers:
        yield from (samples[index] for index in range(len(samples)))
        return
    import torch
    from torch.utils.data import DataLoader

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # the user chose how many
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)  # of the bar
        loader = DataLoader(
            samples,  # pyright: ignore[reportArgumentType] -- length and items are all it asks for
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,  # pyright: ignore[reportArgumentType] -- there are no batches
            generator=torch.Generator(),  # the global one stays where it is
            prefetch_factor=4,
        )
        iterator = iter(loader)
    try:
        yield from iterator
    except RuntimeError as error:
        raise CacheError("a process that builds the cache died", subject=draft, found=str(error),
                         hint="for want of memory? try fewer workers") from error  # fmt: skip


def _as_it_is(found: Packed | UnetzooError) -> Packed | UnetzooError:
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
    """The smallest type for class indices and the ignored value.

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
    """Bars and notes on the terminal, if they are wanted."""

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
