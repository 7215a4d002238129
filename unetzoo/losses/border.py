"""The original U-Net's loss: cross entropy that dwells on the gaps between neighbouring cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..errors import ConfigError, InputShapeError
from ._inputs import (
    check_output,
    class_vector,
    for_classes,
    full_precision,
    outside_autocast,
    read_target,
    weighted_mean,
)

# A cell this many σ away adds less than 10⁻⁹·w0.
REACH = 6.5


def border_weights(labels: ArrayLike, w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float32]:
    """Weight of every pixel: `w(x) = 1 + w0·exp(−(d₁ + d₂)² / 2σ²)` on the background, 1 on cells.

    d₁ and d₂ are the distances to the nearest and the second-nearest cell, in pixels between centres. A cell is a
    4-connected piece of equal labels > 0: so class maps will do (touching cells need a line of background between them)
    and so will instance maps. With fewer than two cells near, a pixel weighs 1.

    Args:
        labels: Integers, 0 for the background.
        w0: Height of the weight.
        sigma: Its width, in pixels.

    Shape:
        - labels: (H, W)
        - result: (H, W), float32

    Raises:
        InputShapeError: Labels that are not (H, W).
        ConfigError: Unusable w0 or sigma.

    Examples:
        >>> print(border_weights([[1, 0, 2]]))  # 1 + 10·exp(−(1 + 1)² / 50)
        [[ 1.       10.231163  1.      ]]

    Source:
        Ronneberger et al., "U-Net", 2015, eq. 2, with w_c = 1.
    """
    from scipy import ndimage

    _check(w0, sigma)
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise InputShapeError("unusable labels", expected="shape (H, W)", found=labels.shape)
    labels = np.maximum(labels, 0).astype(np.int64)
    nearest, second = np.full((2, *labels.shape), np.inf)
    margin = math.ceil(REACH * sigma)
    for value, box in enumerate(ndimage.find_objects(labels) if labels.size else [], start=1):
        if box is None:
            continue
        pieces = np.zeros(labels[box].shape, np.int32)
        ndimage.label(labels[box] == value, output=pieces)
        for index, piece in enumerate(ndimage.find_objects(pieces), start=1):
            start = [outer.start + inner.start for outer, inner in zip(box, piece, strict=True)]
            size = [inner.stop - inner.start for inner in piece]
            around = tuple(
                slice(max(0, s - margin), min(s + n + margin, whole))
                for s, n, whole in zip(start, size, labels.shape, strict=True)
            )
            elsewhere = np.ones([s.stop - s.start for s in around], bool)
            own = tuple(slice(s - a.start, s - a.start + n) for s, n, a in zip(start, size, around, strict=True))
            elsewhere[own] = pieces[piece] != index
            distance = np.asarray(ndimage.distance_transform_edt(elsewhere))
            second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
            nearest[around] = np.minimum(nearest[around], distance)
    border = w0 * np.exp(-((nearest + second) ** 2) / (2.0 * sigma**2))
    return (1.0 + np.where(labels == 0, border, 0.0)).astype(np.float32)


# An operator of its own, so that `torch.compile` need not look inside.
@torch.library.custom_op("unetzoo::border_weights", mutates_args=())
def _border_weights_of_batch(labels: Tensor, w0: float, sigma: float) -> Tensor:
    maps = [border_weights(image, w0, sigma) for image in labels.cpu().numpy()]
    return torch.from_numpy(np.stack(maps)).to(labels.device) if maps else labels.new_zeros(labels.shape).float()


@_border_weights_of_batch.register_fake
def _(labels: Tensor, w0: float, sigma: float) -> Tensor:
    return torch.empty_like(labels, dtype=torch.float32)


class BorderCELoss(nn.Module):
    r"""Cross entropy weighted by the U-Net paper's map, which is made from the target: `Σ w·v·l / Σ w·v`.

    `w(x) = w_c(x) + w0·exp(−(d₁ + d₂)² / 2σ²)`, see `border_weights`; v is the pixel's own weight (0 where ignored),
    w_c its class's weight, `l = −ln p[t]`. Label 0 is the background. Pixels that do not count belong to no cell.

    Without `class_weights` that is `CELoss` with `weight=border_weights(target)`. Making the map costs CPU time for
    each cell in every step, and on an accelerator the host waits for the labels: where targets come from disk, a data
    set that gives the map as `weight` to `CELoss` is faster. (The paper sums over pixels; this is a mean.)

    Args:
        w0: Height of the weight between cells.
        sigma: Its width, in pixels.
        class_weights: w_c, one number ≥ 0 a class; 1 by default.
        ignore_index: Label of the pixels that do not count.

    Shape:
        - output: logits (N, C, H, W), softmax over C ≥ 2; or (N, 1, H, W): the foreground's logit, sigmoid
        - target: integers (N, H, W) or (N, 1, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Unusable w0, sigma or class weights.
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of another size.
        DataError: A target that is not of integers.
        LabelRangeError: Labels outside the classes, checked on the CPU alone: on an accelerator the loss is NaN.

    Examples:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 3)
        >>> round(BorderCELoss()(logits, torch.tensor([[[1, 0, 1]]])).item(), 4)  # ln 2
        0.6931
        >>> logits[0, 0, 0, 1] = 4.0  # sure of the gap
        >>> round(BorderCELoss()(logits, torch.tensor([[[1, 0, 1]]])).item(), 4)
        0.1285

    Source:
        Ronneberger et al., "U-Net", 2015, eqs. 1 and 2, with its w0 = 10 and σ = 5.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        w0: float = 10.0,
        sigma: float = 5.0,
        class_weights: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        _check(w0, sigma)
        self.w0, self.sigma, self.ignore_index = float(w0), float(sigma), ignore_index
        self.register_buffer("class_weights", class_vector(class_weights, "class_weights"), persistent=False)

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar."""
        check_output(output)
        with outside_autocast(output):
            output = full_precision(output)
            if output.shape[1] == 1:  # a sigmoid is a softmax against a background of logit 0
                output = torch.cat([torch.zeros_like(output), output], 1)
            truth = read_target(output, target, mode="multiclass", ignore_index=self.ignore_index, weight=weight)
            labels = truth.labels[:, 0]
            counts = None if truth.weight is None else truth.weight[:, 0]
            cells = labels if counts is None else labels.masked_fill(counts == 0, 0)
            pixels = _border_weights_of_batch(cells, self.w0, self.sigma).to(output)
            per_class = for_classes(self.class_weights, output, output.shape[1], "class_weights")
            if per_class is not None:
                pixels = pixels - 1.0 + per_class[labels]
            if counts is not None:
                pixels = pixels * counts
            return truth.settle(weighted_mean(F.cross_entropy(output, labels, reduction="none"), pixels))


def _check(w0: float, sigma: float) -> None:
    if not (0 <= w0 < math.inf and 0 < sigma < math.inf):
        raise ConfigError("unusable constants", expected="w0 ≥ 0 and sigma > 0", found=f"{w0}, {sigma}")
