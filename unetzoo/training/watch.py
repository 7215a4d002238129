"""What looks on while a run is evaluated: it warns of collapsed predictions and feeds further logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..errors import CheckpointWriteError, DataError
from ..heads import heads_of
from ..labels import LabelSpec
from ..report.samples import First, is_plane
from .collapse import Circumstances, Collapse, Follower, Spread, causes, of_classes, told
from .folder import RunFolder
from .logs import Log, read_jsonl
from .progress import Progress

PICTURES = 4  # samples that the logs are shown after every epoch


class Watch:
    """Looks on.

    Args:
        folder: Of the run; nothing is kept without one.
        progress: Where warnings are said.
        metrics: The run's, by head.
        logs: Further logs of the process that writes; none in the others.
    """

    def __init__(
        self, folder: RunFolder, progress: Progress, metrics: Mapping[str, Any], logs: Sequence[Log] = ()
    ) -> None:
        self.folder, self.progress, self.metrics, self.logs = folder, progress, metrics, logs
        self._begin_evaluation()

    def begin(self, data: Any, step: int, epochs: int) -> None:
        """A run begins, or goes on after so many steps and epochs.

        Args:
            data: What is evaluated.
            step: Optimizer steps done.
            epochs: Epochs done.
        """
        self.labels: LabelSpec | None = getattr(data, "labels", None)
        self.follower = Follower(self._told(epochs))
        self._begin_evaluation()
        self._tell(lambda log: log.begin(step))

    def look(self, output: Any, batch: Mapping[str, Any]) -> None:
        """At one more batch of an evaluation, and what the network answers; nobody waits for the device."""
        if self._input is None:
            images = batch["image"].float()
            self._input = torch.stack([images.mean(), images.std(correction=0)])
        for head, answer in heads_of(output).items():
            if is_plane(batch, head, answer):
                part = Spread.of(answer, batch[head], batch.get("valid"))
                self._spreads[head] = self._spreads[head] + part if head in self._spreads else part
        if self.logs:
            self._first.add(output, dict(batch))

    def close_epoch(self, row: Mapping[str, float], step: int, *, last: bool) -> None:
        """An epoch is scored; the metrics hold the counts of all processes. All processes call it together.

        Args:
            row: Its scores.
            step: Optimizer steps done.
            last: Whether the run ends here.
        """
        found: dict[str, Collapse | None] = {
            head: of_classes(metric.confusion, metric.names)
            for head, metric in self.metrics.items()
            if hasattr(metric, "confusion")
        }
        found |= {head: spread.collapse() for head, spread in self._summed_spreads().items()}
        for head, collapse in self.follower.news(found, step, last=last).items():
            self._say(head, collapse, row, step)
        self._tell(lambda log: log.row(row, step))
        if self.logs and self._first.samples:
            images = self._first.images(self.labels)
            self._tell(lambda log: log.images(images, step))
        self._begin_evaluation()

    def close(self) -> None:
        """The run ends."""
        self._tell(lambda log: log.close())

    def _begin_evaluation(self) -> None:
        self._spreads: dict[str, Spread] = {}
        self._input: Tensor | None = None
        self._first = First(PICTURES, self.metrics.get("mask"))

    def _summed_spreads(self) -> dict[str, Spread]:
        summed: dict[str, Spread] = {}
        for share in gather_object([{head: spread.sums.tolist() for head, spread in self._spreads.items()}]):
            for head, sums in share.items():
                part = Spread(torch.tensor(sums, dtype=torch.float64))
                summed[head] = summed[head] + part if head in summed else part
        return summed

    def _say(self, head: str, collapse: Collapse | None, row: Mapping[str, float], step: int) -> None:
        epoch = int(row["epoch"])
        if collapse is None:
            event, reasons = "recovered", []
            said = f"epoch {epoch}: the predicted {head} is no longer the same everywhere"
        else:
            mean, deviation = self._input.tolist() if self._input is not None else (0.0, 1.0)
            event, said = "collapse", collapse.said(head, epoch)
            run = str(self.folder.path or "PATH")
            reasons = causes(collapse, Circumstances(row["lr"], step, mean, deviation, run))
        state = collapse.state if collapse else ""
        text = "\n".join([said, *(f"  likely cause: {reason}" for reason in reasons)])
        self.progress.say(text)
        self.folder.note(event, epoch=epoch, step=step, head=head, state=state, said=said, causes=reasons)
        self._tell(lambda log: log.say(event, text, step))

    def _told(self, epochs: int) -> dict[str, str]:
        """What a run that goes on has said already."""
        if self.folder.path is None or not epochs:
            return {}
        try:
            return told(read_jsonl(self.folder.path / "events.jsonl").rows, epochs)
        except DataError:  # nothing happened
            return {}

    def _tell(self, work: Any) -> None:
        for log in self.logs:
            try:
                work(log)
            except OSError as error:
                raise CheckpointWriteError(
                    "cannot write a log", subject=type(log).__name__, found=error, hint="free some space, then --resume"
                ) from error
