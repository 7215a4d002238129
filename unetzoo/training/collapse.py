"""Detects networks that predict the same everywhere, from numbers that an evaluation computes anyway.

A network predicts *one class* if the pixels predicted as any other class are fewer than half a percent of the pixels
that belong to other classes. It predicts *one value* if the standard deviation of its predictions is below one percent
of that of the ground truth. Both are true of many healthy networks at first, while batch norm has seen few samples. A
collapse is therefore reported once two evaluations in a row find it and `STEPS` optimizer steps are done, or when the
run ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FEW = 1 / 200  # of the pixels that belong to other classes
FLAT = 1 / 100  # of the standard deviation of the ground truth
TIMES = 2  # evaluations in a row
STEPS = 100  # optimizer steps, after which the running averages of batch norm have settled


@dataclass(frozen=True)
class Collapse:
    """A prediction that is the same everywhere.

    Args:
        what: The class or value, as text.
        share: Share of the pixels that belong to this class; NaN for values.
    """

    what: str
    share: float = math.nan

    @property
    def state(self) -> str:
        """The kind of collapse: the class, or "one value", whichever it is."""
        return "one value" if math.isnan(self.share) else self.what

    def message(self, head: str, epoch: int) -> str:
        """The warning."""
        if math.isnan(self.share):
            return f"epoch {epoch}: the predicted {head} has collapsed to one value, {self.what}, everywhere"
        return (
            f"epoch {epoch}: the predictions have collapsed to one class: {self.what}, "
            f"which {_percent(self.share)} of the validation pixels belong to"
        )


def class_collapse(confusion: Tensor, names: Sequence[str]) -> Collapse | None:
    """The only class that is predicted, if the ground truth has others.

    Args:
        confusion: Counts, rows = truth. With one 2×2 matrix per label: whether no label is predicted, or every label.
        names: One name per class.

    Shape:
        - confusion: integers (classes, classes) or (labels, 2, 2)

    Examples:
        >>> class_collapse(torch.tensor([[900, 0], [100, 0]]), ["road", "car"])
        Collapse(what="'road'", share=0.9)
        >>> class_collapse(torch.tensor([[900, 0], [99, 1]]), ["road", "car"]) is None
        True
    """
    if multilabel := confusion.ndim == 3:
        confusion = confusion.sum(0)
    true, predicted = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    total = sum(true)
    most = predicted.index(max(predicted))
    if total - predicted[most] >= FEW * (total - true[most]):  # also where the truth has no other class
        return None
    what = ("no label at all", "every label")[most] if multilabel else repr(names[most])
    return Collapse(what, true[most] / total)


@dataclass
class Spread:
    """Spread of predicted and true values, as sums that add up over batches and processes.

    Examples:
        >>> spread = Spread.of(torch.tensor([0.5, 0.5, 9.0]), torch.tensor([0.0, 1.0, 9.0]), torch.tensor([1, 1, 0]))
        >>> spread.collapse()
        Collapse(what='0.5', share=nan)
    """

    sums: Tensor

    @classmethod
    def of(cls, predicted: Tensor, true: Tensor, valid: Tensor | None = None) -> Spread:
        """The sums of one batch, on its device; the host does not wait."""
        wide = torch.float32 if predicted.device.type == "mps" else torch.float64
        counts = torch.ones_like(predicted, dtype=torch.bool) if valid is None else valid.reshape(predicted.shape) > 0
        p, t = (torch.where(counts, values.to(wide), 0.0) for values in (predicted, true.reshape(predicted.shape)))
        return cls(torch.stack([counts.sum().to(wide), p.sum(), p.square().sum(), t.sum(), t.square().sum()]))

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.sums + other.sums.to(self.sums.device))

    def collapse(self) -> Collapse | None:
        """The only value that is predicted, if the ground truth has others."""
        count, p, pp, t, tt = self.sums.tolist()
        if not count:
            return None
        predicted, true = (max(square / count - (total / count) ** 2, 0.0) for total, square in ((p, pp), (t, tt)))
        return Collapse(f"{p / count:.3g}") if predicted < FLAT**2 * true else None


@dataclass(frozen=True)
class Circumstances:
    """The state of a run whose predictions collapse.

    Args:
        rate: The learning rate.
        steps: Optimizer steps done.
        mean: Mean of the validation images, as the network receives them.
        deviation: Their standard deviation.
        run: The run folder, or a placeholder for it.
    """

    rate: float
    steps: int
    mean: float
    deviation: float
    run: str


def causes(found: Collapse, at: Circumstances) -> list[str]:
    """The likely causes, each with its fix; those that the numbers suggest come first."""
    normal = abs(at.mean) <= 3 and 0.05 <= at.deviation <= 5
    likely: list[tuple[bool, str]] = []
    if not math.isnan(found.share):
        likely += [
            (
                found.share >= 0.75,
                f"class imbalance ({found.what} is {_percent(found.share)} of the true pixels): add dice, jaccard or "
                "lovasz to [loss], or use focal, or class_weights of ce",
            )
        ]
    likely += [
        (
            at.steps < STEPS,
            f"the learning rate ({at.rate:.3g}): --set optimizer.lr={at.rate / 10:.3g}, or a warm-up; "
            f"too small a one looks the same ({at.steps} optimizer steps so far)",
        ),
        (
            found.share < 0.001,
            f"wrong labels, such as file values mapped to other classes: unetzoo doctor {at.run}",
        ),
        (
            not normal,
            f"images that are not normalized (here mean {at.mean:.3g}, standard deviation {at.deviation:.3g}): "
            'normalize = "standard" in [transform]',
        ),
    ]
    return [cause for _, cause in sorted(likely, key=lambda entry: not entry[0])]


@dataclass
class CollapseTracker:
    """Reports each collapse of a head once: when it begins, when the class changes, when the head recovers.

    Examples:
        >>> tracker, road = CollapseTracker(), Collapse("'road'", 0.9)
        >>> [tracker.changes({"mask": found}, steps=200) for found in (road, road, road, None)]
        [{}, {'mask': Collapse(what="'road'", share=0.9)}, {}, {'mask': None}]
    """

    reported: dict[str, str] = field(default_factory=dict)
    _found: dict[str, tuple[str, int]] = field(default_factory=dict)

    def changes(
        self, found: Mapping[str, Collapse | None], steps: int, *, last: bool = False
    ) -> dict[str, Collapse | None]:
        """What to report after an evaluation: the collapse of a head, or None if it has recovered.

        Args:
            found: The collapse of each head, if any.
            steps: Optimizer steps done.
            last: Whether the run ends here.
        """
        changed: dict[str, Collapse | None] = {}
        for head, collapse in found.items():
            state = collapse.state if collapse else ""
            before, times = self._found.get(head, ("", 0))
            times = times + 1 if state == before else 1
            self._found[head] = state, times
            sure = not state or last or (times >= TIMES and steps >= STEPS)
            if sure and state != self.reported.get(head, ""):
                self.reported[head] = state
                changed[head] = collapse
        return changed


def reported_states(events: Iterable[Mapping[str, Any]], epochs: int) -> dict[str, str]:
    """The state of each head according to the warnings of a run; empty text for a head that has recovered.

    Args:
        events: The rows of `events.jsonl`.
        epochs: Number of epochs that count; later ones were undone by a kill.

    Examples:
        >>> reported_states([{"event": "collapse", "epoch": 3, "head": "mask", "state": "'road'"}], epochs=5)
        {'mask': "'road'"}
    """
    ours = [event for event in events if event.get("event") in ("collapse", "recovered")]
    return {
        str(event.get("head")): str(event.get("state") or "")
        for event in ours
        if isinstance(epoch := event.get("epoch"), int) and epoch <= epochs
    }


def _percent(share: float) -> str:
    """A share in percent; only exact shares read 0 % or 100 %.

    Examples:
        >>> [_percent(share) for share in (1.0, 0.99996, 0.5, 0.00001, 0.0)]
        ['100 %', '99.99 %', '50.0 %', '0.01 %', '0 %']
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    percent = min(max(100 * share, 0.01), 99.99)
    return f"{percent:.1f} %" if 0.1 <= percent <= 99.9 else f"{percent:.2f} %"
