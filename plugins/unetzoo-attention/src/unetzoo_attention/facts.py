"""Facts of the cards: what is stated, and how it is measured again by `unetzoo verify`."""

from typing import Any

import torch
from torch import Tensor, nn

from unetzoo.models import Fact


def parameters(stated: int, source: str, /, **config: Any) -> Fact:
    """Number of parameters, with who states it."""

    def measure(model: type) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in model(**config).parameters())

    return Fact(_named(f"parameters ({source})", config), stated, measure)


def weights_of(kernel: int, stated: int, source: str, /, **config: Any) -> Fact:
    """Number of weights of the convolutions with one kernel size, with who states it."""

    def measure(model: type) -> int:
        with torch.device("meta"):
            layers = [m for m in model(**config).modules() if isinstance(m, nn.Conv2d)]
        return sum(layer.weight.numel() for layer in layers if layer.kernel_size == (kernel, kernel))

    return Fact(_named(f"weights of {kernel}×{kernel} convolutions ({source})", config), stated, measure)


def output_size(size: int, /, **config: Any) -> Fact:
    """That a square input's height and width are the output's too."""

    def measure(model: Any) -> int | tuple[int, ...]:
        with torch.device("meta"):
            net = model(**config).eval()
            mask: Tensor = net(torch.zeros(1, net.in_channels, size, size))
        return mask.shape[-1] if mask.shape[-1] == mask.shape[-2] else tuple(mask.shape[-2:])

    return Fact(_named(f"output size for {size}", config), size, measure)


def _named(what: str, config: dict[str, Any]) -> str:
    options = ", ".join(f"{key}={value!r}" for key, value in config.items())
    return f"{what}: {options}" if options else what
