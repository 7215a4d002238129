"""Split network outputs into named heads.

A network returns logits (N, classes, H, W); a NamedTuple of tensors with the mask first (`MaskDepth`); the plain tuple
(masks, labels) if it has SMP's classification head, whose labels are ignored; or, like torchvision's networks, a dict
with the masks under "out".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError, PluginContractError, did_you_mean
from .registry import keywords


def split_heads(output: Any) -> tuple[dict[str, Tensor], Callable[[Sequence[Tensor]], Any]]:
    """Return the tensors of an output by head, and a function that builds the same type of output from other tensors.

    The output of a classification head is discarded.

    Raises:
        PluginContractError: The type of the output is not supported.

    Examples:
        >>> heads, rebuild = split_heads(torch.zeros(1, 2, 4, 4))
        >>> list(heads), rebuild([torch.ones(1)])
        (['mask'], tensor([1.]))
    """
    if isinstance(output, Tensor):
        return {"mask": output}, lambda heads: heads[0]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return output._asdict(), lambda heads: type(output)(*heads)  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(output, tuple) and len(output) == 2:
        return split_heads(output[0])
    if isinstance(output, Mapping) and isinstance(output.get("out"), Tensor):
        return split_heads(output["out"])
    raise PluginContractError(
        "unsupported network output",
        expected="logits (N, classes, H, W), or a NamedTuple with the mask first",
        found=type(output).__name__,
        hint="wrap the network in a module that returns its logits",
    )


def heads_of(output: Any) -> dict[str, Tensor]:
    """Return the tensors of an output by head; a plain tensor is the mask.

    Raises:
        PluginContractError: As for `split_heads`.
    """
    return split_heads(output)[0]


def map_heads(function: Callable[[Tensor], Tensor], output: Any) -> Any:
    """Apply a function to each head, and return the same type of output.

    Raises:
        PluginContractError: As for `split_heads`.
    """
    heads, rebuild = split_heads(output)
    return rebuild([function(head) for head in heads.values()])


def as_float(output: Any) -> Any:
    """Convert half-precision heads to float32, as losses and metrics require, and discard the classification head."""

    def widen(head: Tensor) -> Tensor:
        return head.float() if head.dtype in (torch.float16, torch.bfloat16) else head

    return map_heads(widen, output)


def get_head(output: Any, name: str, used_by: str) -> Tensor:
    """Return one head of an output.

    Args:
        output: Output of the network.
        name: Name of the head.
        used_by: The user of the head in the error text, e.g. "a metric".

    Raises:
        ConfigError: The network has no such head.
    """
    heads = heads_of(output)
    if name not in heads:
        raise ConfigError(
            f"{used_by} for a head that the network does not have",
            subject=name,
            found=f"heads {', '.join(heads)}",
            hint=did_you_mean(name, heads, "head"),
        )
    return heads[name]


def extra_planes(loss: Callable[..., Any]) -> tuple[str, ...]:
    """The planes of a batch that a loss of the mask takes besides the target.

    Every loss takes `weight`, and those with a keyword `instances` take the number of the object of each pixel.

    Examples:
        >>> extra_planes(lambda output, target, *, weight=None, instances=None: 0)
        ('weight', 'instances')
    """
    try:
        known = keywords(getattr(loss, "forward", loss))
    except (TypeError, ValueError):  # a callable without a signature
        known = {}
    return ("weight", "instances") if "instances" in known else ("weight",)
