"""Loss of the original U-Net: cross entropy with more weight in the gaps between neighboring cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..borders import border_weights, check_constants
from ..errors import SizeMismatchError
from ._inputs import check_output, outside_autocast, read_inputs, weighted_mean
from ._options import class_vector, for_classes


# A custom operator, so that `torch.compile` does not trace it.
@torch.library.custom_op("unetzoo::border_weights", mutates_args=())
def _border_weights_of_batch(labels: Tensor, w0: float, sigma: float, instances: bool) -> Tensor:
    maps = [border_weights(image, w0, sigma, instances=instances) for image in labels.cpu().numpy()]
    return torch.from_numpy(np.stack(maps)).to(labels.device) if maps else labels.new_zeros(labels.shape).float()


@_border_weights_of_batch.register_fake
def _(labels: Tensor, w0: float, sigma: float, instances: bool) -> Tensor:
    return torch.empty_like(labels, dtype=torch.float32)


def _cells(instances: Tensor, labels: Tensor) -> Tensor:
    if instances.shape != labels.shape or instances.is_floating_point():
        raise SizeMismatchError("instances that do not fit the target", expected=f"integers {tuple(labels.shape)}",
                                found=f"{instances.dtype} {tuple(instances.shape)}")  # fmt: skip
    return instances


class BorderCELoss(nn.Module):
    r"""Cross entropy weighted by the U-Net paper's map, computed from the target: `Σ w·v·l / Σ w·v`.

    `w(x) = w_c(x) + w0·exp(−(d₁ + d₂)² / 2σ²)`, see `border_weights`; v is the pixel's weight (0 where ignored),
    w_c its class's weight, `l = −ln p[t]`. Label 0 is the background. Pixels that do not count belong to no cell. If
    samples have `instances`, each number is a cell, so touching cells are distinguished.

    Without `class_weights` this is `CELoss` with `weight=border_weights(target)`. Computing the map takes CPU time for
    each cell in every step, and on an accelerator the host waits for the labels. If targets come from disk, a data set
    that passes the map as `weight` to `CELoss` is faster. (The paper sums over pixels; this is a mean.)

    Args:
        w0: Height of the weight between cells.
        sigma: Width of the weight between cells, in pixels.
        class_weights: w_c, one number ≥ 0 per class; 1 by default.
        ignore_index: Label of the pixels that do not count.

    Shape:
        - output: logits (N, C, H, W), softmax over C ≥ 2; or (N, 1, H, W): the foreground's logit, sigmoid
        - target: integers (N, H, W) or (N, 1, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool
        - instances: integers (N, H, W), 0 or the number of a cell

    Raises:
        ConfigError: Unusable w0, sigma or class weights.
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU; on an accelerator the loss is NaN instead.

    Examples:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 3)
        >>> round(BorderCELoss()(logits, torch.tensor([[[1, 0, 1]]])).item(), 4)  # ln 2
        0.6931
        >>> logits[0, 0, 0, 1] = 4.0  # confident in the gap
        >>> round(BorderCELoss()(logits, torch.tensor([[[1, 0, 1]]])).item(), 4)
        0.1285

    Source:
        Ronneberger et al., "U-Net", 2015, eqs. 1 and 2, with w0 = 10 and σ = 5 as in the paper.
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
        check_constants(w0, sigma)
        self.w0, self.sigma, self.ignore_index = float(w0), float(sigma), ignore_index
        self.register_buffer("class_weights", class_vector(class_weights, "class_weights"), persistent=False)

    def forward(
        self, output: Tensor, target: Tensor, *, weight: Tensor | None = None, instances: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output)
        with outside_autocast(output):
            if output.shape[1] == 1:  # a sigmoid is a softmax against a background of logit 0
                output = torch.cat([torch.zeros_like(output), output], 1)
            output, truth = read_inputs(
                output, target, mode="multiclass", ignore_index=self.ignore_index, weight=weight
            )
            labels = truth.labels[:, 0]
            counts = None if truth.weight is None else truth.weight[:, 0]
            cells = labels if instances is None else _cells(instances, labels)
            cells = cells if counts is None else cells.masked_fill(counts == 0, 0)
            pixels = _border_weights_of_batch(cells, self.w0, self.sigma, instances is not None).to(output)
            per_class = for_classes(self.class_weights, output, output.shape[1], "class_weights")
            if per_class is not None:
                pixels = pixels - 1.0 + per_class[labels]
            if counts is not None:
                pixels = pixels * counts
            return truth.settle(weighted_mean(F.cross_entropy(output, labels, reduction="none"), pixels))
