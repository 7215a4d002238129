"""Boundary loss: probabilities weighted by their distance from the true boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..errors import InputShapeError, SizeMismatchError
from ._inputs import check_output, map_like, outside_autocast, read_inputs, safe_ratio
from ._options import Mode, check_classes, check_mode, check_policy, class_shares, class_vector


def signed_distance(mask: ArrayLike, counted: ArrayLike | None = None) -> NDArray[np.float32]:
    """Compute the distance of every pixel to the boundary of a mask, in pixels: > 0 outside, ≤ 0 inside.

    Outside, it is the distance to the nearest pixel of the mask; inside, 1 minus the distance to the nearest pixel
    outside. Along the boundary it is 1 and 0. Pixels that do not count are neither inside nor outside: distances are
    measured to the nearest pixels that count. A mask without a boundary (nothing inside or nothing
    outside) has NaN distances.

    Args:
        mask: True inside.
        counted: True where the mask is known; everywhere by default.

    Shape:
        - mask, counted: (H, W)
        - result: (H, W), float32

    Raises:
        InputShapeError: A mask that is not (H, W).
        SizeMismatchError: `counted` of a different size.

    Examples:
        >>> print(signed_distance([[0, 0, 1, 1, 1, 0]]))
        [[ 2.  1.  0. -1.  0.  1.]]

    Source:
        Kervadec et al., "Boundary loss for highly unbalanced segmentation", 2019, eq. 5: φ_G, with the
        distances of their released code.
    """
    from scipy.ndimage import distance_transform_edt

    inside = np.asarray(mask, dtype=bool)
    if inside.ndim != 2:
        raise InputShapeError("unusable mask", expected="shape (H, W)", found=inside.shape)
    outside = ~inside
    if counted is not None:
        here = np.asarray(counted, dtype=bool)
        if here.shape != inside.shape:
            raise SizeMismatchError("the mask does not fit", expected=f"shape {inside.shape}", found=here.shape)
        inside, outside = inside & here, outside & here
    if not (inside.any() and outside.any()):
        return np.full(inside.shape, np.nan, np.float32)
    to_inside, to_outside = (np.asarray(distance_transform_edt(~part)) for part in (inside, outside))
    return np.where(to_inside > 0, to_inside, 1.0 - to_outside).astype(np.float32)


# A custom operator, so that `torch.compile` does not trace it.
@torch.library.custom_op("unetzoo::signed_distances", mutates_args=())
def _signed_distances(labels: Tensor, counted: Tensor, classes: int) -> Tensor:
    """Map (N, 1, H, W) labels, or (N, K, H, W) labels {0, 1} if `classes` is 0, to (N, ·, H, W) distances."""
    of, here = labels.cpu().numpy(), counted.cpu().numpy()
    values = np.arange(classes) if classes else np.ones(labels.shape[1], np.int64)
    maps = np.empty((len(of), len(values), *of.shape[2:]), np.float32)
    for n, k in np.ndindex(*maps.shape[:2]):
        channel = 0 if classes else k
        maps[n, k] = signed_distance(of[n, channel] == values[k], here[n, channel])
    return torch.from_numpy(maps).to(labels.device)


@_signed_distances.register_fake
def _(labels, counted, classes):
    batch, channels, height, width = labels.shape
    return labels.new_empty((batch, classes or channels, height, width), dtype=torch.float32)


class BoundaryLoss(nn.Module):
    r"""Mean of the probability of each pixel times its distance from the class's true boundary: `Σ w·c·φ·p / Σ w·c`.

    φ is `signed_distance`: a false positive costs more the farther away it is, and a true positive gains more the
    deeper inside it is. The minimum is therefore below 0 and differs between images. With little or nothing predicted
    the gradient is weak, so the paper adds this loss to a region loss, with a weight that grows from 0.01. w is the
    pixel's weight (0 where ignored), c the class's. Pixels that do not count are neither inside nor outside.

    The distances of each class and image are computed by SciPy on the CPU, so on an accelerator the host waits for the
    labels. They depend only on the target, so they can be computed beforehand and passed as `distance`.

    Args:
        mode: "binary" (one channel, sigmoid), "multiclass" (softmax) or "multilabel" (sigmoids).
        classes: Indices of the classes that count; all by default.
        from_logits: Whether the output is logits; otherwise it is probabilities.
        ignore_index: Label that does not count; for multilabel, per label.
        class_weights: One number ≥ 0 per class.
        empty: Contribution of a class without a boundary in an image (none of its pixels, or only its pixels). "skip":
            it is left out of the mean. "penalize": its boundary is taken to be one image diagonal away.

    Shape:
        - output: (N, 1, H, W) for binary, (N, C, H, W) otherwise
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool
        - distance: shape of the output, `signed_distance` of each class, NaN where it has no boundary; for binary also
          (N, H, W)

    Raises:
        ConfigError: Arguments that are inconsistent or do not fit the output's channels.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not fit the mode.
        SizeMismatchError: A target, weight or distance of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU; on an accelerator the loss is NaN instead.

    Examples:
        >>> logits = torch.full((1, 1, 1, 6), 100.0)  # distances 2, 1, 0, −1, 0, 1
        >>> BoundaryLoss("binary")(logits, torch.tensor([[[0, 0, 1, 1, 1, 0]]])).item()
        0.5

    Source:
        Kervadec et al., "Boundary loss for highly unbalanced segmentation", 2019, eq. 5; a mean, as in their released
        code, where the paper has a sum.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        classes: Sequence[int] | None = None,
        from_logits: bool = True,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        empty: Literal["skip", "penalize"] = "skip",
    ) -> None:
        super().__init__()
        self.mode: Mode = check_mode(mode)
        self.classes = check_classes(mode, classes, class_weights)
        check_policy(empty, ("skip", "penalize"))
        self.from_logits, self.ignore_index, self.empty = from_logits, ignore_index, empty
        self.register_buffer("class_weights", class_vector(class_weights, "class_weights"), persistent=False)

    def forward(
        self, output: Tensor, target: Tensor, *, weight: Tensor | None = None, distance: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output, many=self.mode == "multiclass")
        with outside_autocast(output):
            output, truth = read_inputs(output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight)
            pixels = torch.ones_like(truth.labels, dtype=output.dtype) if truth.weight is None else truth.weight
            softmax = self.mode == "multiclass"
            if distance is None:
                counted = (pixels > 0).expand_as(truth.labels)
                signed = _signed_distances(truth.labels, counted, output.shape[1] if softmax else 0).to(output)
            else:
                signed = map_like(distance, output, "distance")
            shares = class_shares(self.class_weights, self.classes, output, output.shape[1])
            share = (pixels * shares.view(-1, 1, 1)).expand_as(output)
            no_boundary = signed.isnan()
            if self.empty == "skip":
                share, signed = share.masked_fill(no_boundary, 0.0), signed.masked_fill(no_boundary, 0.0)
            else:
                diagonal = math.hypot(*output.shape[2:])
                label = torch.arange(output.shape[1], device=output.device).view(-1, 1, 1) if softmax else 1
                own = truth.labels == label
                signed = torch.where(no_boundary, torch.where(own, -diagonal, diagonal).to(output), signed)
            return truth.settle(safe_ratio((self._probabilities(output) * signed * share).sum(), share.sum()))

    def _probabilities(self, output: Tensor) -> Tensor:
        if not self.from_logits:
            return output
        return output.softmax(1) if self.mode == "multiclass" else output.sigmoid()
