"""Losses, forward and backward, compared with SMP, torch, kornia, MONAI and torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unetzoo import LOSSES

from .floors import dtype_name, of_bytes
from .harness import Race

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
CLASSES, SIZE = 19, (8, 1024, 2048) if CUDA else (2, 512, 1024)
Loss = Callable[[Tensor, Tensor], Tensor]
Contenders = dict[str, Callable[[], tuple[Tensor, Tensor]]]


def races() -> Iterator[Race]:
    for dtype in (torch.bfloat16, torch.float32) if CUDA else (torch.float32,):
        yield from _masks(dtype)
    yield _structure()


def _masks(dtype: torch.dtype) -> Iterator[Race]:
    import kornia.losses as kornia
    import segmentation_models_pytorch as smp

    def race(what: str, contenders: dict[str, Loss], target: Tensor, *, slopes: bool = True,
             notes: dict[str, str] | None = None) -> Race:  # fmt: skip
        notes = dict(notes or {})
        if CUDA:
            theirs = {name: loss for name, loss in contenders.items() if not name.startswith("unetzoo")}
            contenders = contenders | {f"{name}, compiled": torch.compile(loss) for name, loss in theirs.items()}
            notes |= {f"{name}, compiled": note for name, note in notes.items()}
        calls = {name: _both_ways(loss, logits, target) for name, loss in contenders.items()}
        size = f"{SIZE[0]}×{CLASSES}×{SIZE[1]}×{SIZE[2]}, {dtype_name(dtype)}"
        return Race(
            f"{what}, forward and backward, {size}",
            calls,
            _equal(set(notes), slopes),
            notes=notes,
            memory=True,
            limit=of_bytes(3 * logits.nbytes + 2 * target.nbytes),
        )

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SIZE[0], CLASSES, *SIZE[1:], generator=generator).to(DEVICE, dtype)
    labels = torch.randint(0, CLASSES, SIZE, generator=generator).to(DEVICE)
    many = torch.randint(0, 2, logits.shape, generator=generator).to(DEVICE)
    multiclass = {"mode": "multiclass"}

    dice, ce = LOSSES.build("dice", **multiclass), LOSSES.build("ce")
    theirs = smp.losses.DiceLoss("multiclass")
    contenders: dict[str, Loss] = {
        "unetzoo dice_ce": LOSSES.build("dice_ce", **multiclass),
        "unetzoo dice + ce": lambda x, t: dice(x, t) + ce(x, t),
        "SMP Dice + torch CE": lambda x, t: theirs(x, t) + F.cross_entropy(x, t),
    }
    yield race("CE + Dice of the batch", contenders | _monai(batch=True), labels)
    contenders = {
        "unetzoo dice_ce, per_image": LOSSES.build("dice_ce", per_image=True, **multiclass),
        "kornia Dice (macro) + torch CE": lambda x, t: kornia.dice_loss(x, t, "macro") + F.cross_entropy(x, t),
        "kornia Dice as published + torch CE": lambda x, t: kornia.dice_loss(x, t) + F.cross_entropy(x, t),
    }
    notes = {"kornia Dice as published + torch CE": "its default is another value: one Dice over all classes"}
    yield race("CE + Dice of each image", contenders | _monai(batch=False), labels, notes=notes)

    jaccard = smp.losses.JaccardLoss("multiclass")
    yield race(
        "CE + Jaccard",
        {
            "unetzoo jaccard_ce": LOSSES.build("jaccard_ce", **multiclass),
            "SMP Jaccard + torch CE": lambda x, t: jaccard(x, t) + F.cross_entropy(x, t),
        },
        labels,
    )
    yield race("CE", {"unetzoo ce": ce, "torch CE": F.cross_entropy}, labels)
    yield race("BCE", {"unetzoo bce": LOSSES.build("bce"), "torch BCE": lambda x, t: _bce(x, t.to(x.dtype))}, many)
    yield race("Dice", {"unetzoo dice": dice, "SMP Dice": theirs}, labels)
    yield race(
        "Dice of several labels",
        {"unetzoo dice": LOSSES.build("dice", mode="multilabel"), "SMP Dice": smp.losses.DiceLoss("multilabel")},
        many,
    )
    yield race(
        "Tversky",
        {
            "unetzoo tversky": LOSSES.build("tversky", alpha=0.7, beta=0.3, **multiclass),
            "SMP Tversky": smp.losses.TverskyLoss("multiclass", alpha=0.7, beta=0.3),
        },
        labels,
    )
    yield race(
        "Focal",
        {
            "unetzoo focal": LOSSES.build("focal", **multiclass),
            "SMP Focal": smp.losses.FocalLoss("multiclass"),
            "kornia binary focal": lambda x, t: kornia.binary_focal_loss_with_logits(
                x, F.one_hot(t, CLASSES).movedim(3, 1).to(x.dtype), None, 2.0, "mean"
            ),
        },
        labels,
    )
    yield race(
        "Lovász",
        {
            "unetzoo lovasz": LOSSES.build("lovasz", **multiclass),
            "SMP Lovász": smp.losses.LovaszLoss("multiclass"),
            "kornia Lovász": kornia.LovaszSoftmaxLoss(),
        },
        labels,
        slopes=False,  # pixels that are equally wrong have no order, and each order its own gradient
    )


def _monai(batch: bool) -> dict[str, Loss]:
    if find_spec("monai") is None:
        return {}
    from monai.losses.dice import DiceCELoss

    loss = DiceCELoss(softmax=True, to_onehot_y=True, batch=batch, smooth_nr=0.0, smooth_dr=1e-8)
    return {"MONAI DiceCE": lambda x, t: loss(x, t[:, None])}


def _bce(x: Tensor, t: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, t)


def _structure() -> Race:
    """1 − SSIM, as the mean over all complete windows of each image."""
    import kornia.losses as kornia
    import pytorch_msssim

    output, target = torch.rand(2, 8, 1, 192, 192, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    contenders: dict[str, Loss] = {
        "unetzoo ssim": LOSSES.build("ssim"),
        "kornia SSIM": lambda x, y: 2.0 * kornia.ssim_loss(x, y, 11, padding="valid"),
        "pytorch-msssim": lambda x, y: 1.0 - pytorch_msssim.ssim(x, y, data_range=1.0),
    }
    notes = {}
    if find_spec("torchmetrics") is not None:
        from torchmetrics.functional.image import structural_similarity_index_measure

        def mirrored(x: Tensor, y: Tensor) -> Tensor:
            score = structural_similarity_index_measure(x, y, data_range=1.0)
            assert isinstance(score, Tensor)
            return 1.0 - score

        contenders["torchmetrics SSIM"] = mirrored
        notes["torchmetrics SSIM"] = "counts mirrored borders too"
    calls = {name: _both_ways(loss, output, target) for name, loss in contenders.items()}
    return Race("SSIM, forward and backward, 8×1×192²", calls, _equal(set(notes)), notes=notes, memory=True)


def _both_ways(loss: Loss, output: Tensor, target: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    def call() -> tuple[Tensor, Tensor]:
        leaf = output.detach().requires_grad_()
        value = loss(leaf, target)
        value.backward()
        assert leaf.grad is not None
        return value.detach(), leaf.grad

    return call


def _equal(others: set[str], slopes: bool = True) -> Callable[[dict[str, Any]], None]:
    """Compare values to 1e-4 and gradients to 1e-3 of the largest; 2e-2 for bf16."""

    def check(outputs: dict[str, Any]) -> None:
        value, gradient = next(iter(outputs.values()))
        rough = gradient.dtype == torch.bfloat16
        for name, (other, slope) in outputs.items():
            if name in others:
                continue
            assert math.isclose(value, other, rel_tol=2e-2 if rough else 1e-4), (name, value, other)
            worst = (slope.float() - gradient.float()).abs().max() / gradient.float().abs().max()
            assert not slopes or worst <= (2e-2 if rough else 1e-3), (name, worst)

    return check
