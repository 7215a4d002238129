"""The cases of the built-ins, declared like those of any plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

from ..labels import LabelSpec
from ..registry import CALLBACKS, ENCODERS, MODELS, WEIGHTS, keywords
from .case import Case

SIZES = {"smp-dpt": 224, "smp-pan": 128}
ENCODER_OF = {"smp-segformer": "mit_b0", "smp-dpt": "tu-vit_tiny_patch16_224"}
REGION = ("dice", "jaccard", "tversky", "lovasz", "focal", "mcc", "dice_ce", "jaccard_ce", "boundary", "cldice",
          "skeleton_recall")  # fmt: skip
SMP_REGION = ("smp-dice", "smp-jaccard", "smp-tversky", "smp-focal", "smp-lovasz")
OF_DEPTH = ("l1", "rmse", "berhu", "silog", "gradient", "depth_ssim", "ssim", "ms_ssim")
MODES = ("binary", "multiclass", "multilabel")

TORCH = Version(torch.__version__)

# Where SMP 0.6 deviates from the contract. Its behavior is kept, since users of smp-… expect SMP. Keys: name, mode.
OVERFLOW = {"half-precision": "the sums overflow fp16"}
SMP_FAULTS: dict[tuple[str, str | None], dict[str, str]] = {
    **{(f"smp-{name}", mode): OVERFLOW for name in ("dice", "jaccard", "tversky") for mode in MODES},
    ("smp-mcc", None): OVERFLOW,
    ("smp-focal", "binary"): {"all-ignored": "the mean over no pixels is NaN"},
    ("smp-focal", "multiclass"): {"all-ignored": "the mean over no pixels is NaN"},
    ("smp-focal", "multilabel"): dict.fromkeys(
        ("ignored-pixels", "ignored-image", "all-ignored"), "ignore_index raises an IndexError"
    ),
    ("smp-lovasz", "multiclass"): {
        "all-ignored": "the result is not a scalar",
        "half-precision": "it multiplies bf16 with fp32",
        **({"compiles": "torch warns inside the graph"} if Version("2.14") <= TORCH < Version("2.15") else {}),
    },
    ("smp-softbce", None): {"ignored-image": "ignored pixels count in the mean"},
    ("smp-softce", None): {"ignored-image": "ignored pixels count in the mean"},
    ("smp-pspnet", None): {"gradients": "unused encoder layers"},
    ("smp-pan", None): {
        "odd-sizes": "small images fail inside the pyramid with an error that does not name their size"
    },
    ("smp-dpt", None): {"gradients": "timm builds an unused classifier"},
}


def cases() -> list[Case]:
    """Cases with small settings for every built-in."""
    return [*_models(), *_encoders(), *_losses(), *_metrics(), *_datasets(), *_recipes(), *_callbacks(), *_weights()]


def _models() -> Iterator[Case]:
    for name in MODELS.names():
        if not MODELS.entry(name).builtin:
            continue
        if "encoder_channels" not in keywords(MODELS.get(name)):  # over a ready encoder
            options = {"encoder_name": ENCODER_OF.get(name, "resnet18")}
            yield Case("model", name, options, size=SIZES.get(name), expected_failures=SMP_FAULTS.get((name, None)))
        else:
            yield Case("model", name, {"encoder_channels": (4, 8, 8)})


def _encoders() -> Iterator[Case]:
    for name in ENCODERS.names():
        if ENCODERS.entry(name).builtin:
            yield Case("encoder", name, size=32)


def _losses() -> Iterator[Case]:
    for name in (*REGION, *SMP_REGION):
        for mode in MODES:
            yield Case("loss", name, {"mode": mode}, expected_failures=SMP_FAULTS.get((name, mode)))
    for name in OF_DEPTH:
        yield Case("loss", name, task="depth")
    for name, task in (("ce", "multiclass"), ("bce", "binary"), ("border_ce", "multiclass"), ("smp-softbce", "binary"),
                       ("smp-softce", "multiclass"), ("smp-mcc", "binary")):  # fmt: skip
        yield Case("loss", name, task=task, expected_failures=SMP_FAULTS.get((name, None)))
    reason = "it takes a whole batch, as [loss] in a recipe does"
    yield Case("loss", "multitask", {"heads": {"mask": {"ce": 1.0}}}, expected_failures={"scalar": reason})


def _metrics() -> Iterator[Case]:
    yield Case("metric", "segmentation", {"num_classes": 4})
    yield Case("metric", "segmentation", {"num_classes": 1}, task="binary")
    labels = LabelSpec(("a", "b", "c"))
    yield Case("metric", "segmentation", {"labels": labels, "mode": "multilabel"}, name="segmentation(multilabel)")
    yield Case("metric", "sweep", {"num_classes": 1, "bins": 20}, task="binary")
    yield Case("metric", "surface", {"num_classes": 3})
    yield Case("metric", "cldice", {"num_classes": 3})
    yield Case("metric", "instances", {"num_classes": 3})
    yield Case("metric", "rand", {"num_classes": 1}, task="binary")
    yield Case("metric", "depth", task="depth")
    for name in ("ssim", "psnr"):
        yield Case("metric", name, {"data_range": 4.0}, task="depth", size=16)


def _datasets() -> Iterator[Case]:
    yield Case("dataset", "composites", {"size": 48, "length": 4})
    for layout, count in (("isbi2012", 5), ("folder", 5), ("csv", 5), ("eva", 10), ("helen", 5), ("celebamask", 5),
                          ("cityscapes", 5), ("carvana", 5), ("camvid", 5), ("dsb2018", 5), ("nnunet", 5)):  # fmt: skip
        options = _Twin(layout, count)
        yield Case("dataset", options.dataset, options, name=options.dataset)


def _weights() -> Iterator[Case]:
    return (Case("weights", name, name=name) for name in WEIGHTS.names() if WEIGHTS.entry(name).builtin)


def _recipes() -> Iterator[Case]:
    widths = {"model.encoder_channels": [4, 8, 8], "train.batch_size": 2}
    yield Case("recipe", "demo", {**widths, "data.size": 32, "data.train.length": 4, "data.val.length": 4})
    yield Case("recipe", "eva-mask-depth", {**widths, "data.size": 32, "data.train.length": 4, "data.val.length": 4})
    for name, layout in (("isbi2012", "isbi2012"), ("helen", "helen"), ("celebamask-eyes-lips", "celebamask"),
                         ("unet-cityscapes", "cityscapes"), ("r2unet-cityscapes", "cityscapes"),
                         ("ddunet-cityscapes", "cityscapes"), ("carvana", "carvana"),
                         ("nuclei", "dsb2018")):  # fmt: skip
        crops = {"isbi2012": 60, "nuclei": 16}
        size = {"transform.train.crop": crops[name]} if name in crops else {"transform.size": 16}
        yield Case("recipe", name, _Twin(layout, 8, {**widths, **size}), name=name)


def _callbacks() -> Iterator[Case]:
    for name in CALLBACKS.names():
        if CALLBACKS.entry(name).builtin:
            yield Case("callback", name)


class _Twin:
    """Options of a dataset, or settings of its recipe, that write a twin of its layout into the folder of the case."""

    def __init__(self, layout: str, count: int, settings: dict[str, Any] | None = None) -> None:
        from ..twins import LAYOUTS

        self.layout, self.count, self.settings = layout, count, settings
        self.dataset, self.more = LAYOUTS[layout].dataset, LAYOUTS[layout].options

    def __call__(self, folder: Path) -> dict[str, Any]:
        from ..twins import write

        root = str(write(self.layout, folder / "data", count=self.count))
        return {"root": root, **self.more} if self.settings is None else {"data.root": root, **self.settings}
