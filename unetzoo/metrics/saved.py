"""Confusion matrices on disk: JSON that a person can read, exact, with all that is needed to score them anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from .. import io
from ..errors import ConfigError, DataError, UnetzooError
from ..labels import LabelSpec

FORMAT = "unetzoo confusion 1"


class ConfusionCounts(Protocol):
    """What can be written and read here: a `SegmentationMetric`."""

    empty: float

    def check(self) -> None:
        """Raise for what cannot be scored."""

    def rules(self) -> dict[str, Any]:
        """What defines the counts."""
        ...

    def counts(self) -> dict[str, Tensor]:
        """The counts by name."""
        ...

    def add_counts(self, counts: Mapping[str, Tensor]) -> None:
        """Add such counts."""


def write_json(path: Path, content: Any) -> None:
    """Write JSON that every reader takes: no NaN in it.

    Raises:
        DataError: A file that cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        io.write_text(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise DataError("cannot write scores", subject=path, found=str(error)) from error


M = TypeVar("M", bound=ConfusionCounts)


def save(metric: ConfusionCounts, path: str | Path) -> None:
    """Write a metric's rules and counts.

    Raises:
        LabelRangeError: Labels outside the classes were met.
        NonFiniteError: NaN was met in the logits.
        DataError: A file that cannot be written.
    """
    metric.check()
    counts = {name: tensor.tolist() for name, tensor in metric.counts().items()}
    write_json(Path(path), {"format": FORMAT, **metric.rules(), "empty": _policy(metric.empty), **counts})


def load(build: Callable[..., M], path: str | Path, empty: Literal["nan", 0, 1] | None = None) -> M:
    """The metric that `save` wrote.

    Args:
        build: The class of the metric.
        path: The file.
        empty: Another policy for scores without a denominator than the saved one.

    Raises:
        DataError: A file that cannot be read, or is not of `save`.
        ConfigError: Another policy for means over images, which hold theirs already.
    """

    def refuse(found: object) -> DataError:
        return DataError("not a saved confusion matrix", subject=path, expected=repr(FORMAT), found=found)

    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refuse(error) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise refuse(content.get("format") if isinstance(content, dict) else type(content).__name__)
    if content.get("per_image") and empty not in (None, content.get("empty")):
        raise ConfigError("means over images keep their policy", subject=path, expected=content["empty"], found=empty)
    try:
        metric = build(
            labels=LabelSpec(content["names"], groups=content["groups"]),
            ignore_index=content["ignore_index"],
            empty=content["empty"] if empty is None else empty,
            threshold=content["threshold"],
            mode=content["mode"],
            per_image=bool(content["per_image"]),
            one_vs_rest=content["one_vs_rest"],
        )
        metric.add_counts({name: _tensor(content[name], zero) for name, zero in metric.counts().items()})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, UnetzooError) as error:
        raise refuse(f"{type(error).__name__}: {error}") from error
    if set(content) != {"format", "empty", *(rules := metric.rules()), *metric.counts()}:
        raise refuse("other parts than these rules have")
    if rules != {name: content[name] for name in rules}:
        raise refuse("rules that contradict each other")
    return metric


def _policy(empty: float) -> str | int:
    return "nan" if empty != empty else int(empty)


def _tensor(values: Any, like: Tensor) -> Tensor:
    tensor = torch.tensor(values, dtype=like.dtype)
    if tensor.shape != like.shape or tensor.tolist() != values or (tensor < 0).any():
        raise ValueError(f"counts that are not {tuple(like.shape)} of {str(like.dtype)[6:]} ≥ 0")
    return tensor
