"""The loss: `loss(output, target, *, weight=None)`, a scalar."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unetzoo.errors import SizeMismatchError


class PolyLoss(nn.Module):
    """Cross entropy plus `epsilon·(1 − p)`, p the probability of the true class.

    Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", 2022, eq. 6.

    Args:
        epsilon: Weight of the second term.
        ignore_index: Label of pixels to ignore.

    Shape:
        - output: logits (N, C, H, W)
        - target: integers (N, H, W)
        - weight: (N, H, W), ≥ 0 or bool
    """

    def __init__(self, epsilon: float = 1.0, ignore_index: int | None = None) -> None:
        super().__init__()
        self.epsilon, self.ignore_index = epsilon, ignore_index

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch."""
        pixels = (output.shape[0], *output.shape[2:])
        for what, values in (("target", target), ("weight", weight)):
            if values is not None and values.shape != pixels:
                raise SizeMismatchError(f"{what} does not match the output", expected=pixels, found=tuple(values.shape))
        with torch.autocast(output.device.type, enabled=False):  # sums of 16-bit numbers overflow
            counts = torch.ones(pixels, device=output.device) if weight is None else weight.float()
            if self.ignore_index is not None:
                counts = counts * (target != self.ignore_index)
                target = torch.where(target == self.ignore_index, 0, target)
            output = torch.where(counts[:, None] == 0, 0.0, output.float())  # 0 · NaN would be NaN
            entropy = cross_entropy(output, target, reduction="none")
            terms = entropy + self.epsilon * (1 - torch.exp(-entropy))
            return (terms * counts).sum() / counts.sum().clamp(min=1e-12)
