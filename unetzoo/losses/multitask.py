"""Weighted sum of several losses on several heads, built from a table that fits into JSON and TOML."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..contracts import check_built
from ..errors import ConfigError, UnknownNameError, did_you_mean
from ..heads import extra_planes, heads_of
from ..registry import LOSSES, check_keywords, keywords, missing_keywords
from ._options import check_policy
from .boundary import BoundaryLoss

# Key of a head's pixel weights in a sample.
WEIGHT_KEYS = {"mask": "weight", "depth": "valid"}


class Term(NamedTuple):
    """One loss on one head."""

    head: str
    name: str
    weight: float
    loss: Callable[..., Tensor]


class MultiTaskLoss(nn.Module):
    """Weighted sum of losses over the heads of a network.

    A head `h` is the field `h` of the network's NamedTuple output, or `mask` if that is a plain tensor; its target
    is `batch[h]`. The pixels of `mask` are weighted by `batch["weight"]` and those of `depth` by `batch["valid"]`, if
    the batch has them.

    A loss with a method `terms(output, batch) -> dict`, which the Trainer also uses, gets the whole output and batch
    instead of one head. Examples are a loss of side outputs, or one that compares heads. All its terms get the same
    weight.

    Args:
        heads: A table of losses per head, by registry name: `{"mask": {"ce": 1.0, "dice": 0.5}}`. A value is
            the loss's weight, or a table `{"weight": 0.5, **keywords}` of its weight (1 by default) and its keywords.
            Instead of the table, a loss object (any callable with the signature of a loss), with weight 1.
        num_classes: Channels of the mask; losses that take a `mode` get "binary" for 1 and "multiclass" for more,
            unless set in their table.
        ignore_index: Passed to the losses that take it, unless set in their table.
        weighting: "fixed": only the tables' weights. "uncertainty": each head's weighted sum L is multiplied by a
            learned weight, `exp(−s)·L + s/2`, with one parameter s per head, `log_variance`, initially 0. It is a
            parameter of the loss: pass `loss.parameters()` to the optimizer as well, without weight decay. The term
            `head/uncertainty` is `s/2`, so the weight of a head is `exp(−2·term)`. Heads whose loss may be negative
            (`boundary`) or is always 0 cannot be used with it: their weight would grow without bound.

    Shape:
        - output: a tensor (N, C, H, W), or a NamedTuple of them
        - batch: a mapping with the target of each head, and optionally `weight` and `valid`

    Raises:
        ConfigError: No head, no loss, an unusable weight, a batch without a target, learned weights with a single
            head or with a loss that makes them grow without bound.
        UnknownNameError: A loss, keyword or head that does not exist; the hint has the nearest name.

    Examples:
        >>> import torch
        >>> loss = MultiTaskLoss({"mask": {"ce": 1.0, "dice": {"weight": 0.5, "smooth": 1.0}}}, num_classes=3)
        >>> batch = {"mask": torch.zeros(1, 4, 4, dtype=torch.int64)}
        >>> terms = loss.terms(torch.zeros(1, 3, 4, 4), batch)
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'ce': 1.0986, 'dice': 0.1873}
        >>> torch.equal(loss(torch.zeros(1, 3, 4, 4), batch), sum(terms.values()))
        True

    Source:
        Fixed weights, as in DenseDepth (Alhashim and Wonka, 2018, eq. 1). Learned: Kendall et al., "Multi-Task Learning
        Using Uncertainty to Weigh Losses", 2018, s = ln σ²: its eq. 10 for classification, `exp(−s)·L + s/2`. Its
        `exp(−s)/2·L + s/2` for regression (eq. 5) is the same with s larger by ln 2, except for a constant. The
        same weights are learned, so all heads use one form.
    """

    log_variance: nn.Parameter | None

    def __init__(
        self,
        heads: Mapping[str, Mapping[str, float | Mapping[str, Any]] | Callable[..., Tensor]],
        num_classes: int = 1,
        ignore_index: int | None = None,
        weighting: Literal["fixed", "uncertainty"] = "fixed",
    ) -> None:
        super().__init__()
        check_policy(weighting, ("fixed", "uncertainty"), "weighting")
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ConfigError("unusable num_classes", expected="the number of mask channels, ≥ 1", found=num_classes)
        if not isinstance(heads, Mapping) or not heads:
            raise ConfigError(
                "a multitask loss needs heads", found=heads, hint='give a table, e.g. {"mask": {"dice": 1.0}}'
            )
        defaults = {"mode": "binary" if num_classes == 1 else "multiclass"}
        self.heads, self._terms = list(heads), list[Term]()
        for head, losses in heads.items():
            if callable(losses):
                name = getattr(losses, "__name__", type(losses).__name__)
                self._terms.append(Term(head, name, 1.0, losses))
                continue
            if not isinstance(losses, Mapping) or not losses:
                raise ConfigError(
                    "a head needs losses",
                    subject=head,
                    expected='a table such as {"dice": 1.0}, or a callable',
                    found=losses,
                )
            for name, spec in losses.items():
                self._terms.append(_build(head, name, spec, defaults, ignore_index))
        if weighting == "uncertainty":
            _check_learnable(self.heads, self._terms)
        learned = nn.Parameter(torch.zeros(len(self.heads))) if weighting == "uncertainty" else None
        self.register_parameter("log_variance", learned)
        # Registered as submodules, so that buffers follow `.to(device)`.
        self._modules_of_terms = nn.ModuleList(t.loss for t in self._terms if isinstance(t.loss, nn.Module))

    def terms(self, output: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Compute every weighted term: `head/loss` → scalar; just `loss` if the mask is the only head.

        A loss with a method `terms` adds `loss/term` for each of them. With learned weights there is also
        `head/uncertainty`, so that the sum of all terms is the loss.
        """
        terms: dict[str, Tensor] = {}
        for term in self._terms:
            prefix = "" if self.heads == ["mask"] else f"{term.head}/"
            for name, value in _values(term, output, batch).items():
                value = term.weight * value
                if self.log_variance is not None:
                    value = value * torch.exp(-self.log_variance[self.heads.index(term.head)])
                terms[prefix + name] = value
        if self.log_variance is not None:
            terms |= {f"{head}/uncertainty": s / 2 for head, s in zip(self.heads, self.log_variance, strict=True)}
        return terms

    def forward(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Compute the sum of all terms, a scalar."""
        first, *others = self.terms(output, batch).values()
        return sum(others, start=first)


def _check_learnable(heads: Sequence[str], terms: Sequence[Term]) -> None:
    """Raise an error for heads whose weights cannot be learned."""
    subject, hint = 'weighting="uncertainty"', 'use weighting="fixed"'
    if len(heads) < 2:
        raise ConfigError(
            "nothing to weigh against each other", subject=subject, expected="two heads or more", found=heads, hint=hint
        )
    for head in heads:
        own = [term for term in terms if term.head == head and term.weight > 0]
        signed = [term.name for term in own if _may_be_negative(term.loss)]
        if signed or not own:
            found = f"head {head!r} with {signed[0]!r}" if signed else f"head {head!r} with only weights of 0"
            raise ConfigError(
                "a learned weight that would grow without bound",
                subject=subject,
                expected="losses above 0",
                found=found,
                hint=hint,
            )


def _may_be_negative(loss: Callable[..., Tensor]) -> bool:
    parts = loss.modules() if isinstance(loss, nn.Module) else [loss]
    return any(isinstance(part, BoundaryLoss) for part in parts)


def _values(term: Term, output: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the value of a loss by its name, or of each of its terms."""
    heads, head = heads_of(output), term.head
    if head not in heads:
        raise UnknownNameError(
            f"the network has no head {head!r}", subject=type(output).__name__, hint=did_you_mean(head, heads, "head")
        )
    if head not in batch:
        raise ConfigError(
            f"the batch has no target {head!r}",
            subject=f"loss {term.name!r}",
            found=", ".join(map(str, batch)) or "an empty batch",
            hint=f"use a data set that gives {head!r}, or take the head out of the loss",
        )
    terms: Callable[..., Mapping[str, Tensor]] | None = getattr(term.loss, "terms", None)
    if callable(terms):
        return {f"{term.name}/{name}": value for name, value in terms(output, batch).items()}
    if head == "mask":
        given = {name: batch[name] for name in extra_planes(term.loss) if batch.get(name) is not None}
    else:
        pixels = batch.get(WEIGHT_KEYS.get(head, ""))
        given = {} if pixels is None else {"weight": pixels}
    return {term.name: term.loss(heads[head], batch[head], **given)}


def _build(head: str, name: str, spec: Any, defaults: Mapping[str, Any], ignore_index: int | None) -> Term:
    subject = f"loss {name!r} of head {head!r}"
    given = dict(spec) if isinstance(spec, Mapping) else {"weight": spec}
    weight = given.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
        raise ConfigError(
            "unusable weight", subject=subject, expected="a number ≥ 0, or a table of weight and keywords", found=weight
        )
    target = LOSSES.get(name)
    check_keywords(target, given, subject)
    if ignore_index is not None:
        defaults = {**defaults, "ignore_index": ignore_index}
    known = keywords(target)
    given = {key: value for key, value in defaults.items() if key in known} | given
    if missing := missing_keywords(target, given):
        raise ConfigError(
            "incomplete table of keywords", subject=subject, found=f"no value for {', '.join(map(repr, missing))}",
            hint="name them in the loss's table",
        )  # fmt: skip
    loss = LOSSES.build(name, **given)
    check_built(LOSSES, name, loss)
    return Term(head, name, float(weight), loss)
