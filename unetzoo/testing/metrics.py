"""Checks of metrics: `update`, `compute`, `reset`, and a state that can be summed over batches and processes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .case import Case
from .inputs import IGNORE, metric_batch
from .kit import check, require, require_error

KIND = "metric"


@check(KIND, first=True)
def scores(case: Case) -> None:
    """Reports, logs and `monitor` expect a flat dict of names and floats."""
    metric = case.build()
    for method in ("update", "compute", "reset", "state", "load_state"):
        require(callable(getattr(metric, method, None)), f"a method {method}", f"none on {type(metric).__name__}")
    metric.update(*metric_batch(case))
    found = metric.compute()
    require(isinstance(found, dict) and found, "a dict of scores", found)
    odd = {key: value for key, value in found.items() if not isinstance(key, str) or type(value) is not float}
    require(not odd, "str keys and float values", odd)


@check(KIND)
def repeated_compute(case: Case) -> None:
    """Progress bars show scores before the epoch is complete."""
    metric = _counted(case)
    first = metric.compute()
    require(_same(metric.compute(), first), "the same scores from a second compute()", "different scores")
    metric.update(*metric_batch(case, seed=1))
    plain = case.build()
    plain.update(*metric_batch(case))
    plain.update(*metric_batch(case, seed=1))
    require(_same(metric.compute(), plain.compute()), "a compute() that does not change the state", "different scores")


@check(KIND)
def batch_size_independent(case: Case) -> None:
    """Scores must not depend on the batch size; averages over batches are wrong if the last batch is smaller."""
    batch = metric_batch(case, 5)
    expected = _counted(case, batch).compute()
    split = case.build()
    for part in (slice(0, 1), slice(1, 5)):
        split.update(*_part(batch, part))
    _require_same(split.compute(), expected, "the same scores for five samples in one batch and in two")


@check(KIND)
def distributed_sum(case: Case) -> None:
    """With several GPUs, each process counts its share; the sum of the states must be the state of all samples."""
    batch = metric_batch(case, 5)
    parts = [_part(batch, slice(0, 2)), _part(batch, slice(2, 5))]
    whole, shares = case.build(), [_counted(case, part) for part in parts]
    for part in parts:
        whole.update(*part)
    states = [share.state() for share in shares]
    forms = [{key: (tuple(t.shape), t.dtype) for key, t in state.items()} for state in states]
    require(forms[0] == forms[1], "states with the same keys, shapes and dtypes", forms)
    joined = case.build()
    joined.load_state({key: states[0][key] + states[1][key] for key in states[0]})
    _require_same(joined.compute(), whole.compute(), "the scores of all samples from the sum of two states")


@check(KIND)
def sample_order(case: Case) -> None:
    """The order of samples is arbitrary and differs between processes."""
    batch = metric_batch(case, 5)
    one, other = case.build(), case.build()
    for index in range(5):
        one.update(*_part(batch, slice(index, index + 1)))
        later = (index + 1) % 5
        other.update(*_part(batch, slice(later, later + 1)))
    _require_same(other.compute(), one.compute(), "the same scores in a different order")


@check(KIND)
def reset(case: Case) -> None:
    """Every epoch starts with `reset`; leftover state falsifies the next scores."""
    metric = _counted(case)
    metric.reset()
    metric.update(*metric_batch(case, seed=1))
    fresh = _counted(case, metric_batch(case, seed=1))
    _require_same(metric.compute(), fresh.compute(), "the scores of only the samples after reset()")


@check(KIND)
def state_copy(case: Case) -> None:
    """Reductions over processes modify the tensors returned by `state` in place."""
    metric = _counted(case)
    expected = metric.compute()
    for tensor in metric.state().values():
        tensor += 5
    require(_same(metric.compute(), expected), "scores unaffected by changes to the returned state", "different scores")


@check(KIND)
def detached_state(case: Case) -> None:
    """A state that requires gradients keeps the graphs of the whole epoch in memory."""
    metric = case.build()
    batch = metric_batch(case)
    metric.update(batch[0].clone().requires_grad_(), *batch[1:])
    held = [key for key, tensor in metric.state().items() if tensor.requires_grad]
    require(not held, "a detached state", ", ".join(held))


@check(KIND)
def inference_mode(case: Case) -> None:
    """Evaluation runs in inference mode and training does not; a metric may see both."""
    metric = case.build()
    with torch.inference_mode():
        metric.update(*metric_batch(case))
    metric.update(*metric_batch(case, seed=1))
    metric.compute()


@check(KIND, applies=lambda case: case.takes("ignore_index") and case.task != "depth" and case.batch is None)
def ignored_pixels(case: Case) -> None:
    """`ignore_index` marks unlabeled pixels; they must not count."""
    output, target, *more = metric_batch(case)
    target = target.clone()
    target[..., 4:7, :] = IGNORE
    other = output.clone()
    other[..., 4:7, :] = -other[..., 4:7, :]
    found = []
    for given in (output, other):
        metric = case.build(ignore_index=IGNORE)
        metric.update(given, target, *more)
        found.append(metric.compute())
    _require_same(found[1], found[0], "scores independent of ignored pixels")


def _takes_weight(case: Case) -> bool:
    return case.batch is None and "weight" in inspect.signature(case.load().update).parameters


@check(KIND, applies=_takes_weight)
def zero_weight_pixels(case: Case) -> None:
    """A weight of 0 marks pixels of unknown truth, such as depth that was not measured; they must not count."""
    output, target = metric_batch(case)
    weight = torch.ones(output.shape[0], *output.shape[2:], dtype=torch.bool)
    weight[:, 4:7] = False
    found = []
    for scale in (1, -1):
        other = output.clone()
        other[..., 4:7, :] *= scale
        metric = case.build()
        metric.update(other, target, weight=weight)
        found.append(metric.compute())
    _require_same(found[1], found[0], "scores independent of pixels of weight 0")


@check(KIND)
def empty_compute(case: Case) -> None:
    """A process may receive no sample; it must not fail while others wait for it."""
    names = set(_counted(case).compute())
    found = case.build().compute()
    require(set(found) == names, "the same names before the first update", sorted(set(found) ^ names))


@check(KIND)
def mismatched_shapes(case: Case) -> None:
    """A mask of a different size is compared with the wrong pixels, or broadcast."""
    metric = case.build()
    output, target, *more = metric_batch(case)
    require_error(lambda: metric.update(output, target[..., :-1], *more), "an error for a target of a different size")
    require_error(lambda: metric.update(output, target[..., :1], *more), "an error for a target of width 1")


def _counted(case: Case, batch: Sequence[Any] | None = None) -> Any:
    metric = case.build()
    metric.update(*(metric_batch(case) if batch is None else batch))
    return metric


def _part(batch: Sequence[Tensor], part: slice) -> list[Tensor]:
    return [tensor[part] for tensor in batch]


def _same(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(one[key], other[key], rel_tol=1e-5, abs_tol=1e-7) or (one[key] != one[key] != other[key])
        for key in one
    )


def _require_same(found: dict[str, float], expected: dict[str, float], what: str) -> None:
    if _same(found, expected):
        return
    differing = {key: (expected.get(key), found.get(key)) for key in {*found, *expected}
                 if not _same({key: found.get(key, math.inf)}, {key: expected.get(key, -math.inf)})}  # fmt: skip
    require(False, what, f"(expected, found) {differing}")
