"""Mean and standard deviation of a dataset's images and depth, and how much of its masks each class covers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError, DataError, UnetzooError
from ..labels import LabelSpec
from .parallel import pieces, spread
from .tally import Summary, Tally

PIECE = 16  # samples whose sums are made together; always the same, so that processes change no bit of the result


@dataclass(frozen=True)
class Statistics:
    """What a dataset's samples are like.

    Args:
        samples: How many were looked at.
        image: A summary a channel; 8-bit images are scaled to 0…1, as transforms do.
        classes: The share of all mask pixels that each class covers, by name; "ignored" last, where there is any.
        depth: A summary of the valid depths, or None.
    """

    samples: int
    image: tuple[Summary, ...]
    classes: dict[str, float]
    depth: Summary | None

    @property
    def normalize(self) -> dict[str, list[float]]:
        """What `Transform(normalize=…)` takes; a channel of one value alone is given the deviation 1."""
        return {
            "mean": [round(channel.mean, 6) for channel in self.image],
            "std": [round(channel.std, 6) or 1.0 for channel in self.image],
        }

    @property
    def recipe_line(self) -> str:
        """A line for a recipe's [transform]."""
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
    """Mean and standard deviation of any dataset, over all pixels of all its samples.

    Of 8-bit images exact, to the last bit of the result; of other numbers within rounding. The number of processes
    changes no bit of either.

    Args:
        dataset: Anything with `__len__` and `__getitem__` that gives samples. A transform of its own is applied.
        limit: Look at this many samples, spread evenly over the dataset.
        workers: Processes; 0 for none beside this one, None for one a CPU. See `spread` for what scripts need.
        tell: Called with the number of samples that were looked at since it was last called.

    Raises:
        ConfigError: A wrong limit.
        DataError: No samples, samples that differ in their channels, or depth that is not finite where it is valid;
            and what the dataset raises.

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
        raise ConfigError("wrong limit", expected="a whole number ≥ 1, or None", found=repr(limit), hint="try 1000")
    count = len(dataset)
    chosen = range(count) if limit is None or limit >= count else [count * i // limit for i in range(limit)]
    total = Tally()
    todo = pieces(chosen, PIECE)
    for tally in spread(_Look(dataset), todo, workers):
        total.merge(tally)
        tell(tally.samples)
    if not total.samples:
        raise DataError("no samples to look at", subject=dataset, found="0", hint="check split and length")
    return Statistics(
        total.samples,
        total.image(_channel_names(getattr(dataset, "image_kinds", None), total.width)),
        _shares(total.classes, total.pixels, getattr(dataset, "labels", None)),
        total.depth.summary("depth") if total.depth.count else None,
    )


class _Look(NamedTuple):
    """Adds up the samples of a piece."""

    dataset: Any

    def __call__(self, piece: Sequence[int]) -> Tally:
        tally = Tally()
        for index in piece:
            try:
                sample = self.dataset[index]
            except UnetzooError:
                raise
            except Exception as error:  # a dataset that we did not write may raise anything
                raise DataError(
                    "the dataset failed on a sample", subject=f"{type(self.dataset).__name__}[{index}]",
                    found=f"{type(error).__name__}: {error}", hint="ask for this sample alone to see where",
                ) from error  # fmt: skip
            tally.add(sample)
        return tally


def _channel_names(kinds: Mapping[str, int] | None, count: int) -> list[str]:
    """A name for each channel.

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
