"""Deep supervision: side outputs beside the mask in training, and the loss that reads them."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, cat, nn

import unetzoo
from unetzoo.errors import ConfigError

from .blocks import one_of

MODES = ("binary", "multiclass", "multilabel")


class Supervised(NamedTuple):
    """Output of a network with `deep_supervision=True` in training mode.

    Args:
        mask: Logits (N, classes, H, W), as in evaluation mode.
        sides: Logits of all K side outputs, one after the other, finest first: (N, K·classes, H, W).
    """

    mask: Tensor
    sides: Tensor

    def split(self) -> tuple[Tensor, ...]:
        """The side outputs, each (N, classes, H, W)."""
        return self.sides.split(self.mask.shape[1], dim=1)


def supervised(mask: Tensor, sides: Sequence[Tensor]) -> Supervised:
    """The mask with its side outputs.

    Raises:
        ConfigError: They differ in classes, e.g. after only `segmentation_head[0]` was replaced.
    """
    found = [side.shape[1] for side in sides]
    if set(found) != {mask.shape[1]}:
        raise ConfigError(
            "mask and side outputs differ in classes",
            expected=f"{mask.shape[1]} each",
            found=", ".join(map(str, found)),
            hint=f"build the network with classes={mask.shape[1]}, or with deep_supervision=False",
        )
    return Supervised(mask, cat(list(sides), dim=1))


class DeepSupervision(nn.Module):
    """The sum of one loss over the mask and each side output.

    In a recipe it is `[loss.deep-supervision]`. Give it to `unetzoo.Trainer` as the loss, or call it in a loop of your
    own. For any other output than `Supervised`, as in evaluation, it is the loss of the mask.

    Args:
        losses: Losses of the registry with weights or tables, as in a recipe's `[loss]`: `{"ce": 1.0, "dice": 0.5}`.
        mode: "binary", "multiclass" or "multilabel", for the losses that take it, unless their table names one.
        ignore_index: Label of the pixels that do not count.
        mask_weight: Weight of the mask's loss. U²-Net: 1. UNet++, whose mask is the mean of its branches: 0.
        side_weight: Weight of each side output's. U²-Net: 1. UNet++: 1, or 1/4 for the mean over four branches.

    Shape:
        - output: `Supervised`, or logits (N, classes, H, W), or a NamedTuple with a mask
        - target, weight: as the losses take them

    Raises:
        ConfigError: Weights below 0, or both 0; an unknown mode; what the losses refuse.

    Examples:
        >>> import torch
        >>> loss = DeepSupervision({"ce": 1.0}, mode="multiclass", side_weight=0.5)
        >>> output = Supervised(torch.zeros(1, 2, 4, 4), torch.zeros(1, 6, 4, 4))
        >>> value = loss(output, torch.zeros(1, 4, 4, dtype=torch.int64))
        >>> round(value.item(), 4)  # (1 + 3 · 0.5) · ln 2
        1.7329
    """

    def __init__(
        self,
        losses: Mapping[str, Any],
        mode: Literal["binary", "multiclass", "multilabel"] = "binary",
        ignore_index: int | None = None,
        mask_weight: float = 1.0,
        side_weight: float = 1.0,
    ) -> None:
        super().__init__()
        one_of("mode", mode, MODES)
        if min(mask_weight, side_weight) < 0 or mask_weight == side_weight == 0:
            found = f"mask_weight={mask_weight}, side_weight={side_weight}"
            raise ConfigError("wrong weights of deep supervision", expected="numbers ≥ 0, not both 0", found=found)
        if isinstance(losses, Mapping):
            losses = {name: in_mode(mode, name, spec) for name, spec in losses.items()}
        self.loss = unetzoo.LOSSES.build("multitask", heads={"mask": losses}, ignore_index=ignore_index)
        self.mask_weight, self.side_weight = mask_weight, side_weight

    def terms(self, output: Supervised | Tensor | tuple[Tensor, ...], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Each loss by name, summed over mask and side outputs."""
        if not isinstance(output, Supervised):
            return self.loss.terms(output, batch)
        heads = [(self.mask_weight, output.mask), *((self.side_weight, side) for side in output.split())]
        sums: dict[str, Tensor] = {}
        for weight, head in heads:
            for name, term in self.loss.terms(head, batch).items() if weight else ():
                sums[name] = sums[name] + weight * term if name in sums else weight * term
        return sums

    def forward(
        self, output: Supervised | Tensor | tuple[Tensor, ...], target: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The sum of all terms, a scalar."""
        batch = {"mask": target} if weight is None else {"mask": target, "weight": weight}
        first, *others = self.terms(output, batch).values()
        return sum(others, start=first)


def in_mode(mode: str, name: str, spec: Any) -> Any:
    """A loss's weight or table with the mode in it, where the loss takes one and its table names none."""
    if "mode" not in inspect.signature(unetzoo.LOSSES.get(name)).parameters:
        return spec
    return {"mode": mode, **(spec if isinstance(spec, Mapping) else {"weight": spec})}
