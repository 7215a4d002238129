"""What is asked of metrics: `update`, `compute`, `reset`, and a state that adds up over batches and processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .case import Case
from .inputs import IGNORE, metric_batch
from .kit import check, refused, require

KIND = "metric"


@check(KIND, first=True)
def scores(case: Case) -> None:
    """Reports, logs and `monitor` read a flat table of names and numbers."""
    metric = case.build()
    for method in ("update", "compute", "reset", "state", "load_state"):
        require(callable(getattr(metric, method, None)), f"a method {method}", f"none on {type(metric).__name__}")
    metric.update(*metric_batch(case))
    found = metric.compute()
    require(isinstance(found, dict) and found, "a dict of scores", found)
    odd = {key: value for key, value in found.items() if not isinstance(key, str) or type(value) is not float}
    require(not odd, "texts as names and Python floats as scores", odd)


@check(KIND)
def computes_twice(case: Case) -> None:
    """A bar shows the scores while they are still being counted."""
    metric = _counted(case)
    first = metric.compute()
    require(_same(metric.compute(), first), "the same scores from a second compute()", "other scores")
    metric.update(*metric_batch(case, seed=1))
    plain = case.build()
    plain.update(*metric_batch(case))
    plain.update(*metric_batch(case, seed=1))
    require(_same(metric.compute(), plain.compute()), "compute() to change nothing in what is counted", "other scores")


@check(KIND)
def batches_add_up(case: Case) -> None:
    """The score must not depend on the batch size: averages over batches are wrong when the last one is smaller."""
    batch = metric_batch(case, 5)
    expected = _counted(case, batch).compute()
    split = case.build()
    for part in (slice(0, 1), slice(1, 5)):
        split.update(*_part(batch, part))
    _require_same(split.compute(), expected, "the scores of five samples, given one by one and together")


@check(KIND)
def processes_add_up(case: Case) -> None:
    """With several GPUs each process counts its share; the sums of their states must be the state of the whole."""
    batch = metric_batch(case, 5)
    parts = [_part(batch, slice(0, 2)), _part(batch, slice(2, 5))]
    whole, shares = case.build(), [_counted(case, part) for part in parts]
    for part in parts:
        whole.update(*part)
    states = [share.state() for share in shares]
    forms = [{key: (tuple(t.shape), t.dtype) for key, t in state.items()} for state in states]
    require(forms[0] == forms[1], "states of one form, whatever was counted", forms)
    joined = case.build()
    joined.load_state({key: states[0][key] + states[1][key] for key in states[0]})
    _require_same(joined.compute(), whole.compute(), "the scores of the whole from the sum of two states")


@check(KIND)
def order_of_samples(case: Case) -> None:
    """The order of samples is chance, and differs between processes."""
    batch = metric_batch(case, 5)
    one, other = case.build(), case.build()
    for index in range(5):
        one.update(*_part(batch, slice(index, index + 1)))
        later = (index + 1) % 5
        other.update(*_part(batch, slice(later, later + 1)))
    _require_same(other.compute(), one.compute(), "the same scores in another order")


@check(KIND)
def reset_forgets(case: Case) -> None:
    """Every epoch begins with reset(); what is left over falsifies the next score."""
    metric = _counted(case)
    metric.reset()
    metric.update(*metric_batch(case, seed=1))
    fresh = _counted(case, metric_batch(case, seed=1))
    _require_same(metric.compute(), fresh.compute(), "the scores of what came after reset()")


@check(KIND)
def state_is_a_copy(case: Case) -> None:
    """Sums over processes are taken in place, in what state() hands out."""
    metric = _counted(case)
    expected = metric.compute()
    for tensor in metric.state().values():
        tensor += 5
    require(_same(metric.compute(), expected), "scores that a change of what state() gave does not reach", "others")


@check(KIND)
def holds_no_graph(case: Case) -> None:
    """A state that keeps gradients keeps every image of the epoch in memory."""
    metric = case.build()
    batch = metric_batch(case)
    metric.update(batch[0].clone().requires_grad_(), *batch[1:])
    held = [key for key, tensor in metric.state().items() if tensor.requires_grad]
    require(not held, "a state without gradient", ", ".join(held))


@check(KIND)
def inference_mode(case: Case) -> None:
    """Evaluation runs in inference mode, training does not, and one metric sees both."""
    metric = case.build()
    with torch.inference_mode():
        metric.update(*metric_batch(case))
    metric.update(*metric_batch(case, seed=1))
    metric.compute()


@check(KIND, applies=lambda case: case.takes("ignore_index") and case.task != "depth" and case.batch is None)
def ignored_pixels(case: Case) -> None:
    """`ignore_index` marks pixels that nobody labeled: what the network says there must not count."""
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
    _require_same(found[1], found[0], "scores to which ignored pixels are nothing")


@check(KIND)
def computes_empty(case: Case) -> None:
    """A process may get no sample at all; it must not fail where others wait for it."""
    names = set(_counted(case).compute())
    found = case.build().compute()
    require(set(found) == names, "the same names before anything was counted", sorted(set(found) ^ names))


@check(KIND)
def misfit(case: Case) -> None:
    """A mask of another size is compared with the wrong pixels, or broadcast."""
    metric = case.build()
    output, target, *more = metric_batch(case)
    refused(lambda: metric.update(output, target[..., :-1], *more), "an error for a target of another size")
    refused(lambda: metric.update(output, target[..., :1], *more), "an error for a target of width 1")


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
