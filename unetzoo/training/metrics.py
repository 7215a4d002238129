"""Adapters for the metrics of a Trainer: our own or those of torchmetrics, one or several per head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


class MetricGroup:
    """Combines several metrics of one head.

    Other attributes, such as `confusion` and `names`, are taken from the first metric that has them.

    Args:
        metrics: The metrics. If two compute a score of the same name, the later one is numbered, e.g. `miou_2`, or
            `iou_2/car` for a class.
    """

    def __init__(self, metrics: Sequence[Any]) -> None:
        self.metrics = list(metrics)

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


def by_head(metrics: Any) -> dict[str, Any]:
    """Return metrics by head; metrics given without a head belong to the mask.

    Raises:
        ConfigError: An object is not a metric.
    """
    table = metrics if isinstance(metrics, Mapping) and not _is_foreign(metrics) else {"mask": metrics}
    return {head: _metric(given, head) for head, given in table.items() if given is not None}


def _metric(given: Any, head: str) -> Any:
    if isinstance(given, list | tuple):
        return MetricGroup([_metric(one, head) for one in given])
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
