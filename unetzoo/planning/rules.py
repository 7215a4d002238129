"""The rules of a plan: every value of a recipe, with its reason, from the data, the machine and the time to train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..datasets.kinds import times_of
from ..drawing import summary
from ..errors import DataError, MemoryExhaustedError
from ..labels import LabelSpec
from ..models.pretrained import PACKAGES
from ..training.batch_size import SHARE, filling
from ..wording import pluralize
from .machine import WIDTHS, Timing, channels_of
from .survey import Survey

FEWEST_STEPS = 1200  # a wider network is chosen only if it can take this many,
FEWEST_PASSES = 15  # and see every image this often
EVALUATIONS = 30  # about as many epochs, so that few of them miss the best one
SHARE_OF_TIME = 0.9  # the rest is for the start, checkpoints and the report
EPOCH_SECONDS = 0.5  # for logs and checkpoints
POSITION_MATTERS = 0.25  # difference between top and bottom
RARE = 0.02  # share of the pixels
LARGEST_CROP, SMALLEST_CROP = 320, 64
THINNEST = 4.0  # pixels that a class must keep when images are shrunk


@dataclass(frozen=True)
class Choice:
    """A value of a recipe and why it was chosen: `key` is its path, e.g. ("train", "batch_size")."""

    key: tuple[str, ...]
    value: Any
    reason: str


@dataclass(frozen=True)
class View:
    """What the network sees at once.

    Args:
        size: Height and width to which images are resized, or None.
        crop: Side of training crops, or None for whole images.
        reason: Reason for both.
        height: Height of a training sample.
        width: Width of a training sample.
    """

    size: tuple[int, int] | None
    crop: int | None
    reason: str
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Pixels of a training sample."""
        return self.height * self.width


@dataclass(frozen=True)
class Fit:
    """Network and batch that fit into time and memory.

    Args:
        width: Channels of the first level.
        levels: Number of levels.
        batch: Batch size.
        steps: Optimizer steps in the time.
        reason: Reason for the width.
    """

    width: int
    levels: int
    batch: int
    steps: int
    reason: str


def choose(
    survey: Survey, labels: LabelSpec, timing: Timing, minutes: float, validation: int, pretrained: str | None = None
) -> list[Choice]:
    """Choose model, transforms, loss, optimizer and length of training.

    Args:
        survey: Facts of the training set.
        labels: Its label set.
        timing: Measurement of the machine.
        minutes: Time to train.
        validation: Number of validation images.
        pretrained: Weights of a pretrained encoder that is installed (`unetzoo.models.pretrained.PACKAGES`).

    Raises:
        DataError: Fewer than two classes occur.
        MemoryExhaustedError: Not even one sample fits into memory.
    """
    if not survey.foreground:
        raise DataError(
            "nothing to learn: one class in all masks", subject=survey.background, expected="at least two classes",
            hint="declare the mask values (names and ids); unetzoo doctor proposes them",
        )  # fmt: skip
    view = _view(survey, timing, minutes)
    fit = _fit(survey, labels, view, timing, minutes, WIDTHS[:1] if pretrained else WIDTHS)
    return [
        *_model(survey, labels, fit, pretrained),
        *_transform(survey, labels, view, pretrained),
        *_objective(survey, labels),
        *_length(survey, view, fit, timing, minutes, validation),
        *_settings(survey, labels, view, fit, timing, pretrained),
    ]


def _view(survey: Survey, timing: Timing, minutes: float) -> View:
    height, width = survey.median
    if survey.same_size and (survey.upright > POSITION_MATTERS or height * width <= 2 * SMALLEST_CROP**2):
        size, why = _shrunk(survey, timing, minutes)
        if survey.upright > POSITION_MATTERS:
            reason = f"top and bottom differ ({survey.upright:.0%}), so whole images keep the position of classes"
        else:
            reason = "small images are seen whole"
        height, width = size or (height, width)
        return View(size, None, reason + why, height, width)
    extent = max(found.extent for found in survey.foreground.values())
    wanted = min(max(2 * extent, 2 * SMALLEST_CROP), LARGEST_CROP)
    side = max(min(-(-wanted // 32) * 32, min(survey.smallest) // 16 * 16), 1)
    if min(survey.smallest) < SMALLEST_CROP:
        raise DataError(
            "images too small to train on", expected=f"at least {SMALLEST_CROP} pixels per side",
            found="{}×{}".format(*survey.smallest), hint="enlarge or remove the smallest images; "
            "unetzoo doctor lists sizes, and a recipe written by hand may set size",
        )  # fmt: skip
    reason = f"at least twice the size of objects: 90% are smaller than {extent} px"
    if side < wanted:
        reason += f"; the smallest image has {min(survey.smallest)} px"
    return View(None, side, reason, side, side)


def _shrunk(survey: Survey, timing: Timing, minutes: float) -> tuple[tuple[int, int] | None, str]:
    """A smaller size if the time does not suffice for whole images, and no thin class is lost."""
    height, width = survey.median
    thinnest = min(found.thickness for found in survey.foreground.values())
    seconds = 60 * minutes * SHARE_OF_TIME
    for factor in (1.0, 1.5, 2.0, 3.0, 4.0):
        sample = timing.step_seconds(WIDTHS[0], 1, int(height * width / factor**2)) - timing.fixed_ms[WIDTHS[0]] / 1e3
        passes = seconds / (sample * survey.samples)
        if passes >= 2 * FEWEST_PASSES or thinnest / factor < THINNEST / 2:
            break
    if factor == 1:
        return None, ""
    return (round(height / factor), round(width / factor)), f"; shrunk by {factor:g} to see them often enough"


def _fit(survey: Survey, labels: LabelSpec, view: View, timing: Timing, minutes: float, widths: Sequence[int]) -> Fit:
    """The widest network that takes enough steps; a pretrained encoder takes about as long as the narrowest."""
    shortest = min(view.height, view.width)
    levels = max(3, min(5, int(math.log2(shortest / 8)) + 1))
    seconds = 60 * minutes * SHARE_OF_TIME
    for width in reversed(widths):
        batch = _batch(survey, labels, view, timing, width, levels)
        if not batch:
            continue
        steps = int(seconds / timing.step_seconds(width, batch, view.pixels))
        passes = steps * batch / survey.samples
        if (steps >= FEWEST_STEPS and passes >= FEWEST_PASSES) or width == WIDTHS[0]:
            time = f"{pluralize(steps, 'step')} in {_minutes(minutes)}"
            enough = steps >= FEWEST_STEPS and passes >= FEWEST_PASSES
            reason = f"the widest that is fast enough: about {time}" if enough else f"the narrowest; only {time}"
            return Fit(width, levels, batch, steps, reason)
    raise MemoryExhaustedError(
        "one sample does not fit into memory", found=f"{timing.memory / 2**30:.1f} GiB free",
        expected=f"room for {view.height}×{view.width} pixels at width {WIDTHS[0]}",
        hint="free memory, or write a recipe with a smaller crop or size",
    )  # fmt: skip


def _batch(survey: Survey, labels: LabelSpec, view: View, timing: Timing, width: int, levels: int) -> int:
    """The batch size for a width; 0 if not even one sample fits into memory."""
    cost = summary(
        "bnunet", max(view.height, view.width), in_channels=survey.channels, classes=labels.classes,
        encoder_channels=channels_of(width, levels),
    )  # fmt: skip
    square = max(view.height, view.width) ** 2
    bytes_each = 2 * cost.root.training_bytes * view.pixels / square  # the backward pass holds as much again
    most = int(SHARE * timing.memory / bytes_each)
    wanted = filling(timing.device, view.pixels)
    if not view.crop:
        wanted = min(wanted, max(4, survey.samples // 8))  # a small set needs steps more than large batches
    return min(wanted, most, survey.samples)


def _why_batch(survey: Survey, view: View, fit: Fit) -> str:
    if fit.batch == survey.samples:
        return "all training images"
    if not view.crop and fit.batch == max(4, survey.samples // 8):
        return "a small training set needs steps more than large batches"
    return "fills the processor, within the free memory"


def _minutes(minutes: float) -> str:
    return "1 minute" if minutes == 1 else f"{minutes:g} minutes"


def _model(survey: Survey, labels: LabelSpec, fit: Fit, pretrained: str | None) -> list[Choice]:
    name = "dualunet" if survey.has_depth else "bnunet"
    why = "mask and depth" if survey.has_depth else "a U-Net with batch norm: sound from scratch, and the fastest here"
    classes = 1 if labels.classes == 2 else labels.classes
    if pretrained:
        return [
            Choice(("model", "name"), "encoder-unet", "a U-Net on a pretrained encoder"),
            Choice(("model", "encoder_name"), PACKAGES[pretrained][0], "fast on processors"),
            Choice(("model", "encoder_weights"), pretrained, "installed; pretrained on the photographs of ImageNet"),
            Choice(("model", "classes"), classes, "binary: one logit" if classes == 1 else "classes of the masks"),
        ]
    return [
        Choice(("model", "name"), name, why),
        *([] if survey.has_depth else [
            Choice(("model", "in_channels"), survey.channels, "channels of the images, as they are read"),
            Choice(("model", "classes"), classes, "binary: one logit" if classes == 1 else "classes of the masks"),
        ]),
        Choice(("model", "encoder_channels"), channels_of(fit.width, fit.levels), fit.reason),
    ]  # fmt: skip


def _transform(survey: Survey, labels: LabelSpec, view: View, pretrained: str | None) -> list[Choice]:
    kinds = len(survey.kinds)
    train = ("transform", "train")
    if pretrained:
        choices = [Choice(("transform", "normalize"), "encoder", "as in pretraining")]
    elif kinds > 1 or survey.channels == 1:
        why = f"{kinds} kinds of images differ in color" if kinds > 1 else "gray images: brightness carries no class"
        choices = [Choice(("transform", "normalize"), "standard", why + "; each image to mean 0, deviation 1")]
    else:
        stats = {"mean": list(survey.mean), "std": list(survey.std)}
        choices = [Choice(("transform", "normalize"), stats, "mean and deviation of the training images")]
    if view.size:
        choices.append(Choice(("transform", "size"), list(view.size), view.reason))
    if view.crop:
        choices += [Choice((*train, "crop"), view.crop, view.reason), *_focus(survey)]
    choices.append(Choice((*train, "hflip"), 0.5, "mirror images are as likely" if not labels.swap_pairs else
                          "mirrored images are as likely; left and right classes are exchanged"))  # fmt: skip
    if survey.upright <= POSITION_MATTERS:
        choices.append(Choice((*train, "vflip"), 0.5, f"top and bottom are alike (difference {survey.upright:.0%})"))
        if view.height == view.width and not labels.swap_pairs:
            choices.append(Choice((*train, "rot90"), True, "no upright position, and no left and right classes"))
    if view.crop:
        choices.append(Choice((*train, "scale"), [0.8, 1.25], "objects of other sizes"))
    light = (0.2, 0.4) if kinds > 1 else (0.1, 0.2)
    why = f"{kinds} kinds of images: strong changes" if kinds > 1 else "other exposures"
    choices += [Choice((*train, key), value, why) for key, value in zip(("brightness", "contrast"), light, strict=True)]
    if survey.channels == 3 and kinds > 1:
        choices += [
            Choice((*train, "saturation"), 0.5, why), Choice((*train, "hue"), 20, why),
            Choice((*train, "albumentations"), [{"name": "InvertImg", "p": 0.15}, {"name": "ToGray", "p": 0.15}],
                   "rare kinds of images: classes must not depend on dark or bright, or on the color"),
        ]  # fmt: skip
    return choices


def _focus(survey: Survey) -> list[Choice]:
    """Crops on rare classes."""
    rare = [name for name, found in survey.foreground.items() if found.share < RARE]
    if not rare:
        return []
    key, shares = (
        ("transform", "train", "focus"),
        ", ".join(f"class {n} has {survey.objects[n].share:.2%}" for n in rare[:4]),
    )
    if len(rare) > 3:
        return [Choice(key, "balanced", f"{len(rare)} rare classes: {shares} of the pixels, …")]
    return [Choice(key, {name: round(0.5 / len(rare), 2) for name in rare}, f"rare: {shares} of the pixels")]


def _objective(survey: Survey, labels: LabelSpec) -> list[Choice]:
    why = "regions and pixels: Dice for rare classes, cross-entropy for a gradient everywhere"
    if survey.has_depth:
        return [Choice(("loss", "mask", "dice_ce"), 1.0, why), Choice(("loss", "depth", "l1"), 1.0, "depth"),
                Choice(("metrics", "mask", "name"), "segmentation", "IoU, Dice and others per class"),
                Choice(("metrics", "depth", "name"), "depth", "errors of depth")]  # fmt: skip
    return [Choice(("loss", "dice_ce"), 1.0, why),
            Choice(("metrics", "mask", "name"), "segmentation", "IoU, Dice and others per class")]  # fmt: skip


def _length(survey: Survey, view: View, fit: Fit, timing: Timing, minutes: float, validation: int) -> list[Choice]:
    """Epochs and crops per image, so that training and evaluation fill the time."""
    per_epoch = max(1, fit.steps // EVALUATIONS)
    times = times_of(survey.kinds)
    more = sum(share * (number - 1) for share, number in zip(survey.kinds, times, strict=True))
    samples = survey.samples * (1 + more)
    repeat = max(1, round(per_epoch * fit.batch / samples))
    in_epoch = math.ceil(samples * repeat / fit.batch)
    height, width = view.size or survey.median
    evaluation = validation * timing.image_seconds(fit.width, height * width)
    step = timing.step_seconds(fit.width, fit.batch, view.pixels)
    seconds = 60 * minutes * SHARE_OF_TIME - evaluation  # the best network is evaluated once more
    epochs = max(1, int(seconds / (in_epoch * step + evaluation + EPOCH_SECONDS)))
    length = f"{_minutes(minutes)}: {pluralize(in_epoch, 'step')} of {step:.2g} s, and {evaluation:.2g} s of evaluation"
    repeated = Choice(("data", "repeat"), repeat, "an epoch sees every image this often, so that evaluations are few")
    often = ", ".join(map(str, times))
    balance = Choice(("data", "balance"), "kinds", f"an epoch sees rare kinds of images more often: {often} times")
    return [
        *([repeated] if repeat > 1 else []), *([balance] if max(times) > 1 else []),
        Choice(("train", "epochs"), epochs, length),
    ]  # fmt: skip


def _settings(
    survey: Survey, labels: LabelSpec, view: View, fit: Fit, timing: Timing, pretrained: str | None
) -> list[Choice]:
    rate = 1e-3 if fit.width >= 64 else 2e-3
    slower = Choice(("optimizer", "encoder_lr"), 0.3, "a smaller rate keeps what the encoder has learned")
    decay = min(0.999, max(0.9, round(1 - 20 / max(fit.steps, 1), 3)))
    monitor = f"iou/{labels.names[1]}" if labels.classes == 2 else "miou"
    workers = 0 if timing.device == "cpu" and timing.cpus <= 2 else min(8, max(1, timing.cpus - 1))
    return [
        Choice(("optimizer", "name"), "adamw", "insensitive to scale"),
        Choice(("optimizer", "lr"), rate, "for a new decoder" if pretrained else f"for width {fit.width}"),
        *([slower] if pretrained else []),
        Choice(("optimizer", "weight_decay"), 0.01, "the usual one"),
        Choice(("scheduler", "name"), "cosine", "ends at a small rate, when the time is over"),
        Choice(("scheduler", "unit"), "step", "smooth even with few epochs"),
        Choice(("scheduler", "warmup"), max(1, min(100, fit.steps // 20)), "the first steps are noisy"),
        Choice(("train", "batch_size"), fit.batch, _why_batch(survey, view, fit)),
        Choice(("train", "precision"), "auto", "bf16 where the hardware supports it"),
        Choice(("train", "ema"), decay, "averages the weights of the last twentieth of the run"),
        Choice(("train", "workers"), workers, f"{pluralize(timing.cpus, 'processor')}, device {timing.device}"),
        Choice(("train", "monitor"), monitor, "the best epoch has the best overlap"),
    ]
