"""A loss that meets the contract, and one per check that violates only that check."""

import torch

import unetzoo.losses
from unetzoo.testing import Case


class Good(unetzoo.losses.CELoss):
    def __init__(self, ignore_index: int | None = None):
        super().__init__(ignore_index=ignore_index)

    def of(self, output, target, weight):
        """Overridden by the broken ones."""
        return super().forward(output, target, weight=weight)

    def forward(self, output, target, *, weight=None):
        return self.of(output, target, weight)


class EveryPixel(Good):
    def of(self, output, target, weight):
        return super().of(output, target, weight).expand(2)


class DoublesWeighted(Good):
    def of(self, output, target, weight):
        return super().of(output, target, weight) * (1 if weight is None else 2)


class LeastWeight(Good):
    def of(self, output, target, weight):
        return super().of(output, target, weight.clamp(min=0.1) if weight is not None and weight.any() else weight)


class FlatWeight(Good):
    def of(self, output, target, weight):
        return super().of(output, target, None if weight is None else (weight > 0).float())


class NothingWeighed(Good):
    def of(self, output, target, weight):
        loss = super().of(output, target, weight)
        return loss * float("nan") if weight is not None and not weight.any() else loss


class SeesIgnored(Good):
    def of(self, output, target, weight):
        loss = super().of(output, target, weight)
        if self.ignore_index is None:
            return loss
        ignored = target == self.ignore_index
        partly = ignored & ~ignored.all((1, 2), keepdim=True)
        return loss + 1e-2 * (output * partly[:, None]).sum()


class DilutedByIgnored(Good):
    def of(self, output, target, weight):
        loss = super().of(output, target, weight)
        return loss if self.ignore_index is None else loss * (target != self.ignore_index).float().mean()


class NothingLabeled(Good):
    def of(self, output, target, weight):
        loss = super().of(output, target, weight)
        return loss * float("nan") if self.ignore_index is not None and (target == self.ignore_index).all() else loss


class WeightlessTimesZero(Good):
    def of(self, output, target, weight):
        loss = super().of(output, target, weight)
        return loss if weight is None else loss + 0 * (output.sum(1) * (weight == 0)).sum()


class IgnoredTimesZero(Good):
    def of(self, output, target, weight):
        loss = super().of(output, target, weight)
        if self.ignore_index is None:
            return loss
        return loss + 0 * (output.sum(1) * (target == self.ignore_index)).sum()


class Climbs(Good):
    def of(self, output, target, weight):
        loss = super().of(output, target, weight)
        return 2 * loss.detach() - loss


class Overflows(Good):
    def of(self, output, target, weight):
        return super().of(output, target, weight) + 0 * output.float().nan_to_num().abs().max().exp()


class Coarse(Good):
    def of(self, output, target, weight):
        return super().of(output, target, weight) * (1 if output.dtype == torch.float32 else 1.05)


class FirstCounts(Good):
    def of(self, output, target, weight):
        first = None if weight is None else weight[:1]
        return super().of(output, target, weight) + 0.1 * super().of(output[:1], target[:1], first)


class Backwards(Good):
    def of(self, output, target, weight):
        classes = output.shape[1]
        inside = (target >= 0) & (target < classes)
        return super().of(output, torch.where(inside, (target + 1) % classes, target), weight)


class Broadcasts(Good):
    def of(self, output, target, weight):
        if target.shape[-1] != output.shape[-1]:
            target = target[..., :1].expand(output.shape[0], *output.shape[2:])
        return super().of(output, target, weight)


class Clamps(Good):
    def of(self, output, target, weight):
        inside = target.clamp(0, output.shape[1] - 1)
        known = inside if self.ignore_index is None else torch.where(target == self.ignore_index, target, inside)
        return super().of(output, known, weight)


class OtherCompiled(Good):
    def of(self, output, target, weight):
        return super().of(output, target, weight) * (2 if torch.compiler.is_compiling() else 1)


class Writes(Good):
    def of(self, output, target, weight):
        output.data.clamp_(-2, 2)
        return super().of(output, target, weight)


class Prints(Good):
    def of(self, output, target, weight):
        print("loss")
        return super().of(output, target, weight)


class Draws(Good):
    def of(self, output, target, weight):
        torch.rand(1)
        return super().of(output, target, weight)


class Lambda(Good):
    def __init__(self, ignore_index: int | None = None):
        super().__init__(ignore_index)
        self.function = lambda x: x


class Restless(Good):
    calls = 0

    def of(self, output, target, weight):
        self.calls += 0 if output.requires_grad else 1
        return super().of(output, target, weight) + 0.1 * self.calls


GOOD = [Case("loss", Good)]
BROKEN = {
    "scalar": EveryPixel,
    "weight-keyword": DoublesWeighted,
    "zero-weight-pixels": LeastWeight,
    "weight-has-effect": FlatWeight,
    "all-zero-weight": NothingWeighed,
    "ignored-pixels": SeesIgnored,
    "ignored-image": DilutedByIgnored,
    "all-ignored": NothingLabeled,
    "gradient-descent": Climbs,
    "finite": Overflows,
    "half-precision": Coarse,
    "batch-order": FirstCounts,
    "perfect-prediction": Backwards,
    "mismatched-shapes": Broadcasts,
    "wrong-labels": Clamps,
    "compiles": OtherCompiled,
    "inputs-unmodified": Writes,
    "silent": Prints,
    "side-effects": Draws,
    "copyable": Lambda,
    "deterministic": Restless,
}
CASES = [("loss", check, Case("loss", broken)) for check, broken in BROKEN.items()] + [
    ("loss", "zero-weight-pixels", Case("loss", WeightlessTimesZero)),
    ("loss", "ignored-pixels", Case("loss", IgnoredTimesZero)),
]
