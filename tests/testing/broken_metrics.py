"""A metric that meets the contract, and one per check that violates only that check."""

import torch

from unetzoo.errors import SizeMismatchError
from unetzoo.metrics.state import SummedState
from unetzoo.testing import Case


class Good(SummedState):
    """The mean probability of the true class."""

    def __init__(self, ignore_index: int | None = None):
        self.ignore_index = ignore_index
        super().__init__({"sum": torch.zeros(1, dtype=torch.float64), "pixels": torch.zeros(1, dtype=torch.int64)})

    def update(self, output, target):
        if target.shape != (output.shape[0], *output.shape[2:]):
            raise SizeMismatchError("sizes differ", expected=tuple(output.shape), found=tuple(target.shape))
        self.count(output.detach(), target)

    def count(self, output, target, times=1):
        counted = self.counted(target)
        true = output.softmax(1).gather(1, torch.where(counted, target, 0)[:, None])[:, 0]
        self.add(sum=times * true[counted].double().sum()[None], pixels=times * counted.sum()[None])

    def counted(self, target):
        return target != (-1 if self.ignore_index is None else self.ignore_index)

    def compute(self):
        state = self.state()
        return {"probability": (state["sum"] / state["pixels"]).item()}


class DropsWeight(Good):
    def update(self, output, target, *, weight=None):
        super().update(output, target)


class Tensors(Good):
    def compute(self):
        return {name: torch.tensor(value) for name, value in super().compute().items()}


class EndsAtCompute(Good):
    over = False

    def update(self, output, target):
        if not self.over:
            super().update(output, target)

    def compute(self):
        self.over = True
        return super().compute()

    def reset(self):
        self.over = False
        super().reset()


class FourAtMost(Good):
    def update(self, output, target):
        super().update(output, target)
        if len(output) > 4:
            self.count(output[:1].detach(), target[:1])


class HalfLoaded(Good):
    def load_state(self, state):
        super().load_state({"sum": state["sum"] / 2, "pixels": state["pixels"]})


class EverySecond(Good):
    seen = 0

    def count(self, output, target, times=1):
        for one, other in zip(output, target, strict=True):
            super().count(one[None], other[None], times=1 + self.seen % 2)
            self.seen += 1

    def reset(self):
        self.seen = 0
        super().reset()


class NeverForgets(Good):
    ready = False

    def reset(self):
        if not self.ready:
            super().reset()
        self.ready = True


class Live(Good):
    def state(self):
        return dict(self._sums)


class Graph(Good):
    def update(self, output, target):
        self.count(output, target) if output.requires_grad else super().update(output, target)


class InPlace(Good):
    held = None

    def count(self, output, target, times=1):
        super().count(output, target, times)
        part = output.sum()
        if self.held is None:
            self.held = part
        else:
            self.held += part

    def reset(self):
        self.held = None
        super().reset()


class CountsIgnored(Good):
    def counted(self, target):
        return target >= 0

    def count(self, output, target, times=1):
        super().count(output, target.clamp(0, output.shape[1] - 1), times)


class FailsEmpty(Good):
    def compute(self):
        state = self.state()
        return {"probability": state["sum"].item() / state["pixels"].item()}


class Broadcasts(Good):
    def update(self, output, target):
        if target.shape[-1] != output.shape[-1]:
            target = target[..., :1].expand(output.shape[0], *output.shape[2:])
        super().update(output, target)


class Writes(Good):
    def update(self, output, target):
        super().update(output.data.clamp_(-2, 2), target)


class Prints(Good):
    def compute(self):
        print("compute")
        return super().compute()


class Lambda(Good):
    def __init__(self, ignore_index: int | None = None):
        super().__init__(ignore_index)
        self.function = lambda x: x


class Draws(Good):
    def update(self, output, target):
        torch.rand(1)
        super().update(output, target)


class Restless(Good):
    uses = 0

    def reset(self):
        self.uses += 1
        super().reset()

    def compute(self):
        return {"probability": super().compute()["probability"] + 0.1 * self.uses}


GOOD = [Case("metric", Good)]
BROKEN = {
    "scores": Tensors,
    "repeated-compute": EndsAtCompute,
    "batch-size-independent": FourAtMost,
    "distributed-sum": HalfLoaded,
    "sample-order": EverySecond,
    "reset": NeverForgets,
    "state-copy": Live,
    "detached-state": Graph,
    "inference-mode": InPlace,
    "ignored-pixels": CountsIgnored,
    "zero-weight-pixels": DropsWeight,
    "empty-compute": FailsEmpty,
    "mismatched-shapes": Broadcasts,
    "inputs-unmodified": Writes,
    "silent": Prints,
    "copyable": Lambda,
    "side-effects": Draws,
    "deterministic": Restless,
}
CASES = [("metric", check, Case("metric", broken)) for check, broken in BROKEN.items()]
