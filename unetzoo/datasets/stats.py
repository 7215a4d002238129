"""Mean and standard deviation of images and depth, and the share of each class, of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError, DataError, UnetzooError
from ..labels import LabelSpec
from .parallel import pieces, spread
from .tally import Summary, Tally

PIECE = 16  # samples that are summed together; fixed, so that the result does not depend on the number of processes


@dataclass(frozen=True)
class Statistics:
    """Statistics of a dataset.

    Args:
        samples: Number of samples.
        image: One summary per channel; 8-bit images are scaled to 0…1, as by transforms.
        classes: The share of each class in all mask pixels, by name; "ignored" is last, if the labels have it.
        depth: A summary of valid depth values, or None.
    """

    samples: int
    image: tuple[Summary, ...]
    classes: dict[str, float]
    depth: Summary | None

    @property
    def normalize(self) -> dict[str, list[float]]:
        """Argument of `Transform(normalize=…)`; the deviation of a constant channel is 1."""
        return {
            "mean": [round(channel.mean, 6) for channel in self.image],
            "std": [round(channel.std, 6) or 1.0 for channel in self.image],
        }

    @property
    def recipe_line(self) -> str:
        """A line for `[transform]` of a recipe."""
        mean, std = (", ".join(f"{value:g}" for value in self.normalize[key]) for key in ("mean", "std"))
        return f"normalize = {{ mean = [{mean}], std = [{std}] }}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "normalize": self.normalize}


def statistics(
    dataset: Any,
    *,
    limit: int | None = None,
    workers: int | None = 0,
    tell: Callable[[int], None] = lambda count: None,
) -> Statistics:
    """Compute mean and standard deviation over all pixels of all samples of a dataset.

    The result is exact for 8-bit images and accurate to rounding for other values. It does not depend on the number of
    processes.

    Args:
        dataset: An object with `__len__` and `__getitem__` that returns samples. Its transform is applied.
        limit: Number of samples to use, evenly spaced over the dataset.
        workers: Number of worker processes; 0 for none, None for one per CPU. See `spread` about scripts.
        tell: Called with the number of samples processed since the last call.

    Raises:
        ConfigError: A wrong limit.
        DataError: No samples, different numbers of channels, or valid depth that is not finite; and the errors of the
            dataset.

    Examples:
        >>> from unetzoo.datasets import Composites
        >>> found = statistics(Composites(size=32, length=20))
        >>> [channel.name for channel in found.image][:2], found.classes["background"] > 0.5
        (['fg_bg red', 'fg_bg green'], True)
        >>> found.recipe_line.startswith("normalize = { mean = [0.")
        True

    Source:
        Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", equations 2.1.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError("wrong limit", expected="an integer ≥ 1, or None", found=repr(limit), hint="try 1000")
    count = len(dataset)
    chosen = range(count) if limit is None or limit >= count else [count * i // limit for i in range(limit)]
    total = Tally()
    todo = pieces(chosen, PIECE)
    for tally in spread(_Summing(dataset), todo, workers):
        total.merge(tally)
        tell(tally.samples)
    if not total.samples:
        raise DataError("no samples", subject=dataset, found="0", hint="check split and length")
    return Statistics(
        total.samples,
        total.image(_channel_names(getattr(dataset, "image_kinds", None), total.width)),
        _shares(total.classes, total.pixels, getattr(dataset, "labels", None)),
        total.depth.summary("depth") if total.depth.count else None,
    )


class _Summing(NamedTuple):
    """Sums up a group of samples."""

    dataset: Any

    def __call__(self, piece: Sequence[int]) -> Tally:
        tally = Tally()
        for index in piece:
            try:
                sample = self.dataset[index]
            except UnetzooError:
                raise
            except Exception as error:  # third-party datasets may raise anything
                raise DataError(
                    "the dataset raises an error for a sample", subject=f"{type(self.dataset).__name__}[{index}]",
                    found=f"{type(error).__name__}: {error}", hint="load this sample to see the traceback",
                ) from error  # fmt: skip
            tally.add(sample)
        return tally


def _channel_names(kinds: Mapping[str, int] | None, count: int) -> list[str]:
    """One name per channel.

    Examples:
        >>> _channel_names({"fg_bg": 3, "depth": 1}, 4), _channel_names(None, 1)
        (['fg_bg red', 'fg_bg green', 'fg_bg blue', 'depth'], ['image'])
    """
    if not kinds or sum(kinds.values()) != count:
        kinds = {"image": count}
    colors = {1: [""], 3: [" red", " green", " blue"]}
    return [f"{kind}{end}" for kind, n in kinds.items() for end in colors.get(n, [f" {i}" for i in range(n)])]


def _shares(classes: Mapping[int, int], pixels: int, labels: LabelSpec | None) -> dict[str, float]:
    if not pixels:
        return {}
    names = dict(enumerate(labels.names)) if labels else {}
    if labels and labels.ignore_index is not None:
        names[labels.ignore_index] = "ignored"
    order = [*names, *sorted(set(classes) - set(names))]
    return {names.get(value, str(value)): classes.get(value, 0) / pixels for value in order}
