"""Checks of callbacks: a run with one has the result of a run without it."""

from __future__ import annotations

import inspect
import tempfile
from typing import Any

import torch
from torch import nn

from .case import Case
from .kit import check, require

KIND = "callback"
METHODS = ("on_begin", "on_step", "on_evaluate", "on_epoch", "on_message", "on_end")


@check(KIND, first=True)
def methods(case: Case) -> None:
    """The Trainer calls every method of every callback; a missing one ends the run."""
    target = case.load()
    callback = target if inspect.isclass(target) else case.build()
    for method in METHODS:
        require(callable(getattr(callback, method, None)), f"a method {method}", f"none on {case.name}")
    every = getattr(callback, "every_process", None)
    require(isinstance(every, bool), "every_process, True or False", every)


def _runs_here(case: Case) -> bool:
    return not getattr(case.load(), "service", False)


@check(KIND, applies=_runs_here)
def changes_no_result(case: Case) -> None:
    """Logging must not change a run: a callback changes neither weights nor random state."""
    expected, _ = _run(case, [])
    found, error = _run(case, [case.build()])
    require(error is None, "a run of two epochs with validation", error)
    same = all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    require(same, "the weights of a run without the callback", "different weights")


@check(KIND, applies=_runs_here)
def may_be_used_again(case: Case) -> None:
    """`fit` may be called twice, e.g. to train longer or after an error."""
    callback = case.build()
    for attempt in ("first", "second"):
        _, error = _run(case, [callback])
        require(error is None, f"a {attempt} run", error)


class _Noise(torch.utils.data.Dataset):
    transform = None

    def __init__(self) -> None:
        from ..labels import LabelSpec

        self.labels = LabelSpec(("background", "foreground"))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(index)
        image = torch.rand(1, 16, 16, generator=draw)
        return {"image": image, "mask": (image[0] > 0.5).long(), "id": f"s{index}"}


def _run(case: Case, callbacks: list[Any]) -> tuple[list[torch.Tensor], Exception | None]:
    from ..registry import LOSSES, METRICS
    from ..training import Trainer

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout2d(0.5), nn.Conv2d(4, 2, 1))
    data = _Noise()
    trainer = Trainer(
        net, LOSSES.build("ce"), metrics=METRICS.build("segmentation", labels=data.labels), epochs=2, batch_size=2,
        out=tempfile.mkdtemp(dir=case.folder), progress=False, callbacks=callbacks,
    )  # fmt: skip
    error = None
    try:
        trainer.fit(data, data)
    except Exception as raised:  # a callback may raise anything
        error = raised
    return [parameter.detach() for parameter in net.parameters()], error
