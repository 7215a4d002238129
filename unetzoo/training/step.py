"""One optimizer step: forward, backward, finite check, clipping, optimizer, moving average.

A step is taken as a whole or not at all. When memory runs out, buffers and random states are restored and the batches
are processed again in smaller parts. A step that is not finite is undone on the device before the optimizer sees it.
The host reads the flags one step later and never waits for the device.
"""

from __future__ import annotations

import contextlib
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..errors import ConfigError, NonFiniteError
from ..modules import evaluation_mode, is_out_of_memory
from . import memory, rng
from .batches import Batch
from .evaluate import Objective
from .state import Buffers, TrainState

SKIPS = 25  # after this many skipped steps in a row, the scale is not the cause of infinite gradients


class Flags(NamedTuple):
    """Flags of one optimizer step, combined over all processes."""

    loss: bool
    gradient: bool
    buffers: bool
    sigterm: bool
    sigint: bool

    @property
    def signal(self) -> int:
        """The signal that any process received, or 0."""
        return signal.SIGTERM if self.sigterm else signal.SIGINT if self.sigint else 0


class TrainStep:
    """Takes one optimizer step over a group of batches.

    Args:
        objective: Network and loss.
        state: The state that a step changes.
        accelerator: The processes.
        ready: Moves a batch to the device and applies its transform.
        reduce: Sums a tensor over the processes.
        clip: Maximum gradient norm.
        say: Called with a message when batches are split further.
    """

    def __init__(
        self,
        objective: Objective,
        state: TrainState,
        accelerator: Accelerator,
        *,
        ready: Callable[[Batch], Batch],
        reduce: Callable[[Tensor], Tensor],
        clip: float | None = None,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.objective, self.state, self.accelerator = objective, state, accelerator
        self.ready, self.reduce, self.clip, self.say = ready, reduce, clip, say
        self.several = accelerator.num_processes > 1
        self.model: nn.Module = objective  # wrapped in DistributedDataParallel if there are several processes
        self.parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        self.buffers = Buffers(objective)
        self._saved = [torch.empty_like(buffer) for buffer in self.buffers.now()]
        self._late: tuple[Tensor, torch.cuda.Event | None] | None = None
        self._frozen: bool | None = None

    def __call__(self, group: Sequence[Batch], received: int = 0) -> Flags | None:
        """Take a step and return the flags of the previous step, if there was one.

        Args:
            group: Batches from the loader; gradients are averaged over their samples.
            received: The signal that this process received, or 0.

        Raises:
            MemoryExhaustedError: Memory runs out even with smaller parts.
        """
        state = self.state
        sums, samples = self._gradients(group)
        state.scaler.unscale_(state.optimizer)
        flags = self._check(sums[0] / samples, received)
        with state.schedule.rates(state.steps):
            state.scaler.step(state.optimizer)
        state.scaler.update()
        state.steps += 1
        if state.ema is not None:
            state.ema.update(state.steps)
        state.sums = sums if state.sums is None else state.sums + sums
        return flags

    def begin_epoch(self, frozen: bool | None, example: Callable[[], Batch]) -> None:
        """Set training mode, freeze or unfreeze the encoder, and wrap the objective for several processes.

        Args:
            frozen: Whether the encoder is frozen; None leaves it unchanged.
            example: Returns a batch.
        """
        if frozen is not None and frozen != self._frozen:
            net = cast(Any, self.objective.net)
            (net.freeze_encoder if frozen else net.unfreeze_encoder)()
            self._frozen = frozen
            self.close()  # the wrapper fixes which gradients are summed
        if self.several and self.model is self.objective:
            self._join(example)
        self.objective.train()

    def flush(self) -> Flags | None:
        """Wait for the flags of the last step and return them."""
        return self._swap(None)

    def close(self) -> None:
        """Drop the wrapper, which holds the process group, whose threads abort the interpreter at exit."""
        wrapped, self.model = self.model is not self.objective, self.objective
        if wrapped:
            self.accelerator.free_memory()  # otherwise it keeps the wrapper

    def _join(self, example: Callable[[], Batch]) -> None:
        """Wrap the objective, and run one backward pass to fix the order of summation of DistributedDataParallel.

        Sums of floats depend on their order, so a resumed run must start with the same one.
        """
        held = rng.take()
        with evaluation_mode(self.objective):
            batch = example()
            self._backward_once(self.objective, batch)
            unused = [n for n, p in self.objective.named_parameters() if p.requires_grad and p.grad is None]
            if unused and not self.accelerator.ddp_handler.find_unused_parameters:  # pyright: ignore
                raise ConfigError(
                    "parameters without a gradient, which several processes cannot average",
                    subject="the network",
                    found=", ".join(unused[:3]),
                    hint="freeze them (requires_grad_(False)), or set find_unused_parameters=true ([train])",
                )
            self.model = self.accelerator.prepare_model(self.objective)
            self._backward_once(self.model, batch)
        rng.give(held)

    def _backward_once(self, model: nn.Module, batch: Batch) -> None:
        self.objective.zero_grad(set_to_none=True)
        torch.stack(list(model(batch).values())).sum().backward()

    def _gradients(self, group: Sequence[Batch]) -> tuple[Tensor, int]:
        """Compute gradients of the mean over a group's samples; return the summed terms and the sample count."""
        self._remember()
        held = rng.take()
        while True:
            self.state.optimizer.zero_grad(set_to_none=True)
            try:
                return self._backward(group)
            except (RuntimeError, ValueError) as error:
                failure = str(error)  # keeping the error itself would keep its memory
                self._restore()
                if not is_out_of_memory(error):
                    if self.state.micro_batches > 1 and memory.ONE_VALUE in failure:
                        raise memory.exhausted("training", failure, memory.SMALLER) from None
                    raise
            self.state.micro_batches, message = memory.smaller_parts(
                self.state.micro_batches, len(group[0]["image"]), failure, several=self.several
            )
            self.say(message)
            rng.give(held)

    def _backward(self, group: Sequence[Batch]) -> tuple[Tensor, int]:
        samples, sums = sum(len(batch["image"]) for batch in group), None
        for place, batch in enumerate(group, start=1):
            parts = memory.cut(self.ready(batch), self.state.micro_batches)
            for number, part in enumerate(parts, start=1):
                last = place == len(group) and number == len(parts)
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                    terms = self.model(part)
                    values, share = torch.stack(list(terms.values())), len(part["image"])
                    total = values.sum()
                    self.state.scaler.scale(total if share == samples else total * (share / samples)).backward()
                self.state.term_names = list(terms)
                seen = memory.wide(torch.cat([total[None], values])) * share
                sums = seen if sums is None else sums + seen
        return cast(Tensor, sums), samples

    @torch.no_grad()
    def _remember(self) -> None:
        """Save the buffers (a few kilobytes of batch norm statistics) before a step."""
        if self._saved:
            torch._foreach_copy_(self._saved, self.buffers.now())  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def _restore(self) -> None:
        if self._saved:
            torch._foreach_copy_(self.buffers.now(), self._saved)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def _check(self, loss: Tensor, received: int = 0) -> Flags | None:
        """Clip the gradients, and undo the step on the device if loss, gradients or buffers are not finite.

        On all processes, gradients are set to 0 and buffers are restored. A gradient scaler, if there is one, handles
        infinite gradients itself. Returns the flags of the previous step.
        """
        scaled = self.state.scaler.is_enabled()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if self.clip is not None:
            clip_grads_with_norm_(self.parameters, self.clip, norm)
        buffers = self.buffers.now()
        floating = [buffer for buffer in buffers if buffer.is_floating_point()]
        largest = torch.stack(torch._foreach_norm(floating, torch.inf)).sum() if floating else loss  # pyright: ignore[reportPrivateImportUsage]
        flags = (~torch.isfinite(torch.stack([loss.detach().float(), norm.float(), largest.float()]))).float()
        flags = nn.functional.pad(flags, (0, 2))
        if received:
            flags[3 if received == signal.SIGTERM else 4] = 1.0
        flags = self.reduce(flags)
        spoiled = (flags[0] + flags[2] if scaled else flags[:3].sum()) > 0
        if not scaled:
            for gradient in gradients:
                gradient.masked_fill_(spoiled, 0.0)
        for buffer, before in zip(buffers, self._saved, strict=True):
            torch.where(spoiled, before, buffer, out=buffer)
        return self._swap(flags)

    def _swap(self, flags: Tensor | None) -> Flags | None:
        """Send flags to the host without waiting, and read those sent before."""
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


class NonFiniteMonitor:
    """Reads the flags of a run and ends it if something is not finite, except for steps skipped by a scaler.

    Args:
        state: The state, which counts skipped steps.
        write: Writes a JSON file into the run folder.
        process: The index of this process.
    """

    def __init__(self, state: TrainState, write: Callable[[str, Any], None], process: int = 0) -> None:
        self.state, self.write, self.process = state, write, process
        self.signal = 0
        self._expected: deque[tuple[int, list[Any]]] = deque()

    def expect(self, step: int, samples: list[Any]) -> None:
        """Register a step whose flags will be read later. Flags arrive in the order of their steps."""
        self._expected.append((step, samples))

    def read(self, flags: Flags | None) -> None:
        """Process the flags of the oldest expected step, if they have arrived. All processes must call it together.

        Raises:
            NonFiniteError: The run must end. `nonfinite.json` names the samples of every process.
        """
        if flags is None:
            return
        step, samples = self._expected.popleft()
        what = self.fault(flags)
        if what is None:
            return
        shares = gather_object([{"process": self.process, "samples": samples}])
        self.write("nonfinite.json", {"step": step, "what": what, "processes": shares})
        raise NonFiniteError(
            f"the {what} is not finite",
            subject=f"step {step}, samples {samples}",
            found="NaN or infinity",
            hint="check these samples, lower the learning rate, set train.clip, or train in fp32; "
            "the last checkpoint is kept",
        )

    def fault(self, flags: Flags) -> str | None:
        """Return the non-finite quantity that must end the run, or None. Count skipped steps and keep signals."""
        state, scaled = self.state, self.state.scaler.is_enabled()
        state.skipped_in_a_row = state.skipped_in_a_row + 1 if scaled and flags.gradient else 0
        state.skipped += state.skipped_in_a_row > 0
        self.signal = self.signal or flags.signal
        if flags.loss:
            return "loss"
        if flags.gradient and (not scaled or state.skipped_in_a_row >= SKIPS):
            return "gradient"
        return "state of batch norm" if flags.buffers else None
