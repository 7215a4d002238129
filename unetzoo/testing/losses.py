"""Checks of losses: `loss(output, target, *, weight=None) -> scalar`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .case import Case
from .inputs import IGNORE, channels_of, pair
from .kit import check, require, require_error

KIND = "loss"
SIZES = (0.0, 1.0, 20.0, 88.0, 1e4)


def _ignores(case: Case) -> bool:
    return case.takes("ignore_index") and case.task != "depth"


def _labeled(case: Case) -> bool:
    return case.task != "depth"


@check(KIND, first=True)
def scalar(case: Case) -> None:
    """The training loop sums losses and calls `backward` on the sum."""
    loss = case.build()
    output, target = pair(case)
    value = loss(output.requires_grad_(), target)
    require(isinstance(value, Tensor) and value.shape == (), "a tensor of shape ()", getattr(value, "shape", value))
    require(value.isfinite(), "a finite number", value.item())
    require(value.requires_grad, "a result with a gradient", "one without")


@check(KIND)
def weight_keyword(case: Case) -> None:
    """Datasets with valid masks or border weights pass `weight=` to every loss."""
    output, target = pair(case)
    value, _ = _value_and_gradient(case.build(), output, target, _ones(output))
    plain, _ = _value_and_gradient(case.build(), output, target)
    require(_near(value, plain), "the unweighted loss for weight=1 everywhere", f"{value}, not {plain}")


@check(KIND)
def zero_weight_pixels(case: Case) -> None:
    """A weight of 0 marks pixels without a known label; the output there, NaN included, must not matter."""
    output, target = pair(case)
    weight = _ones(output)
    weight[:, 4:7] = 0
    _same_without(case.build(), output, target, weight, "zero-weight", slice(4, 7))


@check(KIND)
def weight_has_effect(case: Case) -> None:
    """Border weights must change the loss."""
    output, target = pair(case)
    weight = _ones(output)
    weight[0] = 5
    weighted, _ = _value_and_gradient(case.build(), output, target, weight)
    plain, _ = _value_and_gradient(case.build(), output, target)
    require(
        not _near(weighted, plain), "a different loss if the first image has five times the weight", "the same loss"
    )


@check(KIND)
def all_zero_weight(case: Case) -> None:
    """A batch without a valid pixel must not turn the weights of the network into NaN."""
    output, target = pair(case)
    value, gradient = _value_and_gradient(case.build(), output, target, 0 * _ones(output))
    require(value == 0 and not gradient.any(), "0 with zero gradient if all weights are 0",
            f"{value}, gradient up to {float(gradient.abs().max())}")  # fmt: skip


@check(KIND, applies=_ignores)
def ignored_pixels(case: Case) -> None:
    """`ignore_index` marks unlabeled pixels; the output there, NaN included, must not matter."""
    loss = case.build(ignore_index=IGNORE)
    output, target = pair(case)
    target[..., 4:7, :] = IGNORE
    _same_without(loss, output, target, None, "ignored", slice(4, 7))


@check(KIND, applies=_ignores)
def ignored_image(case: Case) -> None:
    """An image without labels must not dilute the loss of its batch."""
    loss = case.build(ignore_index=IGNORE)
    output, target = pair(case)
    target[1] = IGNORE
    both, _ = _value_and_gradient(loss, output, target)
    alone, _ = _value_and_gradient(loss, output[:1], target[:1])
    require(_near(both, alone), "the loss of the first image if the second is ignored",
            f"{both}, not {alone}")  # fmt: skip


@check(KIND, applies=_ignores)
def all_ignored(case: Case) -> None:
    """A crop without labels occurs in every long run and must not end it with NaN."""
    output, target = pair(case)
    value, gradient = _value_and_gradient(case.build(ignore_index=IGNORE), output, torch.full_like(target, IGNORE))
    require(value == 0 and not gradient.any(), "0 with zero gradient if all pixels are ignored",
            f"{value}, gradient up to {float(gradient.abs().max())}")  # fmt: skip


@check(KIND)
def gradient_descent(case: Case) -> None:
    """A small step against the gradient must reduce the loss."""
    loss = case.build()
    output, target = pair(case)
    value, gradient = _value_and_gradient(loss, output, target)
    norm = float(gradient.norm())
    require(norm > 0, "a gradient for random outputs", "none")
    step = 0.1 * gradient / norm
    after, _ = _value_and_gradient(loss, output - step, target)
    require(after < value, "a smaller loss after a gradient step", f"{value} → {after}")


@check(KIND)
def finite(case: Case) -> None:
    """Large logits and empty or full masks are common; a single NaN ruins a run."""
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
    """Under autocast, outputs have 16 bits; sums over an image overflow or lose precision in them."""
    loss = case.build()
    small, large = pair(case), _large(case)
    for dtype, (output, target) in ((torch.bfloat16, small), (torch.float16, large)):
        output = output.to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, gradient = _value_and_gradient(loss, output, target)
        exact, _ = _value_and_gradient(loss, output.float(), target)
        require(abs(value - exact) <= 0.02 * abs(exact) + 1e-6, f"{exact:.5g} within 2% in {dtype}", value)
        require(gradient.isfinite().all(), "a finite gradient", "NaN or infinity")


@check(KIND)
def batch_order(case: Case) -> None:
    """The order of images in a batch is arbitrary."""
    output, target = pair(case, batch=3)
    one, _ = _value_and_gradient(case.build(), output, target)
    other, _ = _value_and_gradient(case.build(), output.flip(0), target.flip(0))
    require(_near(one, other), "the same loss in a different order", f"{one} and {other}")


@check(KIND)
def perfect_prediction(case: Case) -> None:
    """The loss must be lower for a correct prediction than for a wrong one."""
    loss = case.build()
    output, target = pair(case)
    perfect, _ = _value_and_gradient(loss, _perfect(case, target), target)
    wrong, _ = _value_and_gradient(loss, output, target)
    require(perfect < wrong, "a lower loss for a correct prediction than for a random one", f"{perfect} and {wrong}")


@check(KIND)
def mismatched_shapes(case: Case) -> None:
    """PyTorch broadcasts mismatched shapes, so a wrong mask would train silently."""
    loss = case.build()
    output, target = pair(case)
    require_error(lambda: loss(output, target[..., :-1]), "an error for a target of a different size")
    require_error(lambda: loss(output, target[..., :1]), "an error for a target of width 1, which would broadcast")


@check(KIND, applies=_labeled)
def wrong_labels(case: Case) -> None:
    """Masks with 255 or of another label set are the most common data error."""
    loss = case.build()
    output, target = pair(case)
    for wrong in (7, -1):
        target[..., 0, 0] = wrong

        def value() -> Any:
            found = loss(output, target).detach()
            if found.isnan():
                raise ValueError("NaN")  # cannot go unnoticed
            return f"a loss of {float(found):.4g}"

        require_error(value, f"an error (or NaN) for the label {wrong}", IndexError, RuntimeError)


@check(KIND)
def compiles(case: Case) -> None:
    """The loss is part of the compiled training step; a graph break costs the speedup."""
    torch.compiler.reset()
    loss = case.build()
    compiled = torch.compile(loss, backend="eager")
    output, target = pair(case)
    expected, found = _value_and_gradient(loss, output, target), _value_and_gradient(compiled, output, target)
    close = _near(expected[0], found[0]) and torch.allclose(expected[1], found[1], rtol=1e-3, atol=1e-5)
    require(close, f"the same loss ({expected[0]}) and gradient when compiled", found[0])


def _value_and_gradient(
    loss: Any, output: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[float, Tensor]:
    leaf = output.clone().requires_grad_()
    given = {} if weight is None else {"weight": weight}
    value = loss(leaf, target.clone(), **given)
    if not value.requires_grad:  # the loss is constant
        return value.item(), torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return value.item(), torch.zeros_like(leaf) if gradient is None else gradient


def _same_without(loss: Any, output: Tensor, target: Tensor, weight: Tensor | None, what: str, rows: slice) -> None:
    """Require that other numbers or NaN in these rows of the output change neither value nor gradient."""
    value, gradient = _value_and_gradient(loss, output, target, weight)
    large = 30 * torch.rand(output[..., rows, :].shape, generator=torch.Generator().manual_seed(5))
    for written in (large, torch.full_like(large, float("nan"))):
        other = output.clone()
        other[..., rows, :] = written
        other_value, other_gradient = _value_and_gradient(loss, other, target, weight)
        require(_near(value, other_value), f"a loss independent of the output at {what} pixels",
                f"{value} → {other_value} when it changes")  # fmt: skip
        require(torch.allclose(gradient, other_gradient, atol=1e-6),
                f"a gradient independent of the output at {what} pixels", "a different gradient")  # fmt: skip
        require(not other_gradient[..., rows, :].any(), f"no gradient at {what} pixels", "a gradient there")


def _ones(output: Tensor) -> Tensor:
    return torch.ones(output.shape[0], *output.shape[2:])


def _large(case: Case) -> tuple[Tensor, Tensor]:
    """Return an image with more pixels than fp16 can count, nearly all of one class."""
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
