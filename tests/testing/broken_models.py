"""Two networks that meet the contract, and one per check that violates only that check."""

import torch
from torch import nn
from torch.nn import functional as F

from unetzoo.models.base import SegmentationModel, classification_head, segmentation_head
from unetzoo.models.blocks import ConvUnit, Encoder
from unetzoo.testing import Case


class Good(nn.Module):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.first, self.norm = nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        return self.last(F.elu(self.norm(self.first(x))))


class HalfSize(Good):
    def forward(self, x):
        return super().forward(x)[..., ::2, ::2]


class AtLeastThree(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        super().__init__(in_channels, max(classes, 3), width)


class Probabilities(Good):
    def forward(self, x):
        return super().forward(x).sigmoid()


class Mumbles(Good):
    def forward(self, x):
        if x.shape[-1] == 17:
            raise RuntimeError("something is odd")
        return super().forward(x)


class Unused(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        super().__init__(in_channels, classes, width)
        self.left_over = nn.Conv2d(width, width, 1)


class Seeds(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        torch.manual_seed(0)
        super().__init__(in_channels, classes, width)


class Neighborly(Good):
    def forward(self, x):
        answer = super().forward(x)
        return answer if self.training else answer - answer.mean(0, keepdim=True)


class HalfEvaluated(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        super().__init__(in_channels, classes, width)
        self.part = nn.Identity()

    def train(self, mode=True):
        super().train(mode)
        self.part.train()
        return self


class NoHalf(Good):
    def forward(self, x):
        answer = super().forward(x)
        return answer * float("nan") if torch.is_autocast_enabled("cpu") else answer


class Views(Good):
    def forward(self, x):
        answer = super().forward(x)
        return answer.view(answer.shape[0], -1).view(answer.shape)


class OtherCompiled(Good):
    def forward(self, x):
        return super().forward(x) + (1 if torch.compiler.is_dynamo_compiling() else 0)


class Branches(Good):
    def forward(self, x):
        answer = super().forward(x)
        return answer + 1 if x.sum() > 0 else answer


class Outside(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        super().__init__(in_channels, classes, width)
        self.scale = torch.rand(1)

    def forward(self, x):
        return super().forward(x) * self.scale


class TakesAnything(Good):
    def forward(self, x):
        return super().forward(x[:, : self.in_channels])


class NotSmall(Good):
    def forward(self, x):
        if x.shape[-1] < 8:
            raise ValueError(f"sizes from 8 on, not {x.shape[-2]}×{x.shape[-1]}")
        return super().forward(x)


class Writes(Good):
    def forward(self, x):
        return super().forward(x.clamp_(-2, 2))


class Restless(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        super().__init__(in_channels, classes, width)
        self.register_buffer("calls", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls


class Prints(Good):
    def forward(self, x):
        print("forward")
        return super().forward(x)


class Sets(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        torch.backends.cudnn.benchmark = True
        super().__init__(in_channels, classes, width)


class Lambda(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 4):
        super().__init__(in_channels, classes, width)
        self.function = lambda x: x


class Swallows(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, **kwargs):
        super().__init__(in_channels, classes)


class NoJson(Good):
    def __init__(self, in_channels: int = 3, classes: int = 1, act=nn.ELU):
        super().__init__(in_channels, classes)


class Finest(nn.Module):
    def forward(self, features):
        return features[0]


class GoodSMP(SegmentationModel):
    def __init__(self, in_channels: int = 3, classes: int = 1, activation: str | None = None, aux_params=None):
        super().__init__()
        self.encoder = Encoder(in_channels, (4, 4, 4), self.unit)
        self.decoder = Finest()
        self.segmentation_head = self.head(classes, activation)
        self.classification_head = classification_head(4, aux_params)
        self.in_channels, self.name = in_channels, "good"
        self.initialize()

    def unit(self, inputs, outputs, level):
        return ConvUnit(inputs, outputs, hidden_act={"type": "elu"})

    def head(self, classes, activation):
        return segmentation_head(4, classes, activation)

    def forward(self, x):
        self.check_input_shape(x)
        features = self.encoder(x)
        decoded = self.refined(features[0] + self.coarse(features))
        return self.with_labels(self.segmentation_head(decoded), features[-1])

    def refined(self, decoded):
        return decoded

    def coarse(self, features):
        return sum(F.interpolate(f.mean((2, 3), keepdim=True), features[0].shape[-2:]) for f in features[1:])


class OutsideParts(GoodSMP):
    def __init__(self, in_channels: int = 3, classes: int = 1, activation: str | None = None, aux_params=None):
        super().__init__(in_channels, classes, activation, aux_params)
        self.extra = nn.Conv2d(4, 4, 1)

    def refined(self, decoded):
        return self.extra(decoded)


class DeepHead(GoodSMP):
    def head(self, classes, activation):
        first, last = segmentation_head(4, classes, activation)
        return nn.Sequential(nn.Sequential(first), last)


class MovingStatistics(GoodSMP):
    def _hold_encoder_statistics(self):
        pass


class NoLabels(GoodSMP):
    def forward(self, x):
        answer = super().forward(x)
        return answer[0] if isinstance(answer, tuple) else answer


class PredictsTraining(GoodSMP):
    def predict(self, x):
        with torch.no_grad():
            return self(x)


class SavesZeros(GoodSMP):
    def _save_pretrained(self, save_directory):
        kept = {name: value.clone() for name, value in self.state_dict().items()}
        with torch.no_grad():
            self.segmentation_head[0].weight.zero_()
        super()._save_pretrained(save_directory)
        self.load_state_dict(kept)


class NoClasses(GoodSMP):
    def head(self, classes, activation):
        return super().head(max(classes, 1), activation)


class NoActivation(GoodSMP):
    def head(self, classes, activation):
        return nn.Sequential(super().head(classes, activation)[0], nn.Identity())


GOOD = [Case("model", Good), Case("model", GoodSMP)]
BROKEN = {
    "forward-output": HalfSize,
    "channel-counts": AtLeastThree,
    "logits": Probabilities,
    "odd-sizes": Mumbles,
    "gradients": Unused,
    "seeded": Seeds,
    "batch-independent": Neighborly,
    "train-and-eval": HalfEvaluated,
    "autocast": NoHalf,
    "channels-last": Views,
    "compiles": OtherCompiled,
    "exports": Branches,
    "state-dict": Outside,
    "wrong-channels": TakesAnything,
    "predict-any-size": NotSmall,
    "inputs-unmodified": Writes,
    "deterministic": Restless,
    "silent": Prints,
    "side-effects": Sets,
    "copyable": Lambda,
    "explicit-signature": Swallows,
    "json-arguments": NoJson,
    "smp-parts": OutsideParts,
    "head-replaceable": DeepHead,
    "freezes": MovingStatistics,
    "aux-labels": NoLabels,
    "predict-method": PredictsTraining,
    "saves-and-loads": SavesZeros,
    "wrong-arguments": NoClasses,
    "output-activation": NoActivation,
}
CASES = [("model", check, Case("model", broken)) for check, broken in BROKEN.items()]
