"""One table of cases for what every loss keeps: every built-in is in it."""

from __future__ import annotations

import torch

from unetzoo import LOSSES

IGNORE = 255
# name, keywords, channels of the output, whether each channel has separate labels
CASES = [
    ("ce", {}, 3, False),
    ("ce", {"class_weights": [0.5, 1.0, 3.0], "label_smoothing": 0.1}, 3, False),
    ("bce", {}, 1, False),
    ("bce", {"pos_weight": 3.0}, 1, False),
    ("bce", {"pos_weight": [1.0, 4.0]}, 2, True),
    *(
        (name, keywords, channels, mode == "multilabel")
        for name in ("dice", "jaccard", "tversky", "dice_ce", "jaccard_ce")
        for mode, channels in (("binary", 1), ("multiclass", 3), ("multilabel", 2))
        for keywords in (
            {"mode": mode},
            {"mode": mode, "log_loss": True, "per_image": True},
            {"mode": mode, "smooth": 1.0, "empty": "skip"},
        )
    ),
    ("dice", {"mode": "multiclass", "classes": [0, 2], "class_weights": [1.0, 2.0, 3.0]}, 3, False),
    ("tversky", {"mode": "multiclass", "alpha": 0.7, "beta": 0.3, "per_image": True, "empty": "formula"}, 3, False),
    ("tversky", {"mode": "binary", "gamma": 0.75}, 1, False),
    ("dice_ce", {"mode": "multiclass", "class_weights": [0.5, 1.0, 3.0], "label_smoothing": 0.1}, 3, False),
    ("jaccard_ce", {"mode": "multilabel", "class_weights": [0.5, 3.0], "region_weight": 0.0}, 2, True),
    (
        "dice_ce",
        {"mode": "multiclass", "classes": [1, 2], "ce_weight": 0.5, "empty": "formula", "smooth": 1.0},
        3,
        False,
    ),
    ("boundary", {"mode": "multiclass", "classes": [0, 2], "class_weights": [1.0, 2.0, 3.0]}, 3, False),
    *(
        (name, {"mode": mode, **keywords}, channels, mode == "multilabel")
        for name, variants in (
            ("boundary", ({}, {"empty": "penalize"})),
            ("mcc", ({}, {"per_image": True}, {"empty": "skip"})),
            ("lovasz", ({}, {"per_image": True, "empty": "skip"})),
            ("focal", ({}, {"alpha": 0.25, "gamma": 0.5}, {"normalized": True}, {"reduced_threshold": 0.5})),
        )
        for mode, channels in (("binary", 1), ("multiclass", 3), ("multilabel", 2))
        for keywords in variants
    ),
    *(
        (name, {"mode": mode, **keywords, **more}, channels, mode == "multilabel")
        for name, keywords in (("cldice", {"iterations": 2}), ("skeleton_recall", {}))
        for mode, channels, more in (
            ("binary", 1, {"smooth": 1e-3}),
            ("multiclass", 3, {"classes": [0, 1, 2]}),
            ("multilabel", 2, {}),
        )
    ),
    ("focal", {"mode": "multilabel", "class_weights": [1.0, 3.0], "normalized": True}, 2, True),
    ("border_ce", {}, 1, False),
    ("border_ce", {"sigma": 1.0}, 2, False),
    ("border_ce", {"w0": 3.0, "class_weights": [0.5, 1.0, 2.0]}, 3, False),
    ("l1", {}, 1, None),
    ("rmse", {}, 1, None),
    ("berhu", {}, 1, None),
    ("silog", {}, 1, None),
    ("silog", {"variance_focus": 1.0}, 1, None),
    ("gradient", {}, 1, None),
    ("gradient", {"scales": 3}, 1, None),
    ("depth_ssim", {}, 1, None),
    ("ssim", {}, 1, None),
    ("ssim", {"win_size": 3}, 2, None),
    ("ssim", {"from_logits": True, "win_size": 5}, 1, None),
    ("ms_ssim", {}, 1, None),
    ("ms_ssim", {"win_size": 3, "weights": [0.4, 0.6]}, 2, None),
]
LABELED = [case for case in CASES if case[3] is not None]
DEPTH = [case for case in CASES if case[3] is None]
# Compare a pixel with its neighbors: a pixel cannot be seen twice without moving the others, an image can.
NEIGHBORS = {"border_ce", "boundary", "cldice", "skeleton_recall", "gradient", "depth_ssim", "ssim", "ms_ssim"}


def ids(case) -> str:
    return case[0] + "-" + "-".join(f"{key}={value}" for key, value in case[1].items())


def build(case, **more):
    return LOSSES.build(case[0], **case[1], **more)


def make(case, size=(2, 6, 6), seed=0, dtype=torch.float32):
    """A random output and target for a case."""
    _, _, channels, several = case
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = size
    output = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)
    if several is None:
        output = output.abs() + 0.1  # a depth, as silog wants it
        return output, torch.rand(batch, channels, height, width, generator=generator).to(dtype)
    shape = (batch, channels, height, width) if several else size
    return output, torch.randint(0, max(2, 1 if several else channels), shape, generator=generator)
