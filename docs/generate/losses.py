"""One page per loss: formula, plots of value and gradient, and values for empty, ignored and saturated masks."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from unetzoo.registry import LOSSES

from . import DOCS
from .chart import Panel, chart
from .markdown import first_paragraph, page, table

MASKS: dict[str, dict[str, Any]] = {
    "ce": {},
    "bce": {},
    "focal": {"mode": "multiclass"},
    "border_ce": {},
    "dice": {"mode": "multiclass"},
    "jaccard": {"mode": "multiclass"},
    "tversky": {"mode": "multiclass", "alpha": 0.3, "beta": 0.7},
    "mcc": {"mode": "multiclass"},
    "lovasz": {"mode": "multiclass"},
    "boundary": {"mode": "multiclass"},
    "cldice": {"mode": "multiclass"},
    "skeleton_recall": {"mode": "multiclass"},
    "dice_ce": {"mode": "multiclass"},
    "jaccard_ce": {"mode": "multiclass"},
}
DEPTH = ("l1", "rmse", "berhu", "silog", "gradient", "depth_ssim")
IMAGES = ("ssim", "ms_ssim")
SIDE, IGNORED = 16, 255
CONFIDENT = 6.0  # the logit of correct pixels
STEPS = [step / 4 for step in range(-32, 33)]


def files() -> Iterator[tuple[str, Callable[[], str]]]:
    """Every generated file with the function that creates it."""
    for name in (*MASKS, *DEPTH, *IMAGES):
        yield f"losses/{name}.md", functools.partial(loss_page, name)
        yield f"losses/{name}.svg", functools.partial(mask_chart if name in MASKS else scale_chart, name)


def loss_page(name: str) -> str:
    """The page of a loss."""
    target = LOSSES.get(name)
    config = MASKS.get(name, {})
    call = ", ".join([f'"{name}"', *(f"{key}={value!r}".replace("'", '"') for key, value in config.items())])
    shown = MASK_TEXT if name in MASKS else SCALE_TEXT
    alt = "Value and gradient of the loss, as described below"
    return page(
        f"{target.__name__.removesuffix('Loss')}: `{name}`",
        summary := first_paragraph(target.__doc__),
        f"**Value:** {formula(name)}" if "`" in formula(name) and "`" not in summary else "",
        f"`unetzoo.LOSSES.build({call})`; arguments: "
        f"[{target.__name__}][{target.__module__}.{target.__qualname__}]. "
        "[Losses](../losses.md) defines the symbols and the properties of all losses.",
        "## Value and gradient",
        f"![{alt}]({name}.svg)",
        shown,
        "## Values",
        behavior(name),
    )


MASK_TEXT = (
    f"Left: the loss for a mask of {SIDE}×{SIDE} pixels, a quarter of them foreground. All foreground (solid) or "
    f"background (dashed) pixels have the foreground logit z; the others are correct (±{CONFIDENT:g}). Right: its "
    "derivative. Where the derivative is zero, wrong pixels do not affect training."
)
SCALE_TEXT = (
    "Left: the loss for a smooth target if the output is the target times s. Right: its derivative. At s = 1 the "
    "output is correct."
)


def formula(name: str) -> str:
    """The formula in the table of docs/losses.md."""
    for line in (DOCS / "losses.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and f"`{name}`" in re.findall(r"`[a-z_0-9]+`", cells[1]) and len(cells) == 7:
            return cells[2] if "`" in cells[2] or "−" in cells[2] else ""
    return ""


def truth() -> Tensor:
    """A mask with a square of foreground on a quarter of its pixels."""
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
    mask[:, SIDE // 4 : 3 * SIDE // 4, SIDE // 4 : 3 * SIDE // 4] = 1
    return mask


def logits_of(name: str, foreground: Tensor) -> Tensor:
    """Convert (1, H, W) foreground logits to the loss's input: one channel for bce, two for the others."""
    if name == "bce":
        return foreground[:, None]
    return torch.stack([torch.zeros_like(foreground), foreground], 1)


def value_of(name: str, foreground: Tensor, mask: Tensor, **config: Any) -> Tensor:
    """The value of the loss."""
    loss = LOSSES.build(name, **{**MASKS[name], **config})
    return loss(logits_of(name, foreground), mask[:, None] if name == "bce" else mask)


def mask_chart(name: str) -> str:
    """Plot value and derivative over the logit of foreground or background."""
    mask = truth()
    right = torch.where(mask == 1, CONFIDENT, -CONFIDENT).double()
    lines: dict[str, list[tuple[str, list[float]]]] = {"value": [], "slope": []}
    for title, part in (("foreground has logit z", mask == 1), ("background has logit z", mask == 0)):
        values, slopes = [], []
        for z in STEPS:
            at = torch.tensor(z, dtype=torch.float64, requires_grad=True)
            value = value_of(name, torch.where(part, at, right), mask)
            (slope,) = torch.autograd.grad(value, at)
            values.append(value.item())
            slopes.append(slope.item())
        lines["value"].append((title, values))
        lines["slope"].append((title, slopes))
    panels = [Panel("value", "z", STEPS, lines["value"]), Panel("derivative by z", "z", STEPS, lines["slope"])]
    return chart(f"The loss {name}", _described(lines["value"]), panels)


def _described(lines: list[tuple[str, list[float]]]) -> str:
    ends = (f"where {title}: {values[0]:.3g} at z = {STEPS[0]:g}, {values[-1]:.3g} at z = {STEPS[-1]:g}"
            for title, values in lines)  # fmt: skip
    return "Value " + "; ".join(ends) + "."


def surface(name: str) -> Tensor:
    """A smooth target between 0.2 and 0.8. Five scales of windows need 176 pixels."""
    side = 176 if name == "ms_ssim" else 48
    across = torch.linspace(0, 1, side, dtype=torch.float64)
    return (0.25 + 0.45 * across[None, :] + 0.05 * torch.sin(40 * across)[:, None]).expand(1, 1, side, side)


def scale_chart(name: str) -> str:
    """Plot value and derivative over a scale factor of the output."""
    target, loss = surface(name), LOSSES.build(name)
    scales = [0.5 + step / 20 for step in range(21)]
    values, slopes = [], []
    for s in scales:
        at = torch.tensor(s, dtype=torch.float64, requires_grad=True)
        value = loss(target * at, target)
        (slope,) = torch.autograd.grad(value, at)
        values.append(value.item())
        slopes.append(slope.item())
    description = (
        f"Value {values[0]:.3g} at half the target, {values[10]:.3g} at the target, "
        f"{values[-1]:.3g} at 1.5 times the target."
    )
    panels = [
        Panel("value", "s", scales, [("output = s · target", values)]),
        Panel("derivative by s", "s", scales, [("output = s · target", slopes)]),
    ]
    return chart(f"The loss {name}", description, panels)


def behavior(name: str) -> str:
    """A table of values and largest gradients in edge cases."""
    rows = [(case, _number(value), _number(slope)) for case, value, slope in _cases(name)]
    return table(["case", "value", "largest gradient per pixel"], rows)


def _cases(name: str) -> Iterator[tuple[str, float, float]]:
    if name not in MASKS:
        yield from _map_cases(name)
        return
    mask, ignore = truth(), {"ignore_index": IGNORED}
    empty, full = torch.zeros_like(mask), torch.full_like(mask, IGNORED)
    half = mask.clone()
    half[:, :, : SIDE // 2] = IGNORED
    right = torch.where(mask == 1, CONFIDENT, -CONFIDENT).float()
    cases: list[tuple[str, Tensor, Tensor, dict[str, Any]]] = [
        ("all correct, logits ±6", right, mask, {}),
        ("all wrong, logits ±6", -right, mask, {}),
        ("all wrong, logits ±10⁴ (saturated)", -right * 1e4 / CONFIDENT, mask, {}),
        ("all correct, logits ±10⁴", right * 1e4 / CONFIDENT, mask, {}),
        ("empty mask, nothing predicted", torch.full_like(right, -CONFIDENT), empty, {}),
        ("empty mask, everything predicted", torch.full_like(right, CONFIDENT), empty, {}),
        ("left half ignored, all correct", right, half, ignore),
        ("left half ignored, wrong only there", torch.where(half == IGNORED, -right, right), half, ignore),
        ("all pixels ignored", right, full, ignore),
    ]
    for case, logits, target, config in cases:
        yield case, *_measured(lambda x, t=target, c=config: value_of(name, x, t, **c), logits)


def _map_cases(name: str) -> Iterator[tuple[str, float, float]]:
    target, loss = surface(name).float(), LOSSES.build(name)
    holes = torch.ones_like(target)
    holes[..., : target.shape[-1] // 2] = 0
    gone = torch.where(holes == 0, torch.nan, target)
    cases: list[tuple[str, Tensor, Tensor, Tensor | None]] = [
        ("correct", target, target, None),
        ("0.1 too large everywhere", target + 0.1, target, None),
        ("constant: the mean everywhere", torch.full_like(target, float(target.mean())), target, None),
        ("left half not measured (NaN, weight 0), the rest correct", target, gone, holes),
        ("nothing measured", target, torch.full_like(target, torch.nan), torch.zeros_like(target)),
    ]
    for case, output, truth, weight in cases:
        yield case, *_measured(lambda x, t=truth, w=weight: loss(x, t, weight=w), output)


def _measured(loss: Callable[[Tensor], Tensor], given: Tensor) -> tuple[float, float]:
    given = given.clone().requires_grad_(True)
    value = loss(given)
    (slope,) = torch.autograd.grad(value, given)
    return value.item(), slope.abs().max().item()


def _number(value: float) -> str:
    if abs(value) < 5e-7:
        return "0"
    return f"{value:.2g}" if abs(value) < 0.01 else f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"
