"""What is not finite stays out of the weights, and the host hears of it without waiting for the device."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..errors import NonFiniteError
from .folder import RunFolder

SKIPS = 25  # gradients that stay infinite for so many steps in a row are no matter of the scale


class Flags(NamedTuple):
    """What all processes together found in one optimizer step."""

    loss: bool
    gradient: bool
    buffers: bool
    sigterm: bool
    sigint: bool

    @property
    def signal(self) -> int:
        """The signal that some process received, or 0."""
        return signal.SIGTERM if self.sigterm else signal.SIGINT if self.sigint else 0


class Buffers:
    """A network's buffers, found anew each time: moving a network puts others in their place.

    Args:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        self._slots = [
            (m._buffers, name) for m in net.modules() for name, held in m._buffers.items() if held is not None
        ]

    def now(self) -> list[Tensor]:
        """The tensors that are the buffers now."""
        return [cast(Tensor, held[name]) for held, name in self._slots]


class Guard:
    """Checks every optimizer step on the device.

    Before a step it remembers the network's buffers (a few kilobytes of batch-norm statistics); after the backward pass
    it asks whether loss, gradients and buffers are finite. If any of them is not, on any process, the gradients become
    0 and the buffers what they were, all on the device; with a gradient scaler, infinite gradients alone are its
    business. The host reads the flags one step late.

    Args:
        net: The network whose buffers are kept.
        parameters: What the optimizer trains.
        reduce: Sums a tensor over the processes.
        scaled: Whether a gradient scaler skips infinite gradients itself.
        clip: Largest gradient norm.
    """

    def __init__(
        self,
        net: nn.Module,
        parameters: Iterable[nn.Parameter],
        *,
        reduce: Callable[[Tensor], Tensor],
        scaled: bool = False,
        clip: float | None = None,
    ) -> None:
        self._buffers, self.parameters = Buffers(net), list(parameters)
        self.saved = [torch.empty_like(buffer) for buffer in self.buffers]
        self.reduce, self.scaled, self.clip = reduce, scaled, clip
        self._late: tuple[Tensor, torch.cuda.Event | None] | None = None

    @property
    def buffers(self) -> list[Tensor]:
        """The buffers as they are now."""
        return self._buffers.now()

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the buffers as they are before a step."""
        if self.saved:
            torch._foreach_copy_(self.saved, self.buffers)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def restore(self) -> None:
        """Give the buffers back what they were before the step."""
        if self.saved:
            torch._foreach_copy_(self.buffers, self.saved)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def check(self, loss: Tensor, received: int = 0) -> Flags | None:
        """Clip, check and where needed undo one step; gives the flags of the step before, if there was one.

        Args:
            loss: The step's loss, on the device.
            received: The signal that this process received, or 0.
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if self.clip is not None:
            clip_grads_with_norm_(self.parameters, self.clip, norm)
        buffers = self.buffers
        floating = [buffer for buffer in buffers if buffer.is_floating_point()]
        largest = torch.stack(torch._foreach_norm(floating, torch.inf)).sum() if floating else loss  # pyright: ignore[reportPrivateImportUsage]
        flags = (~torch.isfinite(torch.stack([loss.detach().float(), norm.float(), largest.float()]))).float()
        flags = nn.functional.pad(flags, (0, 2))
        if received:
            flags[3 if received == signal.SIGTERM else 4] = 1.0
        flags = self.reduce(flags)
        spoiled = (flags[0] + flags[2] if self.scaled else flags[:3].sum()) > 0
        if not self.scaled:
            for gradient in gradients:
                gradient.masked_fill_(spoiled, 0.0)
        for buffer, before in zip(buffers, self.saved, strict=True):
            torch.where(spoiled, before, buffer, out=buffer)
        return self._swap(flags)

    def flush(self) -> Flags | None:
        """The flags of the last step, which the host waits for."""
        return self._swap(None)

    def _swap(self, flags: Tensor | None) -> Flags | None:
        late, self._late = self._late, None
        if flags is not None:
            host, event = flags.to("cpu", non_blocking=True), None
            if flags.is_cuda:
                event = torch.cuda.Event()
                event.record()
            self._late = host, event
        if late is None:
            return None
        host, event = late
        if event is not None:
            event.synchronize()
        return Flags(*(value > 0 for value in host.tolist()))


class Judge:
    """Follows the flags of a run: tells a scaler's skipped steps from the end.

    Args:
        scaled: Whether a gradient scaler skips infinite gradients.
    """

    def __init__(self, scaled: bool) -> None:
        self.scaled = scaled
        self.skipped = self.in_a_row = self.signal = 0
        self._expected: deque[tuple[int, list[Any]]] = deque()

    def expect(self, step: int, samples: list[Any]) -> None:
        """A step's flags will come; they come in order."""
        self._expected.append((step, samples))

    def rule(self, flags: Flags | None, folder: RunFolder, process: int) -> None:
        """Take the flags of the oldest expected step, if they have come. All processes call it together.

        Args:
            flags: What was found.
            folder: Where the samples of every process are named, if the run must end.
            process: This one.

        Raises:
            NonFiniteError: It must.
        """
        if flags is None:
            return
        step, samples = self._expected.popleft()
        what = self.fault(flags)
        if what is None:
            return
        shares = gather_object([{"process": process, "samples": samples}])
        folder.write_json("nonfinite.json", {"step": step, "what": what, "processes": shares})
        raise NonFiniteError(
            f"the {what} is not finite",
            subject=f"step {step}, samples {samples}",
            found="NaN or infinity",
            hint="look at these samples, lower the learning rate, set train.clip, or train in fp32; "
            "the last checkpoint stands",
        )

    def fault(self, flags: Flags) -> str | None:
        """What is not finite and must end the run, or None; notes skipped steps and signals."""
        self.in_a_row = self.in_a_row + 1 if self.scaled and flags.gradient else 0
        self.skipped += self.in_a_row > 0
        self.signal = self.signal or flags.signal
        if flags.loss:
            return "loss"
        if flags.gradient and (not self.scaled or self.in_a_row >= SKIPS):
            return "gradient"
        return "state of batch norm" if flags.buffers else None


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
