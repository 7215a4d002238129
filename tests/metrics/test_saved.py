"""Confusion matrices on disk: the same after a way there and back, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetzoo import LabelSpec
from unetzoo.errors import ConfigError, DataError, LabelRangeError
from unetzoo.metrics import SegmentationMetric

EYES = LabelSpec(("skin", "left eye", "right eye", "Mund · 口"), ignore_index=255, groups={"eyes": (1, 2)})
METRICS = {
    "plain": {"num_classes": 3},
    "binary": {"num_classes": 1, "threshold": 0.3, "ignore_index": -1},
    "named": {"labels": EYES, "empty": 1},
    "everything": {"labels": EYES, "per_image": True, "one_vs_rest": 0.75, "empty": 0},
    "multilabel": {"labels": EYES, "mode": "multilabel", "threshold": (0.5, 0.2, 0.3, 0.4), "per_image": True},
    "ignored class": {"num_classes": 3, "ignore_index": 0},
}


def filled(name: str, seed: int = 0) -> SegmentationMetric:
    metric, generator = SegmentationMetric(**METRICS[name]), torch.Generator().manual_seed(seed)
    if name == "multilabel":
        truth = torch.randint(0, 2, (3, 4, 5, 6), generator=generator)
    else:
        truth = torch.randint(0, metric.num_classes, (3, 5, 6), generator=generator)
    if metric.ignore_index is not None:
        truth[0, 0] = metric.ignore_index
    logits = torch.randn(3, 1 if name == "binary" else metric.num_classes, 5, 6, generator=generator)
    metric.update(logits, truth)
    return metric


@pytest.mark.parametrize("name", METRICS)
def test_there_and_back(name, tmp_path):
    metric = filled(name)
    metric.save(tmp_path / "new folder" / "c.json")
    again = SegmentationMetric.load(tmp_path / "new folder" / "c.json")
    assert again.rules() == metric.rules() and torch.equal(again.confusion, metric.confusion)
    assert again.compute() == pytest.approx(metric.compute(), rel=0, abs=0, nan_ok=True)
    both = again.merge(filled(name, seed=1))
    expected = filled(name).merge(filled(name, seed=1))
    assert both.compute() == pytest.approx(expected.compute(), rel=1e-12, nan_ok=True)


def test_another_policy_later(tmp_path):
    metric = SegmentationMetric(num_classes=4)
    metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]))
    metric.save(tmp_path / "c.json")
    for empty, miou in (("nan", 0.25), (0, 0.125), (1, 0.625)):
        assert SegmentationMetric.load(tmp_path / "c.json", empty=empty).compute()["miou"] == miou
    filled("everything").save(tmp_path / "c.json")
    with pytest.raises(ConfigError, match="policy"):
        SegmentationMetric.load(tmp_path / "c.json", empty="nan")


def test_counts_are_exact_at_any_size(tmp_path):
    metric = filled("plain")
    for _ in range(50):
        metric.merge(metric)
    assert metric.confusion.max() > 2**53
    metric.save(tmp_path / "c.json")
    assert torch.equal(SegmentationMetric.load(tmp_path / "c.json").confusion, metric.confusion)


def test_a_person_can_read_it(tmp_path):
    filled("named").save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert content["names"] == list(EYES.names) and content["groups"] == {"eyes": [1, 2]}
    assert content["confusion"] == [filled("named").confusion.tolist()] and content["ignored"] == [6]


def test_invalid_counts_are_not_saved(tmp_path):
    metric = SegmentationMetric(num_classes=2)
    metric.update(torch.tensor([[[0]]]), torch.tensor([[[7]]]))
    with pytest.raises(LabelRangeError):
        metric.save(tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError):
        filled("plain").save(tmp_path / "file" / "c.json")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "c.json"
    filled("everything").save(path)
    whole = json.loads(path.read_text(encoding="utf-8"))
    wrong = {
        "format": "unetzoo confusion 2", "names": ["a", "b"], "groups": {"eyes": [9]}, "mode": "multilabel",
        "ignore_index": "x", "threshold": [2.0], "per_image": False, "one_vs_rest": 7, "empty": "zero",
        "confusion": [[[1, 2], [3, 4]]], "ignored": [-1], "sure": None, "images": [1.5] * 5,
    }  # fmt: skip
    for key, value in wrong.items():
        for content in (whole | {key: value}, {k: v for k, v in whole.items() if k != key}):
            path.write_text(json.dumps(content), encoding="utf-8")
            with pytest.raises(DataError):
                SegmentationMetric.load(path)
    for text in ("", "[]", "null", "{", '{"format": 1}', "[" * 100_000, "\x00"):
        path.write_text(text)
        with pytest.raises(DataError):
            SegmentationMetric.load(path)
    with pytest.raises(DataError):
        SegmentationMetric.load(tmp_path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_raise_only_our_errors(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    filled("everything").save(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    try:
        SegmentationMetric.load(path).compute()
    except (DataError, ConfigError):
        pass
