"""Adapters for the metrics of a Trainer: our own or those of torchmetrics, one or several per head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from ..registry import keywords


class TorchMetric:
    """Adapter that returns the scores of a torchmetrics metric by name.

    Args:
        metric: A `torchmetrics.Metric` or `MetricCollection`, which synchronizes across processes itself.
    """

    def __init__(self, metric: Any) -> None:
        self.metric, self.name = metric, type(metric).__name__.lower()

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch. Logits with one channel are reshaped to the target, as binary metrics of torchmetrics expect."""
        if output.shape[1] == 1 and target.ndim == output.ndim - 1:
            output = output[:, 0]
        self.metric.to(output.device).update(output, target)

    def compute(self) -> dict[str, float]:
        """Return the scores; scores per class are numbered."""
        computed = self.metric.compute()
        scores: dict[str, float] = {}
        for name, value in (computed if isinstance(computed, Mapping) else {self.name: computed}).items():
            values = torch.as_tensor(value).flatten().tolist()
            numbered = {f"{name}/{index}": number for index, number in enumerate(values)}
            scores |= {name: values[0]} if len(values) == 1 else numbered
        return scores

    def reset(self) -> None:
        """Forget all batches."""
        self.metric.reset()


class Every(NamedTuple):
    """A metric that is too expensive to compute after every epoch.

    Args:
        metric: The metric.
        epochs: It is computed after every so many epochs and after the last one, or with "end" after none. It is always
            computed by `Trainer.evaluate`, and for the best network at the end of a run.

    Examples:
        >>> import unetzoo
        >>> surface = Every(unetzoo.METRICS.build("surface", num_classes=2), 10)
        >>> [surface.is_due(epoch, 25) for epoch in (1, 10, 25)]
        [False, True, True]
    """

    metric: Any
    epochs: int | Literal["end"]

    def is_due(self, epoch: int, last: int) -> bool:
        """Whether it is computed after an epoch, counted from 1, of a run of `last` epochs."""
        return self.epochs != "end" and (epoch % self.epochs == 0 or epoch == last)


class MetricGroup:
    """Combines several metrics of one head.

    Other attributes, such as `confusion` and `names`, are taken from the first metric that has them.

    Args:
        metrics: The metrics. If two compute a score of the same name, the later one is numbered, e.g. `miou_2`, or
            `iou_2/car` for a class.
        every: When each is computed during training; after every epoch by default.
    """

    def __init__(self, metrics: Sequence[Any], every: Sequence[Every | None] = ()) -> None:
        self.all, self._every = list(metrics), list(every) or [None] * len(metrics)
        self.metrics = self.all  # those that are computed now

    def select(self, epoch: int | None = None, last: int = 0) -> None:
        """Compute only the metrics that are due after an epoch, or all of them again."""
        pairs = zip(self.all, self._every, strict=True)
        self.metrics = [m for m, every in pairs if epoch is None or every is None or every.is_due(epoch, last)]

    def __getattr__(self, name: str) -> Any:
        for metric in self.__dict__.get("metrics", ()):
            if hasattr(metric, name):
                return getattr(metric, name)
        raise AttributeError(name)

    def update(
        self, output: Tensor, target: Tensor, *, weight: Tensor | None = None, instances: Tensor | None = None
    ) -> None:
        """Add a batch, passing weight and instances to metrics that accept them."""
        given = {name: plane for name, plane in (("weight", weight), ("instances", instances)) if plane is not None}
        for metric in self.metrics:
            taken = keywords(metric.update)
            metric.update(output, target, **{name: plane for name, plane in given.items() if name in taken})

    def compute(self) -> dict[str, float]:
        """Return the scores of all metrics."""
        scores: dict[str, float] = {}
        for number, metric in enumerate(self.metrics, start=1):
            for name, value in metric.compute().items():
                kind, slash, part = name.partition("/")
                scores[f"{kind}_{number}{slash}{part}" if name in scores else name] = value
        return scores

    def reset(self) -> None:
        """Forget all batches."""
        for metric in self.metrics:
            metric.reset()

    def state(self) -> dict[str, Tensor]:
        """Return the counts of the metrics whose counts are summed over processes."""
        return {
            f"{number}.{name}": value
            for number, metric in enumerate(self.metrics)
            if hasattr(metric, "state")
            for name, value in metric.state().items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the counts returned by `state`."""
        for number, metric in enumerate(self.metrics):
            own = {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{number}.")}
            if own:
                metric.load_state(own)


@contextmanager
def due(metrics: Mapping[str, Any], epoch: int, last: int) -> Iterator[None]:
    """Compute only the metrics that are due after an epoch, inside the block.

    Args:
        metrics: Metrics by head.
        epoch: Number of the epoch, from 1.
        last: Number of the last epoch.
    """
    groups = [metric for metric in metrics.values() if isinstance(metric, MetricGroup)]
    for group in groups:
        group.select(epoch, last)
    try:
        yield
    finally:
        for group in groups:
            group.select()


def by_head(metrics: Any) -> dict[str, Any]:
    """Return metrics by head; metrics given without a head belong to the mask.

    Raises:
        ConfigError: An object is not a metric.
    """
    table = metrics if isinstance(metrics, Mapping) and not _is_foreign(metrics) else {"mask": metrics}
    return {head: _metric(given, head) for head, given in table.items() if given is not None}


def _metric(given: Any, head: str) -> Any:
    if isinstance(given, Every):
        given = [given]
    if isinstance(given, list | tuple):
        every = [one if isinstance(one, Every) else None for one in given]
        return MetricGroup([_metric(one.metric if isinstance(one, Every) else one, head) for one in given], every)
    if isinstance(given, type) or not all(hasattr(given, part) for part in ("update", "compute", "reset")):
        raise ConfigError(
            "not a metric",
            subject=f"metrics, {head}",
            expected="an object with update, compute and reset, or a list of them",
            found=given,
            hint='e.g. unetzoo.METRICS.build("segmentation", num_classes=2)',
        )
    return TorchMetric(given) if _is_foreign(given) else given


def _is_foreign(metric: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "torchmetrics" for kind in type(metric).__mro__)
