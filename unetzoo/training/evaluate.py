"""Score a dataset with the predictions of `unetzoo.predict`, each sample once, on whole images or exact tiles."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from .. import recompute
from ..errors import ConfigError, DataError, SizeMismatchError, UnetzooError
from ..heads import as_float, extra_planes, get_head, heads_of
from ..inference import predict_batch
from ..modules import evaluation_mode, is_out_of_memory
from ..precision import Precision, autocast
from ..registry import keywords
from . import memory
from .batches import Batch, ready
from .data import Loader
from .metrics import due

Seen = Callable[[Any, Batch], None]
T = TypeVar("T")
TARGETS = ("mask", "instances", "depth", "valid", "weight")


class Objective(nn.Module):
    """Network and loss as one module, so that the gradients of both are averaged across processes.

    Args:
        net: The network.
        loss: `loss(output, target, *, weight=None)`, or one with `terms(output, batch) -> dict`.
        precision: Precision of the network's forward pass: "fp32", "bf16" or "fp16". Losses are computed in float32.
        channels_last: Keep weights and images in this memory layout.
        compile: Compile the network's forward pass for training.
        save_memory: Recompute cheap feature maps in the backward pass, unless the network is compiled.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Callable[..., Any],
        *,
        precision: Precision = "fp32",
        channels_last: bool = False,
        compile: bool = False,
        save_memory: bool = False,
    ) -> None:
        super().__init__()
        self._saving = recompute.save_memory if save_memory and not compile else contextlib.nullcontext
        self.net, self.loss = net, loss
        self.precision: Precision = precision
        self._automatic, self._channels_last = precision == "auto", channels_last
        self.compute_in(precision)
        self._forward: Callable[[Tensor], Any] = torch.compile(net.forward) if compile else net

    def compute_in(self, precision: Precision) -> None:
        """Set the precision. If "auto" resolved to bf16, also use channels_last, in which bf16 is fast."""
        self.precision = precision
        self.channels_last = self._channels_last or (self._automatic and precision == "bf16")
        if self.channels_last:
            self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def autocast(self, images: Tensor) -> contextlib.AbstractContextManager[Any]:
        """The context in which the network runs."""
        return autocast(images.device, self.precision)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return all weighted terms of the loss."""
        with self.autocast(batch["image"]), self._saving():
            output = (self._forward if self.training else self.net)(batch["image"])
        return self.terms(output, batch)

    def fitted(self, output: Any, batch: Batch) -> tuple[Any, Batch]:
        """Return an output in float32 without its classification head, and the targets on its grid."""
        output = as_float(output)
        return output, fit_targets(batch, heads_of(output)["mask"], getattr(self.net, "geometry", None))

    def terms(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss for an output of the network.

        Raises:
            DataError: The samples have no mask.
            ConfigError: The loss is not a scalar, or has no gradient.
        """
        output, batch = self.fitted(output, batch)
        if (compute := getattr(self.loss, "terms", None)) is not None:
            terms = compute(output, batch)
        elif "mask" not in batch:
            raise DataError("samples have no mask", found=sorted(batch), hint="use a dataset with 'mask'")
        else:
            given = {name: batch[name] for name in extra_planes(self.loss) if name in batch}
            terms = {"loss": self.loss(heads_of(output)["mask"], batch["mask"], **given)}
        for name, term in terms.items():
            if not isinstance(term, Tensor) or term.ndim:
                found = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
                raise ConfigError(
                    "the loss is not a number", subject=name, expected="a scalar tensor", found=found,
                    hint='reduce it, e.g. reduction="mean"',
                )  # fmt: skip
        if torch.is_grad_enabled() and not any(term.requires_grad for term in terms.values()):
            hint = "compute it from the network's output, without detach(), item() or argmax"
            raise ConfigError("the loss has no gradient", subject=", ".join(terms), hint=hint)
        return terms


@contextlib.contextmanager
def as_config_error(what: str, batch: Batch, output: Any = None) -> Iterator[None]:
    """Turn errors of torch or of user code into a ConfigError that describes the samples.

    Out-of-memory errors and errors of norm layers over a single value are left to the caller.

    Args:
        what: Name of what processes the samples, for the message.
        batch: The samples.
        output: The output of the network for them.

    Raises:
        ConfigError: In place of any error other than an UnetzooError.
    """
    try:
        yield
    except UnetzooError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or memory.ONE_VALUE in str(error):
            raise
        tensors = {**({} if output is None else {"output": output}), **batch}
        shown = (f"{name} {tuple(t.shape)} {t.dtype}" for name, t in tensors.items() if isinstance(t, Tensor))
        raise ConfigError(
            f"{what} cannot process the samples",
            subject=", ".join(shown),
            found=f"{type(error).__name__}: {error}",
            hint="check that channels, classes, sizes and dtypes of data, network and loss match",
        ) from error


def fit_targets(batch: Batch, output: Tensor, geometry: Any) -> Batch:
    """Return the batch with its targets on the output's grid.

    Targets are cropped to the center for a smaller output, and reduced to every n-th pixel for a coarser one.

    Raises:
        SizeMismatchError: The output is larger than the target.
    """
    step = geometry.out_stride if geometry is not None else 1
    rows, columns = output.shape[-2] * step, output.shape[-1] * step

    def fit(target: Tensor) -> Tensor:
        top, left = (target.shape[-2] - rows) // 2, (target.shape[-1] - columns) // 2
        if top < 0 or left < 0:
            raise SizeMismatchError(
                "the output is larger than its target",
                expected=f"at most {tuple(target.shape[-2:])}",
                found=(rows, columns),
            )
        return target[..., top : top + rows : step, left : left + columns : step]

    return {key: fit(value) if key in TARGETS else value for key, value in batch.items()}


class Evaluator:
    """Scores a network on each process's share of a dataset and combines the results across processes.

    Args:
        objective: Network and loss; the loss is reported.
        metrics: A metric for each head.
        accelerator: The processes.
        loader: Returns a loader for this process's share of a dataset.
        tile: Evaluate in exact tiles of this size.
        between: Called before every batch; an exception ends the evaluation.
    """

    def __init__(
        self,
        objective: Objective,
        metrics: Mapping[str, Any],
        accelerator: Accelerator,
        loader: Callable[[Any], Loader],
        *,
        tile: int | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.objective, self.metrics, self.accelerator, self.loader = objective, metrics, accelerator, loader
        self.tile, self.between = tile, between
        self.parts = 1

    def scores(self, net: nn.Module, dataset: Any, seen: Seen | None = None, *, split: str = "val") -> dict[str, float]:
        """Return the loss terms as `<split>/<term>`, and the scores of each metric (see `Trainer.evaluate`).

        Args:
            net: The network.
            dataset: The dataset.
            seen: Called with every scored (output, batch), with targets on the output's grid.
            split: Name of the data, used as prefix of the loss.
        """
        # the statistics of batch norm differ between processes
        for buffer in net.buffers() if self.accelerator.num_processes > 1 else ():
            broadcast(buffer)
        sums = self._count(net, self._batches(dataset), seen)
        totals: Counter[str] = Counter()
        for share in gather_object([{name: float(value) for name, value in sums.items()}]):  # one may have no samples
            totals.update(share)
        row = {f"{split}/{name}": total / len(dataset) for name, total in totals.items()}
        row[f"{split}/loss"] = sum(totals.values()) / len(dataset)
        for name, metric in self.metrics.items():
            if self.accelerator.num_processes > 1 and hasattr(metric, "state"):  # torchmetrics combines its own
                metric.load_state({part: self._summed(value) for part, value in metric.state().items()})
            row |= self._named(name, metric.compute())
        return row

    def names(self, net: nn.Module, batch: Batch) -> list[str]:
        """Return the names of the scores by scoring one batch, which also checks that the parts fit together.

        Raises:
            UnetzooError: The parts do not fit together.
        """
        with as_config_error("validation", batch):
            row = [f"val/{name}" for name in self._count(net, [batch])] + ["val/loss"]
            for name, metric in self.metrics.items():
                metric.compute()
                with due({name: metric}, 1, 0):  # only those of every epoch can be monitored
                    row += self._named(name, metric.compute())
                metric.reset()
        return row

    def outputs(self, net: nn.Module, dataset: Any) -> Iterator[tuple[Batch, Any]]:
        """Yield (batch, output) pairs in evaluation mode; the network's modes are restored afterwards."""
        with evaluation_mode(net):
            for batch in self._batches(dataset):
                yield from self._in_parts(batch, lambda part: (part, self._predict(net, part["image"])))

    def _count(self, net: nn.Module, batches: Iterable[Batch], seen: Seen | None = None) -> dict[str, Tensor]:
        """Update the metrics and return each term of the loss, summed over samples."""
        sums: dict[str, Tensor] = {}

        def score(part: Batch) -> tuple[int, dict[str, Tensor]]:
            output = self._predict(net, part["image"])
            terms = self.objective.terms(output, part)
            output, part = self.objective.fitted(output, part)
            self._update_metrics(output, part)
            if seen is not None:
                seen(output, part)
            return len(part["image"]), terms

        for metric in self.metrics.values():
            metric.reset()
        with evaluation_mode(net), torch.inference_mode():
            for batch in batches:
                for samples, terms in self._in_parts(batch, score):
                    for name, value in terms.items():
                        sums[name] = sums.get(name, 0.0) + memory.wide(value) * samples
        return sums

    def _batches(self, dataset: Any) -> Iterator[Batch]:
        for batches in self.loader(dataset):
            for batch in batches:
                self.between()
                yield ready(batch, self.accelerator.device)

    def _in_parts(self, batch: Batch, work: Callable[[Batch], T]) -> Iterator[T]:
        """Process a batch, in smaller parts if memory runs out."""
        waiting = memory.cut(batch, self.parts)
        while waiting:
            part = waiting.pop(0)
            held = {name: metric.state() for name, metric in self.metrics.items() if hasattr(metric, "state")}
            try:
                with torch.inference_mode():
                    done = work(part)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if len(part["image"]) == 1:
                    hint = "evaluate in tiles: train.tile=512" if self.tile is None else "lower train.tile"
                    raise memory.exhausted("evaluation, at one image", error, hint) from None
            else:
                yield done
                continue
            memory.free()
            for name, state in held.items():
                self.metrics[name].load_state(state)
            self.parts = max(self.parts, 2 * -(-len(batch["image"]) // len(part["image"])))
            waiting[:0] = memory.cut(part, 2)

    def _predict(self, net: nn.Module, images: Tensor) -> Any:
        """Return the outputs of `unetzoo.predict` for each image, as a batch."""
        with self.objective.autocast(images):
            return predict_batch(net, images, tile=self.tile)

    def _update_metrics(self, output: Any, batch: Batch) -> None:
        for name, metric in self.metrics.items():
            logits = get_head(output, name, "a metric")
            if name not in batch:
                raise DataError(
                    f"samples have no {name}",
                    subject=f"metrics.{name}",
                    found=sorted(batch),
                    hint="remove the metric",
                )
            planes = {"weight": "valid"} if name == "depth" else {"instances": "instances"} if name == "mask" else {}
            taken = keywords(metric.update)
            given = {word: batch[plane] for word, plane in planes.items() if plane in batch and word in taken}
            metric.update(logits, batch[name], **given)

    def _named(self, name: str, scores: Mapping[str, float]) -> dict[str, float]:
        return {score if name == "mask" else f"{name}/{score}": value for score, value in scores.items()}

    def _summed(self, part: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(part.to(self.accelerator.device), "sum"))
