"""CutMix and copy-paste: parts of other samples of a batch replace parts of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..labels import LabelSpec
from .focus import class_index
from .geometry import PLANES
from .settings import wrong

Batch = dict[str, Any]


@dataclass(frozen=True)
class Mixing:
    """Mixes the samples of a batch, with random numbers that each sample brings.

    All planes follow: mask, depth, valid, weight and instances, which get numbers that the sample does not have yet.

    Args:
        cutmix: Probability that a rectangle of a sample is replaced by that of another sample. Its share of the area is
            uniform in 0…1 before it is cut off at the borders.
        classes: Indices of the classes whose pixels are pasted, or names without a label set.
        shares: Probability of each class, if another sample of the batch contains it.

    Examples:
        >>> batch = {"image": torch.rand(2, 3, 8, 8), "mask": torch.zeros(2, 8, 8, dtype=torch.int64)}
        >>> batch["mask"][0, 2:4, 2:4] = 1
        >>> mixing = Mixing(classes=(1,), shares=(1.0,))
        >>> batch["mixing"] = torch.stack([mixing.draw(np.random.default_rng(seed)) for seed in (0, 1)])
        >>> mixed = mixing(batch)
        >>> mixed["mask"].sum((1, 2)), torch.equal(mixed["image"][1, :, 2, 2], batch["image"][0, :, 2, 2])
        (tensor([4, 4]), True)

    Source:
        Yun et al., "CutMix", 2019, for segmentation as in French et al., "Semi-supervised semantic segmentation needs
        strong, varied perturbations", 2020; Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for
        Instance Segmentation", 2021, without rescaling of what is pasted.
    """

    cutmix: float = 0.0
    classes: tuple[int | str, ...] = ()
    shares: tuple[float, ...] = ()

    @classmethod
    def of(cls, cutmix: Any, copy_paste: Any, labels: LabelSpec | None) -> Mixing | None:
        """Check the settings `cutmix` and `copy_paste` of a transform; None if nothing is mixed.

        Raises:
            ConfigError: Unknown class, or values that are not probabilities.
        """
        if not isinstance(cutmix, int | float) or not 0 <= cutmix <= 1:
            raise wrong("cutmix", cutmix, "a number in 0…1")
        table = {} if copy_paste is None else copy_paste
        if not isinstance(table, Mapping) or not all(
            isinstance(share, int | float) and 0 < share <= 1 for share in table.values()
        ):
            raise wrong("copy_paste", copy_paste, "a table of classes and probabilities such as {crack = 0.5}")
        if not cutmix and not table:
            return None
        classes = tuple(class_index(name, labels, "copy_paste") for name in table)
        return cls(float(cutmix), classes, tuple(map(float, table.values())))

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw the random numbers of one sample."""
        return torch.from_numpy(rng.random(4 + 2 * len(self.classes), np.float32))

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, Any]) -> Batch:
        """Mix a batch without waiting for its device.

        Raises:
            ConfigError: Names of classes without a label set.
        """
        numbers = batch["mixing"].to(batch["image"].device, non_blocking=True)
        mixed = {name: value for name, value in batch.items() if name != "mixing"}
        places = torch.arange(len(numbers), device=numbers.device)
        if self.cutmix and len(numbers) > 1:
            chosen = numbers[:, 0] < self.cutmix
            mixed = _pasted(mixed, batch, places.roll(1), _boxes(batch["image"], numbers) & chosen.view(-1, 1, 1))
        for number, (index, share) in enumerate(zip(self.classes, self.shares, strict=True)):
            if isinstance(index, str):
                raise wrong("copy_paste", index, "an index of a class, or labels beside the names")
            chosen, turn = numbers[:, 4 + 2 * number] < share, numbers[:, 5 + 2 * number]
            pixels = batch["mask"][:, index] == 1 if batch["mask"].ndim == 4 else batch["mask"] == index
            donors = _donors(pixels.flatten(1).any(1), turn)
            chosen = chosen & (donors != places)
            mixed = _pasted(mixed, batch, donors, pixels[donors] & chosen.view(-1, 1, 1))
        return mixed


def _boxes(image: Tensor, numbers: Tensor) -> Tensor:
    """Return the rectangle of each sample as a map (N, H, W)."""
    spans = []
    for length, center in zip(image.shape[-2:], (numbers[:, 2], numbers[:, 3]), strict=True):
        pixels = torch.arange(length, device=image.device) + 0.5
        spans.append((pixels - center[:, None] * length).abs() < numbers[:, 1, None].sqrt() * length / 2)
    rows, columns = spans
    return rows[:, :, None] & columns[:, None, :]


def _donors(present: Tensor, turn: Tensor) -> Tensor:
    """Return for each sample another one that contains a class, at random if there are several; itself if none does."""
    count = len(present)
    places = torch.arange(count, device=present.device)
    order = (places - places[:, None] + (turn[:, None] * count).long()) % count
    scores = torch.where(present, order + 1, -1)
    scores = torch.where(places == places[:, None], 0, scores)  # itself, if no other sample has the class
    return scores.argmax(1)


def _pasted(mixed: Batch, batch: Mapping[str, Any], donors: Tensor, region: Tensor) -> Batch:
    """Replace a region (N, H, W) of all planes by that of the donors."""
    result = dict(mixed)
    for name in PLANES:
        if name in batch:
            own, other = mixed[name], batch[name][donors]
            if name == "instances":
                other = torch.where(other > 0, other + own.amax((1, 2), keepdim=True), other)
            result[name] = torch.where(region if own.ndim == 3 else region[:, None], other, own)
    return result
