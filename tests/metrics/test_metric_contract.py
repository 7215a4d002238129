"""Properties of every metric: a flat output, and a state that adds up over batches and processes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetzoo import METRICS, LabelSpec
from unetzoo.errors import ConfigError, DataError, SizeMismatchError


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
    "segmentation": ("segmentation", {"num_classes": 4, "ignore_index": 255}, segmentation_batch),
    "every segmentation score": (
        "segmentation",
        {"num_classes": 4, "ignore_index": 255, "per_image": True, "one_vs_rest": 0.5},
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
    "sweep": ("sweep", {"num_classes": 1, "ignore_index": 255, "bins": 20}, binary_batch),
    "depth": ("depth", {}, depth_batch),
    "ssim": ("ssim", {}, image_batch),
    "psnr": ("psnr", {"data_range": 2.0}, image_batch),
    "surface": ("surface", {"num_classes": 4, "ignore_index": 255, "spacing": (2, 1)}, segmentation_batch),
    "cldice": ("cldice", {"num_classes": 4, "ignore_index": 255}, segmentation_batch),
    "instances": ("instances", {"num_classes": 1, "ignore_index": 255}, binary_batch),
    "rand": ("rand", {"num_classes": 1, "ignore_index": 255, "thresholds": (0.3, 0.5)}, binary_batch),
}
NAMES = list(CASES)


def test_every_builtin_has_a_case():
    assert {name for name in METRICS.names() if METRICS.entry(name).builtin} <= {case[0] for case in CASES.values()}


def build(case: str):
    name, options, _ = CASES[case]
    return METRICS.build(name, **options)


def batch_of(case: str, count: int, seed: int = 0):
    return CASES[case][2](count, torch.Generator().manual_seed(seed))


def update(metric, batch) -> None:
    """Output and target, and for some metrics a weight."""
    metric.update(*batch[:2], **({"weight": batch[2]} if len(batch) > 2 else {}))


def counted(name: str, batch):
    metric = build(name)
    update(metric, batch)
    return metric


def same(one, two) -> bool:
    """Integer counts are equal; float sums are equal up to rounding."""
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
        update(parts[sample % processes], [tensor[sample : sample + 1] for tensor in batch])
    by_state = build(name)
    by_state.load_state({key: sum(part.state()[key] for part in parts) for key in whole.state()})
    assert same(by_state, whole)
    merged = parts[0]
    for part in parts[1:]:
        assert merged.merge(part) is merged
    assert same(merged, whole)
    assert merged.compute() == pytest.approx(whole.compute(), rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_output_is_flat_floats_and_repeatable(name):
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
    update(metric, batch)
    expected = metric.compute()
    state = metric.state()
    update(metric, batch)
    metric.load_state(state)
    for tensor in state.values():
        tensor += 5
    assert metric.compute() == expected
    metric.reset()
    update(metric, batch)
    assert metric.compute() == expected


@pytest.mark.parametrize("name", NAMES)
def test_works_across_inference_mode_and_needs_no_gradient(name):
    batch = batch_of(name, 2)
    metric = build(name)
    with torch.inference_mode():
        update(metric, batch)
    update(metric, [batch[0].clone().requires_grad_(), *batch[1:]])
    twice = counted(name, batch).merge(counted(name, batch))
    assert same(metric, twice)
    assert not any(tensor.requires_grad for tensor in metric.state().values())


@pytest.mark.parametrize("name", NAMES)
def test_state_of_another_metric_is_refused(name):
    metric = build(name)
    with pytest.raises(ConfigError):
        metric.load_state({"other": torch.zeros(1)})
    with pytest.raises(ConfigError):
        metric.load_state({key: tensor[:-1] for key, tensor in metric.state().items()})
    with pytest.raises(ConfigError):
        METRICS.build("segmentation", num_classes=3).merge(METRICS.build("segmentation", num_classes=5))


def scores_of(case: str, *batch, **weight) -> dict[str, float]:
    metric = build(case)
    metric.update(*batch, **weight)
    return metric.compute()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("case", NAMES)
def test_pixels_of_weight_0_are_not_counted(case, dtype):
    output, target = batch_of(case, 3)[:2]
    weight = torch.ones(3, *output.shape[-2:], dtype=dtype)
    everywhere = scores_of(case, output, target)
    assert scores_of(case, output, target, weight=weight[:, None]) == pytest.approx(everywhere, nan_ok=True)
    weight[:, :1], weight[2] = 0, 0
    other_output, other_target = output.clone(), target.clone()
    other_output[..., :1, :], other_output[2] = float("nan"), -7.0
    other_target[..., :1, :], other_target[2] = 77, 1
    scores = scores_of(case, output, target, weight=weight)
    others = scores_of(case, other_output, other_target, weight=weight)
    assert others == pytest.approx(scores, rel=0, abs=0, nan_ok=True)
    assert scores != pytest.approx(everywhere, nan_ok=True)


@pytest.mark.parametrize("case", NAMES)
def test_weights_that_metrics_cannot_apply_are_refused(case):
    output, target = batch_of(case, 2)[:2]
    weight = torch.ones(2, *output.shape[-2:])
    weight[0, 0, 0] = 2.5
    with pytest.raises(DataError) as caught:
        build(case).update(output, target, weight=weight)
    assert caught.value.subject == "weight" and "2.5" in str(caught.value)
    with pytest.raises(SizeMismatchError):
        build(case).update(output, target, weight=weight[:, 1:])
