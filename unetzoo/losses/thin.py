"""Losses for thin structures such as vessels, roads and cracks: soft clDice, and recall along the skeleton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..skeletons import require_skeletons, skeleton
from ._inputs import Truth, check_output, outside_autocast, read_inputs, safe_ratio
from ._options import Mode, check_class_range, check_classes, check_mode


class _ThinLoss(nn.Module):
    """Base: probabilities, labels and weights of the scored classes, (N, K, H, W)."""

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        classes: Sequence[int] | None,
        from_logits: bool,
        ignore_index: int | None,
        smooth: float,
    ) -> None:
        super().__init__()
        self.mode: Mode = check_mode(mode)
        self.classes = check_classes(mode, classes, None)
        if not smooth > 0:
            raise ConfigError("unusable smooth", expected="a number > 0", found=smooth)
        self.from_logits, self.ignore_index, self.smooth = from_logits, ignore_index, smooth

    def _read(self, output: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Truth]:
        """Return probability, label and weight of each scored class; probability and label are 0 where ignored."""
        output, truth = read_inputs(output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight)
        several = self.mode == "multiclass"
        if self.from_logits:
            output = output.softmax(1) if several else output.sigmoid()
        chosen = self._chosen(output.shape[1])
        own = torch.cat([truth.labels == k for k in chosen], 1) if several else _picked(truth.labels, chosen) == 1
        if truth.weight is None:
            pixels = torch.ones_like(own, dtype=output.dtype)
        else:
            pixels = (truth.weight if truth.weight.shape[1] == 1 else _picked(truth.weight, chosen)).expand_as(own)
        counted = pixels > 0
        return torch.where(counted, _picked(output, chosen), 0.0), own & counted, pixels, truth

    def _chosen(self, channels: int) -> list[int]:
        if self.classes is None:
            return [*range(1 if self.mode == "multiclass" else 0, channels)]
        check_class_range(self.classes, channels)
        return self.classes


def _picked(values: Tensor, channels: list[int]) -> Tensor:
    """Return some channels; indexing with a list would make the host wait for the device."""
    return torch.stack([values[:, channel] for channel in channels], 1)


class ClDiceLoss(_ThinLoss):
    r"""Soft clDice: 1 − the harmonic mean of precision and sensitivity along soft skeletons.

    With S the soft skeleton, p the probability and y the label, precision is `(Σ w·S(p)·y + s) / (Σ w·S(p) + s)` and
    sensitivity `(Σ w·S(y)·p + s) / (Σ w·S(y) + s)`: a break in a thin structure costs as much as a missing piece of a
    wide one. Sums are over the batch, and the classes are averaged. The soft skeleton is a sum of openings by
    min- and max-pooling, repeated `iterations` times: as often as the radius of the widest structure in pixels.
    Ignored pixels are outside the image.

    The paper adds it to Dice, e.g. `[loss] dice = 0.5` and `cldice = 0.5`, since the width of a structure has little
    effect on it.

    Args:
        mode: "binary" (one channel, sigmoid), "multiclass" (softmax) or "multilabel" (sigmoids).
        classes: Indices of the classes that count; by default all, for "multiclass" all but the first.
        from_logits: Whether the output is logits; otherwise it is probabilities.
        ignore_index: Label that does not count; for multilabel, per label.
        iterations: Number of erosions.
        smooth: s, > 0.

    Shape:
        - output: (N, 1, H, W) for binary, (N, C, H, W) otherwise
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Arguments that are inconsistent or do not fit the output's channels.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not fit the mode.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU; on an accelerator the loss is NaN instead.

    Examples:
        >>> line = torch.zeros(1, 1, 5, 9, dtype=torch.long)
        >>> line[..., 2, :] = 1
        >>> loss = ClDiceLoss("binary", iterations=2)
        >>> broken = line.clone()
        >>> broken[..., 4] = 0
        >>> round(loss(20.0 * line - 10, line).item(), 2), round(loss(20.0 * broken - 10, line).item(), 2)
        (0.0, 0.05)

    Source:
        Shit et al., "clDice - a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation", 2021,
        algorithms 1 and 2.
    """

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        classes: Sequence[int] | None = None,
        from_logits: bool = True,
        ignore_index: int | None = None,
        iterations: int = 10,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(mode, classes, from_logits, ignore_index, smooth)
        if iterations < 0:
            raise ConfigError("unusable iterations", expected="a number ≥ 0", found=iterations)
        self.iterations = iterations

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output, many=self.mode == "multiclass")
        with outside_autocast(output):
            p, own, pixels, truth = self._read(output, target, weight)
            y, ignored = own.to(p.dtype), pixels == 0
            predicted, true = (soft_skeleton(values, self.iterations, ignored) for values in (p, y))
            precision, sensitivity = self._share(predicted, y, pixels), self._share(true, p, pixels)
            scores = safe_ratio(2 * precision * sensitivity, precision + sensitivity)
            return truth.settle((1 - scores).mean())

    def _share(self, part: Tensor, other: Tensor, pixels: Tensor) -> Tensor:
        inside, whole = (part * other * pixels).sum((0, 2, 3)), (part * pixels).sum((0, 2, 3))
        return (inside + self.smooth) / (whole + self.smooth)


class SkeletonRecallLoss(_ThinLoss):
    r"""1 − the mean recall of the classes along the dilated skeleton of the truth.

    Recall is `(Σ w·t·p + s) / (Σ w·t + s)`: t is 1 on the pixels of the class within `width` steps of the skeleton of
    all scored classes together (of each label for multilabel), and p is the probability of the class. Sums are over the
    batch; a class absent from the target counts as recalled. A prediction of everything is perfect, so the loss is used
    beside a region loss, e.g. `[loss] dice_ce = 1` and `skeleton_recall = 1` as in the paper.

    scikit-image computes the skeletons on the CPU, so on an accelerator the host waits for the labels. Unlike for
    `cldice`, the output is not skeletonized, which saves memory and time.

    Args:
        mode: "binary" (one channel, sigmoid), "multiclass" (softmax) or "multilabel" (sigmoids).
        classes: Indices of the classes that count; by default all, for "multiclass" all but the first.
        from_logits: Whether the output is logits; otherwise it is probabilities.
        ignore_index: Label that does not count; for multilabel, per label.
        width: Number of dilations of the skeleton by its neighbors above, below, left and right.
        smooth: s, > 0.

    Shape:
        - output: (N, 1, H, W) for binary, (N, C, H, W) otherwise
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Arguments that are inconsistent or do not fit the output's channels; scikit-image is not installed.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not fit the mode.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU; on an accelerator the loss is NaN instead.

    Examples:
        >>> line = torch.zeros(1, 1, 5, 9, dtype=torch.long)
        >>> line[..., 2, :] = 1
        >>> half = line.clone()
        >>> half[..., :4] = 0
        >>> round(SkeletonRecallLoss("binary")(200.0 * half - 100, line).item(), 2)
        0.44

    Source:
        Kirchhoff et al., "Skeleton Recall Loss for Connectivity Conserving and Resource Efficient Segmentation of Thin
        Tubular Structures", 2024.
    """

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        classes: Sequence[int] | None = None,
        from_logits: bool = True,
        ignore_index: int | None = None,
        width: int = 2,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__(mode, classes, from_logits, ignore_index, smooth)
        require_skeletons("skeleton_recall")
        if width < 0:
            raise ConfigError("unusable width", expected="a number ≥ 0", found=width)
        self.width = width

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output, many=self.mode == "multiclass")
        with outside_autocast(output):
            p, own, pixels, truth = self._read(output, target, weight)
            objects = own.any(1, keepdim=True) if self.mode == "multiclass" else own
            tube = own * _tubes(objects, self.width) * pixels
            recall = ((tube * p).sum((0, 2, 3)) + self.smooth) / (tube.sum((0, 2, 3)) + self.smooth)
            return truth.settle(1 - recall.mean())


def soft_skeleton(values: Tensor, iterations: int, ignored: Tensor | None = None) -> Tensor:
    """Compute the soft skeleton of values in 0…1.

    Args:
        values: The values.
        iterations: Number of erosions.
        ignored: True where pixels are treated like those outside the image.

    Shape:
        - values, ignored: (N, C, H, W)
        - result: (N, C, H, W)

    Examples:
        >>> bar = torch.zeros(1, 1, 5, 5)
        >>> bar[..., 1:4, :] = 1
        >>> soft_skeleton(bar, 1)[0, 0].int().tolist()[1:4]
        [[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]

    Source:
        Shit et al. 2021, algorithm 1.
    """

    def erode(x: Tensor) -> Tensor:
        x = -(x if ignored is None else x.masked_fill(ignored, 1.0))
        return -torch.maximum(F.max_pool2d(x, (3, 1), 1, (1, 0)), F.max_pool2d(x, (1, 3), 1, (0, 1)))

    def opened(x: Tensor) -> Tensor:
        x = erode(x)
        return F.max_pool2d(x if ignored is None else x.masked_fill(ignored, 0.0), 3, 1, 1)

    found = (values - opened(values)).relu()
    for _ in range(iterations):
        values = erode(values)
        rest = (values - opened(values)).relu()
        found = found + (rest - found * rest).relu()
    return found


# A custom operator, so that `torch.compile` does not trace it.
@torch.library.custom_op("unetzoo::skeleton_tubes", mutates_args=())
def _tubes(objects: Tensor, width: int) -> Tensor:
    """Return the dilated skeletons of objects bool (N, K, H, W)."""
    from scipy.ndimage import binary_dilation

    given = objects.cpu().numpy()
    found = np.zeros_like(given)
    for place in np.ndindex(*given.shape[:2]):
        lines = skeleton(given[place])
        found[place] = binary_dilation(lines, iterations=width) if width else lines
    return torch.from_numpy(found).to(objects.device)


@_tubes.register_fake
def _(objects, width):
    return torch.empty_like(objects)
