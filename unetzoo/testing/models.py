"""Checks of every model (tier 1)."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from .case import Case
from .comparison import close
from .inputs import image, mask_of, size_of, stream, tensors
from .kit import check, require, require_error

KIND = "model"
ODD = ((1, 1), (17, 17), (31, 33), (40, 57), (64, 64), (65, 48))


@check(KIND, first=True)
def forward_output(case: Case) -> None:
    """Losses, metrics and `unetzoo.predict` expect logits (N, classes, H, W), first if there are several fields."""
    require(case.takes("in_channels") and case.takes("classes"), "keywords in_channels and classes",
            ", ".join(case.options) or "neither")  # fmt: skip
    net = case.build(classes=3).eval()
    require(isinstance(net, nn.Module), "a torch.nn.Module", type(net).__name__)
    x = image(case, net)
    with torch.no_grad():
        output = net(x)
    named = isinstance(output, Tensor) or hasattr(output, "_fields")
    require(named, "a tensor, or a NamedTuple with the mask first", type(output).__name__)
    mask = mask_of(output)
    require(mask.ndim == 4 and mask.shape[:2] == (2, 3), "a mask of shape (2, 3, H, W)", tuple(mask.shape))
    require(mask.dtype == torch.float32, "float32", mask.dtype)
    require(all(t.isfinite().all() for t in tensors(output)), "finite numbers", "NaN or infinity")
    _fits(net, x, mask)


@check(KIND)
def channel_counts(case: Case) -> None:
    """`build(name, classes=19)` and 1-channel images must work without code changes."""
    for classes, channels in ((1, 1), (1, 3), (5, 4)):
        net = case.build(classes=classes, in_channels=channels).eval()
        x = torch.randn(1, channels, size_of(case, net), size_of(case, net), generator=stream())
        with torch.no_grad():
            found = mask_of(net(x)).shape[1]
        require(found == classes, f"{classes} channels for classes={classes}, in_channels={channels}", found)


@check(KIND)
def logits(case: Case) -> None:
    """Losses apply softmax or sigmoid themselves; with probabilities, training silently makes little progress."""
    net = case.build(classes=3).eval()
    with torch.no_grad():
        mask = mask_of(net(4 * image(case, net, batch=4)))
    inside = bool(((mask >= 0) & (mask <= 1)).all())
    logarithms = bool((mask <= 0).all()) and bool(torch.allclose(mask.exp().sum(1), torch.ones(()), atol=1e-4))
    require(not inside and not logarithms, "logits (arbitrary numbers)",
            "only numbers in [0, 1]" if inside else "log-probabilities")  # fmt: skip


@check(KIND)
def odd_sizes(case: Case) -> None:
    """Images have odd sizes; a mask of a different size is misaligned, or fails much later."""
    net = case.build().eval()
    for height, width in ODD:
        x = torch.randn(1, case.default("in_channels", 3), height, width, generator=stream())
        try:
            with torch.no_grad():
                mask = mask_of(net(x))
        except Exception as error:
            text = str(error)
            named = (str(height) in text and str(width) in text) or f"{height}×{width}" in text
            require(named, f"an output, or an error that names the size {height}×{width}",
                    f"{type(error).__name__}: {text[:160]}")  # fmt: skip
        else:
            _fits(net, x, mask)


@check(KIND)
def gradients(case: Case) -> None:
    """A parameter without a gradient is never trained, and DistributedDataParallel fails on it."""
    net = case.build().train()
    weights = [torch.randn(t.shape, generator=stream(1)) for t in tensors(net(image(case, net)))]
    outputs = tensors(net(image(case, net)))
    torch.stack([(t * w).sum() for t, w in zip(outputs, weights, strict=True)]).sum().backward()
    missing = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    require(not missing, "a gradient for every parameter", f"none for {', '.join(missing[:4])}")


@check(KIND)
def seeded(case: Case) -> None:
    """Runs are reproduced from a seed; initial weights may only depend on torch's generator."""
    first, second = (_seeded_state(case, 3) for _ in range(2))
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    require(not differing, "equal weights for equal seeds", f"a different {', '.join(differing[:4])}")
    other = _seeded_state(case, 4)
    drawn = any(not torch.equal(first[name], other[name]) for name in first)
    require(drawn or not first, "different weights for different seeds", "the same weights: the model sets a seed")


@check(KIND)
def batch_independent(case: Case) -> None:
    """A prediction must not depend on the other images of the batch."""
    net = case.build().eval()
    x = image(case, net, batch=3)
    with torch.no_grad():
        together = tensors(net(x))
        alone = [torch.cat(parts) for parts in zip(*(tensors(net(x[i : i + 1])) for i in range(3)), strict=True)]
    close(together, alone, "the same output for an image alone and in a batch")


@check(KIND)
def train_and_eval(case: Case) -> None:
    """If dropout or batch statistics stay active, predictions are random and evaluation changes the network."""
    net = case.build()
    for training in (True, False):
        net.train(training)
        wrong = [name or "the network" for name, part in net.named_modules() if part.training != training]
        require(not wrong, f"train({training}) to reach every submodule", f"not {', '.join(wrong[:3])}")
    before = _state(net)
    with torch.no_grad():
        net(image(case, net))
    changed = [name for name, value in _state(net).items() if not torch.equal(value, before[name])]
    require(not changed, "a state that does not change in evaluation mode", ", ".join(changed[:4]))


@check(KIND)
def autocast(case: Case) -> None:
    """Mixed precision halves memory; a recipe enables it in one line."""
    net = case.build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = tensors(net(image(case, net)))
    require(all(t.isfinite().all() for t in outputs), "finite numbers under bf16 autocast", "NaN or infinity")
    torch.stack([t.float().mean() for t in outputs]).sum().backward()


@check(KIND)
def channels_last(case: Case) -> None:
    """Convolutions on GPUs are fastest in this layout; recipes can enable it."""
    net = case.build(classes=3).eval()  # with one channel both layouts are the same
    x = image(case, net)
    with torch.no_grad():
        expected = tensors(net(x))
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        found = tensors(net(x.to(memory_format=torch.channels_last)))
    close(found, expected, "the same output in channels_last layout")


@check(KIND)
def compiles(case: Case) -> None:
    """`torch.compile` is the standard way to speed up a network."""
    torch.compiler.reset()  # earlier networks count towards the recompilation limit
    net = case.build().eval()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=case.tier == 2)
    x = image(case, net)
    with torch.no_grad():
        close(tensors(compiled(x)), tensors(net(x)), "the same output from the compiled network")


@check(KIND)
def exports(case: Case) -> None:
    """Deployment to ONNX, TensorRT and mobile starts with `torch.export`."""
    torch.compiler.reset()
    net = case.build().eval()
    x = image(case, net)
    program = torch.export.export(net, (x,), strict=case.tier == 2)
    with tempfile.TemporaryFile() as file, torch.no_grad():
        torch.export.save(program, file)
        file.seek(0)
        close(
            tensors(torch.export.load(file).module()(x)), tensors(net(x)), "the same output from the exported network"
        )


@check(KIND)
def state_dict(case: Case) -> None:
    """Checkpoints store only the state dict."""
    net = case.build().train()
    with torch.no_grad():
        net(image(case, net))  # changes the running statistics
    torch.manual_seed(1)
    again = case.build()
    again.load_state_dict(net.state_dict())
    net.eval()
    again.eval()
    x = image(case, net)
    with torch.no_grad():
        close(tensors(again(x)), tensors(net(x)), "the same output after load_state_dict")


@check(KIND)
def wrong_channels(case: Case) -> None:
    """A wrong number of channels is the most common mistake; the error must be immediate and clear."""
    net = case.build().eval()
    x = image(case, net)
    also = () if case.tier == 2 else (RuntimeError,)  # torch's convolutions name both numbers of channels
    one_more = torch.cat([x, x[:, :1]], dim=1)
    require_error(lambda: mask_of(net(one_more)), "an error for an input with a different number of channels", *also,
            mentions=(x.shape[1], x.shape[1] + 1))  # fmt: skip


@check(KIND)
def predict_any_size(case: Case) -> None:
    """`unetzoo.predict` must work on images of any size."""
    import unetzoo

    net = case.build(classes=3).eval()
    size = size_of(case, net)
    channels = case.default("in_channels", 3)
    for height, width in ((size + 5, size - 7), (5, 3)) if _sized_freely(net, case) else ((size, size),):
        mask = mask_of(unetzoo.predict(net, torch.randn(channels, height, width, generator=stream())))
        require(mask.shape == (3, height, width), f"logits of shape (3, {height}, {width})", tuple(mask.shape))


def _fits(net: Any, x: Tensor, mask: Tensor) -> None:
    """Require a mask of the size of its image, or of the size stated by `net.geometry`."""
    geometry = getattr(net, "geometry", None)
    expected = [side if geometry is None else geometry.output(side) for side in x.shape[-2:]]
    where = f"for an image of {x.shape[-2]}×{x.shape[-1]}"
    require(list(mask.shape[-2:]) == expected, f"a mask of {expected[0]}×{expected[1]} {where}",
            f"{mask.shape[-2]}×{mask.shape[-1]}")  # fmt: skip


def _sized_freely(net: Any, case: Case) -> bool:
    geometry = getattr(net, "geometry", None)
    return case.size is None and (geometry is None or geometry.minimum != geometry.maximum)


def _state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _seeded_state(case: Case, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return _state(case.build())
