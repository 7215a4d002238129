"""What is asked of losses: `loss(output, target, *, weight=None) -> scalar`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .case import Case
from .inputs import IGNORE, channels_of, pair
from .kit import check, refused, require

KIND = "loss"
SIZES = (0.0, 1.0, 20.0, 88.0, 1e4)


def _ignores(case: Case) -> bool:
    return case.takes("ignore_index") and case.task != "depth"


def _labeled(case: Case) -> bool:
    return case.task != "depth"


@check(KIND, first=True)
def scalar(case: Case) -> None:
    """The training loop adds losses up and calls backward on the sum."""
    loss = case.build()
    output, target = pair(case)
    value = loss(output.requires_grad_(), target)
    require(isinstance(value, Tensor) and value.shape == (), "a tensor of shape ()", getattr(value, "shape", value))
    require(value.isfinite(), "a finite number", value.item())
    require(value.requires_grad, "a number with a gradient", "one without")


@check(KIND)
def weight_keyword(case: Case) -> None:
    """Datasets with valid masks or border weights pass `weight=` to every loss."""
    output, target = pair(case)
    value, _ = _value_and_gradient(case.build(), output, target, _ones(output))
    plain, _ = _value_and_gradient(case.build(), output, target)
    require(_near(value, plain), "with weight=1 everywhere the loss of no weight at all", f"{value}, not {plain}")


@check(KIND)
def weightless_pixels(case: Case) -> None:
    """A weight of 0 marks pixels of unknown truth: what the network writes there, NaN included, must not matter."""
    output, target = pair(case)
    weight = _ones(output)
    weight[:, 4:7] = 0
    _same_without(case.build(), output, target, weight, "weightless", slice(4, 7))


@check(KIND)
def weights_count(case: Case) -> None:
    """Whoever gives border weights expects the loss to follow them."""
    output, target = pair(case)
    weight = _ones(output)
    weight[0] = 5
    weighted, _ = _value_and_gradient(case.build(), output, target, weight)
    plain, _ = _value_and_gradient(case.build(), output, target)
    require(not _near(weighted, plain), "another loss when the first image weighs five times as much", "the same")


@check(KIND)
def all_weightless(case: Case) -> None:
    """One batch without a valid pixel must not turn the weights of the network into NaN."""
    output, target = pair(case)
    value, gradient = _value_and_gradient(case.build(), output, target, 0 * _ones(output))
    require(value == 0 and not gradient.any(), "0 with zero gradient where nothing weighs anything",
            f"{value}, gradient up to {float(gradient.abs().max())}")  # fmt: skip


@check(KIND, applies=_ignores)
def ignored_pixels(case: Case) -> None:
    """`ignore_index` marks pixels that nobody labeled: what the network writes there, NaN included, must not matter."""
    loss = case.build(ignore_index=IGNORE)
    output, target = pair(case)
    target[..., 4:7, :] = IGNORE
    _same_without(loss, output, target, None, "ignored", slice(4, 7))


@check(KIND, applies=_ignores)
def ignored_image(case: Case) -> None:
    """An image with nothing labeled must not dilute the loss of its batch."""
    loss = case.build(ignore_index=IGNORE)
    output, target = pair(case)
    target[1] = IGNORE
    both, _ = _value_and_gradient(loss, output, target)
    alone, _ = _value_and_gradient(loss, output[:1], target[:1])
    require(_near(both, alone), "the loss of the first image alone, where the second is ignored",
            f"{both}, not {alone}")  # fmt: skip


@check(KIND, applies=_ignores)
def all_ignored(case: Case) -> None:
    """A crop without a label comes up in every long run and must not end it with NaN."""
    output, target = pair(case)
    value, gradient = _value_and_gradient(case.build(ignore_index=IGNORE), output, torch.full_like(target, IGNORE))
    require(value == 0 and not gradient.any(), "0 with zero gradient where all is ignored",
            f"{value}, gradient up to {float(gradient.abs().max())}")  # fmt: skip


@check(KIND)
def descends(case: Case) -> None:
    """A step against the gradient must lower the loss, or training climbs."""
    loss = case.build()
    output, target = pair(case)
    value, gradient = _value_and_gradient(loss, output, target)
    norm = float(gradient.norm())
    require(norm > 0, "a gradient for random outputs", "none")
    step = 0.1 * gradient / norm
    after, _ = _value_and_gradient(loss, output - step, target)
    require(after < value, "a smaller loss after a small step against the gradient", f"{value} → {after}")


@check(KIND)
def finite(case: Case) -> None:
    """Large logits and empty or full masks are ordinary; one NaN among them ends a run."""
    _, like = pair(case)
    one_pixel = torch.zeros_like(like)
    one_pixel[..., 1, 2] = 1
    for size in SIZES:
        for sign in (1, -1):
            output = torch.zeros(2, channels_of(case), *like.shape[-2:])
            output[:, 0] = sign * size
            output[..., 3] *= -1
            for what, target in (("empty", 0 * like), ("full", torch.ones_like(like)), ("one-pixel", one_pixel)):
                value, gradient = _value_and_gradient(case.build(), output, target)
                require(torch.isfinite(torch.tensor(value)) and gradient.isfinite().all(),
                        f"finite loss and gradient for logits of ±{size:g} and {what} masks",
                        f"loss {value}, gradient up to {float(gradient.abs().max())}")  # fmt: skip


@check(KIND)
def half_precision(case: Case) -> None:
    """Under autocast outputs come in 16 bits, and sums over an image overflow or lose their digits there."""
    loss = case.build()
    small, large = pair(case), _large(case)
    for dtype, (output, target) in ((torch.bfloat16, small), (torch.float16, large)):
        output = output.to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, gradient = _value_and_gradient(loss, output, target)
        exact, _ = _value_and_gradient(loss, output.float(), target)
        require(abs(value - exact) <= 0.02 * abs(exact) + 1e-6, f"{exact:.5g} within 2 % from {dtype}", value)
        require(gradient.isfinite().all(), "a finite gradient", "NaN or infinity")


@check(KIND)
def order_of_images(case: Case) -> None:
    """The order of images in a batch is chance."""
    output, target = pair(case, batch=3)
    one, _ = _value_and_gradient(case.build(), output, target)
    other, _ = _value_and_gradient(case.build(), output.flip(0), target.flip(0))
    require(_near(one, other), "the same loss in another order", f"{one} and {other}")


@check(KIND)
def perfect_is_better(case: Case) -> None:
    """The loss must be lower for the right output than for a wrong one, or training learns the wrong one."""
    loss = case.build()
    output, target = pair(case)
    perfect, _ = _value_and_gradient(loss, _perfect(case, target), target)
    wrong, _ = _value_and_gradient(loss, output, target)
    require(perfect < wrong, "a lower loss for the right output than for a random one", f"{perfect} and {wrong}")


@check(KIND)
def misfit(case: Case) -> None:
    """PyTorch broadcasts what does not fit, and a wrong mask then trains without a word."""
    loss = case.build()
    output, target = pair(case)
    refused(lambda: loss(output, target[..., :-1]), "an error for a target of another size")
    refused(lambda: loss(output, target[..., :1]), "an error for a target of width 1, which would broadcast")


@check(KIND, applies=_labeled)
def wrong_labels(case: Case) -> None:
    """A mask with 255 in it, or of another label set, is the commonest fault of data."""
    loss = case.build()
    output, target = pair(case)
    for wrong in (7, -1):
        target[..., 0, 0] = wrong

        def value() -> Any:
            found = loss(output, target).detach()
            if found.isnan():
                raise ValueError("NaN, which is loud enough")
            return f"a loss of {float(found):.4g}"

        refused(value, f"an error (or NaN) for the label {wrong}", IndexError, RuntimeError)


@check(KIND)
def compiles(case: Case) -> None:
    """The loss is part of the compiled training step; a break in it costs the gain."""
    torch.compiler.reset()
    loss = case.build()
    compiled = torch.compile(loss, backend="eager")
    output, target = pair(case)
    expected, found = _value_and_gradient(loss, output, target), _value_and_gradient(compiled, output, target)
    close = _near(expected[0], found[0]) and torch.allclose(expected[1], found[1], rtol=1e-3, atol=1e-5)
    require(close, f"the same loss compiled, {expected[0]}, and gradient", found[0])


def _value_and_gradient(
    loss: Any, output: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[float, Tensor]:
    leaf = output.clone().requires_grad_()
    given = {} if weight is None else {"weight": weight}
    value = loss(leaf, target.clone(), **given)
    if not value.requires_grad:  # a constant
        return value.item(), torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return value.item(), torch.zeros_like(leaf) if gradient is None else gradient


def _same_without(loss: Any, output: Tensor, target: Tensor, weight: Tensor | None, what: str, rows: slice) -> None:
    """Other numbers in these rows of the output, and NaN, change neither value nor gradient."""
    value, gradient = _value_and_gradient(loss, output, target, weight)
    large = 30 * torch.rand(output[..., rows, :].shape, generator=torch.Generator().manual_seed(5))
    for written in (large, torch.full_like(large, float("nan"))):
        other = output.clone()
        other[..., rows, :] = written
        other_value, other_gradient = _value_and_gradient(loss, other, target, weight)
        require(_near(value, other_value), f"a loss that does not depend on the output at {what} pixels",
                f"{value} → {other_value} as it changes")  # fmt: skip
        require(torch.allclose(gradient, other_gradient, atol=1e-6),
                f"a gradient that does not depend on the output at {what} pixels", "another as it changes")  # fmt: skip
        require(not other_gradient[..., rows, :].any(), f"no gradient at {what} pixels", "a gradient there")


def _ones(output: Tensor) -> Tensor:
    return torch.ones(output.shape[0], *output.shape[2:])


def _large(case: Case) -> tuple[Tensor, Tensor]:
    """An image so large that the number of its pixels overflows fp16, nearly all of one class."""
    output, target = pair(case, batch=1)
    times = -(-272 // output.shape[-1])
    target = target if case.task == "depth" else torch.ones_like(target)
    target[..., :2, :] = 0
    return output.repeat(1, 1, times, times), target.repeat(*(1,) * (target.ndim - 2), times, times)


def _perfect(case: Case, target: Tensor) -> Tensor:
    if case.task == "depth":
        return target.clone()
    if case.task == "multiclass":
        hot = torch.nn.functional.one_hot(target, channels_of(case)).movedim(-1, 1)
    else:
        hot = target if case.task == "multilabel" else target[:, None]
    return 20.0 * (2 * hot.float() - 1)


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-4 * max(abs(one), abs(other)) + 1e-6
