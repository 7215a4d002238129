"""What every metric keeps: a flat answer, and a state that adds up over batches and processes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetzoo import METRICS, LabelSpec
from unetzoo.errors import ConfigError


def segmentation_batch(count: int, generator: torch.Generator):
    logits = torch.randn(count, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (count, 5, 6), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    return logits, target


def depth_batch(count: int, generator: torch.Generator):
    output, target = (torch.rand(count, 1, 5, 6, generator=generator) for _ in range(2))
    return output, target, torch.rand(count, 5, 6, generator=generator) > 0.2


def multilabel_batch(count: int, generator: torch.Generator):
    logits = torch.randn(count, 3, 5, 6, generator=generator)
    target = torch.randint(0, 2, logits.shape, generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    return logits, target


def binary_batch(count: int, generator: torch.Generator):
    logits = 2 * torch.randn(count, 1, 9, 8, generator=generator)
    target = torch.randint(0, 2, (count, 9, 8), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    return logits, target


def image_batch(count: int, generator: torch.Generator):
    output, target = (torch.rand(count, 2, 12, 13, generator=generator) for _ in range(2))
    return output, target, torch.rand(count, 1, 12, 13, generator=generator) > 0.002


# Case → name, arguments, batches.
CASES = {
    "segmentation": ("segmentation", {"classes": 4, "ignore_index": 255}, segmentation_batch),
    "every segmentation score": (
        "segmentation",
        {"classes": 4, "ignore_index": 255, "per_image": True, "one_vs_rest": 0.5},
        segmentation_batch,
    ),
    "multilabel": (
        "segmentation",
        {
            "labels": LabelSpec(("a", "b", "c"), groups={"ac": (0, 2)}, ignore_index=255),
            "mode": "multilabel",
            "threshold": (0.5, 0.3, 0.6),
            "per_image": True,
        },
        multilabel_batch,
    ),
    "sweep": ("sweep", {"classes": 1, "ignore_index": 255, "bins": 20}, binary_batch),
    "depth": ("depth", {}, depth_batch),
    "ssim": ("ssim", {}, image_batch),
    "psnr": ("psnr", {"data_range": 2.0}, image_batch),
    "surface": ("surface", {"classes": 4, "ignore_index": 255, "spacing": (2, 1)}, segmentation_batch),
    "rand": ("rand", {"classes": 1, "ignore_index": 255, "thresholds": (0.3, 0.5)}, binary_batch),
}
NAMES = list(CASES)


def test_every_builtin_has_a_case():
    assert {name for name in METRICS.names() if METRICS.entry(name).builtin} <= {case[0] for case in CASES.values()}


def build(case: str):
    name, options, _ = CASES[case]
    return METRICS.build(name, **options)


def batch_of(case: str, count: int, seed: int = 0):
    return CASES[case][2](count, torch.Generator().manual_seed(seed))


def counted(name: str, batch):
    metric = build(name)
    metric.update(*batch)
    return metric


def same(one, two) -> bool:
    """Integer counts equal; sums of floats but for rounding."""
    return all(
        torch.equal(a, b) if not a.is_floating_point() else torch.allclose(a, b, rtol=1e-12, atol=0)
        for a, b in zip(one.state().values(), two.state().values(), strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 7), processes=st.integers(1, 4))
def test_batches_and_processes_add_up(name, seed, count, processes):
    batch = batch_of(name, count, seed)
    whole = counted(name, batch)
    parts = [build(name) for _ in range(processes)]
    for sample in range(count):
        parts[sample % processes].update(*(tensor[sample : sample + 1] for tensor in batch))
    by_state = build(name)
    by_state.load_state({key: sum(part.state()[key] for part in parts) for key in whole.state()})
    assert same(by_state, whole)
    merged = parts[0]
    for part in parts[1:]:
        assert merged.merge(part) is merged
    assert same(merged, whole)
    assert merged.compute() == pytest.approx(whole.compute(), rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_answer_is_flat_floats_and_repeatable(name):
    metric = counted(name, batch_of(name, 2))
    scores = metric.compute()
    assert all(isinstance(key, str) and type(value) is float for key, value in scores.items())
    assert metric.compute() == scores
    assert pickle.loads(pickle.dumps(metric)).compute() == scores
    assert copy.deepcopy(metric).compute() == scores


@pytest.mark.parametrize("name", NAMES)
def test_reset_and_handed_out_states_are_independent(name):
    batch = batch_of(name, 2)
    metric = build(name)
    for tensor in metric.state().values():
        tensor += 5  # as an all-reduce in place would
    metric.update(*batch)
    expected = metric.compute()
    state = metric.state()
    metric.update(*batch)
    metric.load_state(state)
    for tensor in state.values():
        tensor += 5
    assert metric.compute() == expected
    metric.reset()
    metric.update(*batch)
    assert metric.compute() == expected


@pytest.mark.parametrize("name", NAMES)
def test_works_across_inference_mode_and_needs_no_gradient(name):
    batch = batch_of(name, 2)
    metric = build(name)
    with torch.inference_mode():
        metric.update(*batch)
    metric.update(batch[0].clone().requires_grad_(), *batch[1:])
    twice = counted(name, batch).merge(counted(name, batch))
    assert same(metric, twice)
    assert not any(tensor.requires_grad for tensor in metric.state().values())


@pytest.mark.parametrize("name", NAMES)
def test_state_of_another_metric_is_refused(name):
    metric = build(name)
    with pytest.raises(ConfigError, match="another metric"):
        metric.load_state({"other": torch.zeros(1)})
    with pytest.raises(ConfigError, match="another metric"):
        metric.load_state({key: tensor[:-1] for key, tensor in metric.state().items()})
    with pytest.raises(ConfigError, match="another metric"):
        METRICS.build("segmentation", classes=3).merge(METRICS.build("segmentation", classes=5))
