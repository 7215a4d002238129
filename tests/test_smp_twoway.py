"""Both ways between SMP and us: encoders in SMP's decoders, losses and metrics in SMP's loop."""

import pytest
import segmentation_models_pytorch as smp
import torch
from refusals import refused

import unetzoo.models
from benchmarks import encoders


def test_the_table_in_the_docs_agrees_with_the_code():
    _, found, _ = encoders.parts(encoders.PAGE.read_text(encoding="utf-8"))
    assert found == encoders.table()


@pytest.mark.parametrize("name", encoders.NAMES)
def test_our_encoders_learn_in_a_dilated_decoder_and_in_a_pyramid(name):
    """The table is made without numbers; here they flow."""
    for net in (
        smp.DeepLabV3Plus(name, encoder_weights=None, encoder_depth=3, encoder_output_stride=8, decoder_channels=8),
        smp.FPN(name, encoder_weights=None, encoder_depth=5, decoder_pyramid_channels=8),
    ):
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        answer = net(x)
        assert answer.shape == (2, 1, 32, 32)
        answer.square().mean().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.encoder.parameters())


def test_a_stride_that_pooling_does_not_give_is_refused():
    with refused(ValueError, expected="output_stride 16", found="8"):
        smp.DeepLabV3("unetzoo-bn", encoder_weights=None, encoder_depth=4, encoder_output_stride=8)


@pytest.mark.parametrize("seed", range(3))
def test_binary_scores_are_smps(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 1, 16, 16, generator=generator)
    masks = torch.randint(0, 2, (5, 1, 16, 16), generator=generator)
    metric = unetzoo.METRICS.build("segmentation", num_classes=1, per_image=True)
    metric.update(logits[:2], masks[:2])
    metric.update(logits[2:], masks[2:])
    scores = metric.compute()
    stats = smp.metrics.get_stats((logits.sigmoid() > 0.5).long(), masks, mode="binary")
    for key, score in (
        ("iou", smp.metrics.iou_score), ("f1", smp.metrics.f1_score), ("precision", smp.metrics.precision),
        ("sensitivity", smp.metrics.sensitivity), ("specificity", smp.metrics.specificity),
    ):  # fmt: skip
        assert scores[f"{key}/foreground"] == pytest.approx(score(*stats, reduction="micro").item(), abs=1e-6)
    imagewise = smp.metrics.iou_score(*stats, reduction="micro-imagewise").item()
    assert scores["image/iou/foreground"] == pytest.approx(imagewise, abs=1e-6)


def test_multiclass_scores_are_smps():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 16, 16, generator=generator)
    masks = torch.randint(0, 4, (3, 16, 16), generator=generator)
    metric = unetzoo.METRICS.build("segmentation", num_classes=4)
    metric.update(logits, masks)
    tp, fp, fn, tn = smp.metrics.get_stats(logits.argmax(1), masks, mode="multiclass", num_classes=4)
    theirs = smp.metrics.iou_score(*(part.sum(0, keepdim=True) for part in (tp, fp, fn, tn)), reduction="none")[0]
    scores = metric.compute()
    assert [scores[f"iou/{index}"] for index in range(4)] == pytest.approx(theirs.tolist(), abs=1e-6)
