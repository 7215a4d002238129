"""The same predictions scored by several libraries, and why their scores differ.

`python -m benchmarks.atlas` runs every installed library, stores the outputs in `results/atlas.json` and writes
`docs/disagreements.md` from them. Each library is used as its documentation shows; those not installed are left out.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import unetzoo
from unetzoo.errors import UnetzooError

from .harness import RESULTS, environment

PAGE = Path(__file__).parents[1] / "docs" / "disagreements.md"
LIBRARIES = ("unetzoo", "SMP", "torchmetrics", "MONAI")
Score = float | str


@dataclass(frozen=True)
class Case:
    """One score of one prediction, by several libraries.

    Args:
        title: The situation.
        question: The score.
        why: Why the results differ, and what ours means.
        scores: Library → a call that returns the score.
    """

    title: str
    question: str
    why: str
    scores: dict[str, Callable[[], Any]] = field(default_factory=dict)


def evaluate(call: Callable[[], Any]) -> Score:
    """The score, or the name of the error that was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return round(float(call()), 4)
        except UnetzooError as error:
            return f"{type(error).__name__}"
        except ImportError:
            return "not installed"
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            return f"{type(error).__name__}"


# ----------------------------------------------------------------------------------- one call a library and question


def ours(predicted: Tensor, target: Tensor, key: str, **options: Any) -> float:
    metric = unetzoo.METRICS.build("segmentation", **options)
    metric.update(predicted, target)
    return metric.compute()[key]


def smp_score(predicted: Tensor, target: Tensor, name: str, reduction: str, **options: Any) -> Tensor:
    import segmentation_models_pytorch as smp

    if options["mode"] == "binary":  # which takes (N, 1, H, W)
        predicted, target = predicted[:, None], target[:, None]
    counts = smp.metrics.get_stats(predicted, target, **options)
    return getattr(smp.metrics, name)(*counts, reduction=reduction)


def torchmetrics_iou(predicted: Tensor, target: Tensor, **options: Any) -> Tensor:
    from torchmetrics.functional import jaccard_index

    return jaccard_index(predicted, target, **options)


def monai_iou(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    from monai.metrics import MeanIoU

    metric = MeanIoU(include_background=True, reduction="mean")
    if classes == 2:
        metric(predicted[:, None], target[:, None])
    else:
        from monai.networks.utils import one_hot

        metric(one_hot(predicted[:, None], classes), one_hot(target[:, None], classes))
    return metric.aggregate()  # pyright: ignore[reportReturnType]


def iou_case(
    title: str, why: str, predicted: Tensor, target: Tensor, classes: int, ignore_index: int | None = None
) -> Case:
    """Mean IoU of label maps with the defaults of each library."""
    binary = classes == 2
    mode = {"mode": "binary"} if binary else {"mode": "multiclass", "num_classes": classes}
    task = {"task": "binary"} if binary else {"task": "multiclass", "num_classes": classes}
    key = "iou/foreground" if binary else "miou"
    smp_mode = mode if ignore_index is None else mode | {"ignore_index": ignore_index}
    return Case(
        title,
        "IoU of the foreground" if binary else "mean IoU",
        why,
        {
            "unetzoo": lambda: ours(
                predicted, target, key, num_classes=1 if binary else classes, ignore_index=ignore_index
            ),
            "SMP": lambda: smp_score(predicted, target, "iou_score", "macro", **smp_mode),
            "torchmetrics": lambda: torchmetrics_iou(predicted, target, ignore_index=ignore_index, **task),
            "MONAI": lambda: monai_iou(predicted, target, classes),
        },
    )


def dice_loss(name: str, logits: Tensor, target: Tensor) -> Any:
    if name == "unetzoo":
        return unetzoo.LOSSES.build("dice", mode="binary")(logits, target)
    if name == "SMP":
        import segmentation_models_pytorch as smp

        return smp.losses.DiceLoss("binary")(logits, target)
    from monai.losses import DiceLoss

    return DiceLoss(sigmoid=True)(logits, target[:, None])


def loss_case(title: str, why: str, logits: Tensor, target: Tensor) -> Case:
    return Case(
        title,
        "Dice loss",
        why,
        {name: lambda name=name: dice_loss(name, logits, target) for name in ("unetzoo", "SMP", "MONAI")},
    )


def cases() -> list[Case]:
    """All cases in the order of the page."""
    empty = torch.zeros(1, 8, 8, dtype=torch.long)
    speck = empty.clone()
    speck[0, 3, 3] = 1
    halves = torch.zeros(1, 8, 8, dtype=torch.long)
    halves[:, :, 4:] = 1
    quarter = halves.clone()
    quarter[:, :4, :4] = 1
    wrong = torch.ones(1, 16, 16, dtype=torch.long), torch.zeros(1, 16, 16, dtype=torch.long)
    two = torch.zeros(2, 8, 8, dtype=torch.long)
    two[0, :7], two[1, 0, :4] = 1, 1  # a large object found, a small one missed
    found = two.clone()
    found[1] = 0
    void = halves.clone()
    void[0, :4] = 255
    guess = halves.clone()
    guess[0, :4] = 1 - guess[0, :4]  # wrong where nothing is known
    strange = halves.clone()
    strange[0, 0, 0] = 7
    truth, missed = speck, empty
    full = torch.full((1, 1, 512, 512), 4.0, dtype=torch.float16)
    return [
        iou_case(
            "Empty mask, empty prediction",
            "IoU is 0/0. unetzoo returns NaN, which is excluded from means (`empty=` sets 0 or 1 instead). SMP returns "
            "1, torchmetrics 0. MONAI excludes the image, but its mean over no images is 0.",
            empty, empty, 2,
        ),
        iou_case(
            "Empty mask, one false positive pixel",
            "unetzoo, SMP and torchmetrics count the false positive. MONAI excludes images with an empty mask, so "
            "that such false positives have no effect among other images.",
            speck, empty, 2,
        ),
        iou_case(
            "Three classes, one of them absent; a quarter of the pixels wrong",
            "IoU of the absent class is 0/0: SMP counts it as 1, the others exclude it from the mean.",
            quarter, halves, 3,
        ),
        iou_case(
            "Nineteen classes, every pixel wrong",
            "Two classes occur, both with IoU 0. SMP counts each of the 17 absent classes as 1, so a network that is "
            "always wrong scores 0.89.",
            wrong[0], wrong[1], 19,
        ),
        iou_case(
            "Two images: a large object found, a small one missed",
            "unetzoo, SMP and torchmetrics compute IoU from the counts of all images, as Cityscapes and PASCAL VOC do. "
            "MONAI averages over images; unetzoo adds this as `image/iou/…` with `per_image=True`.",
            found, two, 2,
        ),
        iou_case(
            "Void pixels (255), ignored, with wrong predictions",
            "Ignored pixels do not count, so the score is perfect. MONAI's metric does not support an ignored label.",
            guess, void, 3, 255,
        ),
        iou_case(
            "A label 7 with three classes and no ignore_index",
            "Labels outside the classes are errors in the data. SMP does not check labels, and counts the pixel as a "
            "false positive of the predicted class.",
            halves, strange, 3,
        ),
        Case(
            "A missed object",
            "95% Hausdorff distance in pixels",
            "The prediction has no outline. MONAI returns NaN or infinity and excludes NaN from its mean, so a network "
            "that finds nothing is not penalized. unetzoo uses the image diagonal, and counts missed objects.",
            {"unetzoo": lambda: our_surface(missed, truth), "MONAI": lambda: monai_surface(missed, truth)},
        ),
        Case(
            "Two images that differ by noise",
            "SSIM (Gaussian, σ 1.5)",
            "At the border, windows extend beyond the image. unetzoo and scikit-image exclude these pixels, as Wang et "
            "al. do; torchmetrics pads the images.",
            {
                "unetzoo": lambda: our_ssim(*noisy()),
                "torchmetrics": lambda: torchmetrics_ssim(*noisy()),
                "scikit-image": lambda: skimage_ssim(*noisy()),
            },
        ),
        loss_case(
            "Empty mask, confident foreground everywhere",
            "SMP's loss is 0 for classes without true pixels, so false positives have no gradient. MONAI's smoothing "
            "makes it about 1. unetzoo's loss is the mean probability of the false positives (unless `empty=` is set), "
            "with a gradient for each pixel.",
            torch.full((1, 1, 8, 8), 4.0), empty,
        ),
        loss_case(
            "Half precision, 512×512 foreground pixels",
            "Sums over the image exceed the range of fp16 (65,504). unetzoo sums in double precision.",
            full, torch.ones(1, 512, 512, dtype=torch.long),
        ),
    ]  # fmt: skip


def our_surface(predicted: Tensor, target: Tensor) -> float:
    metric = unetzoo.METRICS.build("surface", num_classes=1)
    metric.update(predicted, target)
    return metric.compute()["hd95"]


def monai_surface(predicted: Tensor, target: Tensor) -> Tensor:
    from monai.metrics import compute_hausdorff_distance

    return compute_hausdorff_distance(predicted[:, None], target[:, None], include_background=True, percentile=95)


def noisy() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.linspace(0, 1, 48)[:, None].expand(48, 48)
    return (rows + 0.1 * torch.randn(48, 48, generator=generator)).clamp(0, 1)[None, None], rows[None, None]


def our_ssim(predicted: Tensor, target: Tensor) -> float:
    metric = unetzoo.METRICS.build("ssim")
    metric.update(predicted, target)
    return metric.compute()["ssim"]


def torchmetrics_ssim(predicted: Tensor, target: Tensor) -> Tensor:
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(predicted, target, data_range=1.0)  # pyright: ignore


def skimage_ssim(predicted: Tensor, target: Tensor) -> Any:
    from skimage.metrics import structural_similarity

    return structural_similarity(
        predicted[0, 0].numpy(), target[0, 0].numpy(), data_range=1.0, gaussian_weights=True,
        use_sample_covariance=False,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the page


def record() -> dict[str, Any]:
    """Every case with the result of every library."""
    return {
        "environment": {key: environment()[key] for key in ("python", "versions")},
        "cases": [
            {"title": case.title, "question": case.question, "why": case.why,
             "scores": {name: plain(evaluate(call)) for name, call in case.scores.items()}}
            for case in cases()
        ],
    }  # fmt: skip


def plain(score: Score) -> Score:
    """NaN as text, since JSON has none."""
    return score if isinstance(score, str) or math.isfinite(score) else str(score)


def page(found: dict[str, Any]) -> str:
    """The atlas as Markdown."""
    names = found["environment"]["versions"]
    packages = {"SMP": "segmentation-models-pytorch"}
    versions = ", ".join(f"{name} {names.get(packages.get(name, name.lower()), '?')}" for name in LIBRARIES)
    lines = [
        "# Where libraries disagree",
        "",
        "Scores of the same predictions, computed by several libraries as in their documentation. Scores with the same "
        "name can differ: compare them only if you know how each was computed.",
        "",
        f"{versions}. Generated by `python -m benchmarks.atlas`; results in `benchmarks/results/atlas.json`.",
    ]
    for case in found["cases"]:
        columns = list(case["scores"])
        lines += [
            "", f"## {case['title']}", "",
            f"| {case['question']} | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
            f"| | {' | '.join(shown(case['scores'][name]) for name in columns)} |",
            "", case["why"],
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def shown(score: Score) -> str:
    if isinstance(score, str):
        return f"raises `{score}`" if score.endswith("Error") else score
    return f"{score:.4g}"


def main() -> None:
    found = record()
    RESULTS.joinpath("atlas.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
