"""Check and prepare the parts of a Trainer: processes, network, optimizer, metrics."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn

from ..bundle import ModelBundle
from ..errors import ConfigError
from ..modules import is_out_of_memory, module_mode
from ..precision import Precision, resolve, supported
from ..wording import pluralize
from . import memory
from .batches import Batch
from .evaluate import Objective, as_config_error
from .schedule import Plan
from .settings import Settings
from .state import Buffers


def join_processes(net: nn.Module, settings: Settings) -> Accelerator:
    """Connect the processes that train a network together, if there are several."""
    unused = settings.find_unused_parameters or getattr(net, "classification_head", None) is not None
    accelerator = Accelerator(
        mixed_precision="no",
        cpu=not torch.accelerator.is_available(),  # otherwise accelerate does not connect processes on a CPU
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
    )
    if accelerator.num_processes > 1:
        atexit.register(accelerator.state.destroy_process_group)
    return accelerator


def make_ready(net: nn.Module, settings: Settings, device: torch.device, world: int) -> nn.Module:
    """Move a network to its device, and synchronize batch norm across processes if the settings require it.

    Raises:
        ConfigError: The network or the device does not support a setting, or the weights are not in float32.
    """
    wrong = next((p.dtype for p in net.parameters() if p.is_floating_point() and p.dtype != torch.float32), None)
    if wrong is not None:
        raise ConfigError(
            "the network's weights are not in float32",
            subject="net",
            found=wrong,
            hint="net.float(); train.precision=bf16 computes in half precision with weights in float32",
        )
    if torch.is_inference_mode_enabled() or any(parameter.is_inference() for parameter in net.parameters()):
        raise ConfigError(
            "tensors of torch.inference_mode() cannot be trained",
            subject="net",
            hint="build network and Trainer outside of torch.inference_mode()",
        )
    if torch.get_default_device().type not in ("cpu", device.type):
        raise ConfigError(
            "torch's default device differs from that of the network",
            subject="torch.set_default_device",
            expected="cpu",
            found=torch.get_default_device(),
            hint='torch.set_default_device("cpu"); the Trainer places network and batches itself',
        )
    if settings.precision == "fp16" and device.type == "cpu":
        raise ConfigError(
            "fp16 needs a GPU", subject="precision", expected="fp32 or bf16 on a CPU", hint="--set train.precision=bf16"
        )
    if settings.sync_bn and device.type == "cpu":
        raise ConfigError("sync_bn needs GPUs", subject="sync_bn", found="a CPU", hint="--set train.sync_bn=false")
    if settings.freeze_encoder and not hasattr(net, "freeze_encoder"):
        raise ConfigError(
            "the network cannot freeze its encoder",
            subject="freeze_encoder",
            expected="a network with freeze_encoder and unfreeze_encoder",
            found=type(net).__name__,
            hint="leave freeze_encoder out",
        )
    if settings.sync_bn and world > 1:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return net.to(device)


def check_parts(net: Any, loss: Any, optimizer: Any, scheduler: Any, callbacks: Any, *, scored: bool) -> None:
    """Check that the parts of a Trainer are objects of the right kind, not names, classes or functions.

    Args:
        net: The network.
        loss: The loss.
        optimizer: The optimizer.
        scheduler: The scheduler.
        callbacks: The callbacks.
        scored: Whether there are metrics, which compute scores from logits.

    Raises:
        ConfigError: A part is of the wrong kind, or a network with an output activation is to be scored.
    """
    rates = scheduler is None or (hasattr(scheduler, "state_dict") and not isinstance(scheduler, type))
    several = isinstance(callbacks, Sequence) and all(hasattr(one, "on_begin") for one in callbacks)
    is_optimizer = isinstance(optimizer, torch.optim.Optimizer | None)
    for name, value, fits, expected, hint in (
        ("net", net, isinstance(net, nn.Module), "an nn.Module", 'unetzoo.build("bnunet")'),
        (
            "optimizer",
            optimizer,
            is_optimizer,
            "a torch.optim.Optimizer",
            'unetzoo.training.make_optimizer(net, "adamw")',
        ),
        ("scheduler", scheduler, rates, "a Schedule or a scheduler of torch", 'unetzoo.training.Schedule("cosine")'),
        ("callbacks", callbacks, several, "a list of Callback objects", "callbacks=[MyCallback()]"),
        ("loss", loss, not isinstance(loss, type), "a loss, not its class", "call it: CrossEntropyLoss()"),
    ):
        if not fits:
            raise ConfigError(f"wrong {name}", subject="Trainer", expected=expected, found=value, hint=hint)
    config = getattr(net, "config", None)
    activation = config.get("activation") if isinstance(config, Mapping) else None
    if scored and activation not in (None, "identity"):
        raise ConfigError(
            "scores are computed from logits",
            subject="net",
            expected="a network without output activation",
            found=f"activation={activation!r}",
            hint="leave activation out; the losses and metrics apply it themselves",
        )


def fastest_precision(net: nn.Module, device: torch.device, batch_size: int, images: Tensor) -> Precision:
    """Return the fastest precision for batches of these images if all processes agree on it, else "fp32"."""
    chosen = gather_object([resolve("auto", net, device, batch_size * images[0, 0].numel())])
    return chosen[0] if len(set(chosen)) == 1 else "fp32"


def trained_precision(net: nn.Module, device: torch.device) -> Precision | None:
    """Return the precision a network was trained in, if the device supports it; None if unknown."""
    precision = ModelBundle.of(net).precision
    return None if precision is None else supported(precision, device)


def check_trained(objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Check that the optimizer trains the parameters of the network and of the loss.

    Raises:
        ConfigError: The optimizer does not, or there is nothing to train.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    if not trainable:
        raise ConfigError("nothing to train", subject="the network", found="only frozen parameters")
    missing = [name for name, p in trainable.items() if id(p) not in held]
    if len(missing) == len(trainable):
        raise ConfigError(
            "the optimizer trains another network",
            subject="optimizer",
            expected="parameters of the Trainer's network",
            found="none of them",
            hint="make it from this network: make_optimizer(net, 'adamw')",
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ConfigError(
            "SparseAdam takes sparse gradients only, and those of convolutions are dense",
            subject="optimizer",
            hint="make_optimizer(net, 'adam')",
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError(
            "LBFGS evaluates the loss several times per step, which the Trainer does not",
            subject="optimizer",
            hint="use a first-order optimizer, e.g. make_optimizer(net, 'adamw')",
        )
    if missing and all(name.startswith("loss.") for name in missing):
        raise ConfigError(
            "the loss has parameters that are not trained",
            subject="optimizer",
            found=", ".join(missing[:3]),
            hint="give the optimizer the loss's parameters too, e.g. make_optimizer(net, 'adamw', loss=loss)",
        )


def rehearse(objective: Objective, stages: Sequence[Callable[[int], Batch]], plan: Plan, buffers: Buffers) -> list[str]:
    """Run a few training samples of every stage through network and loss in training mode, without a step.

    This finds parts that do not fit together before training starts. Buffers are restored. Random states are left to
    the caller.

    Args:
        objective: Network and loss.
        stages: One function per stage, which returns a batch of the given number of samples.
        plan: The plan of the run, for the size of the smallest batch of a stage.
        buffers: The buffers of the objective.

    Returns:
        The names of the training scores.

    Raises:
        ConfigError: A norm layer cannot be trained on so few samples.
        UnetzooError: Something else does not fit.
    """

    def terms(first: Callable[[int], Batch], samples: int, *, training: bool) -> list[str]:
        batch = first(samples)
        with module_mode(objective, training=training), torch.no_grad(), buffers.kept():
            with objective.autocast(batch["image"]), as_config_error("the network", batch):
                output = objective.net(batch["image"])
            with as_config_error("the loss", batch, output):
                return list(objective.terms(output, batch))

    names: list[str] = []
    for stage, first in enumerate(stages):
        samples = min(2, plan.smallest_batch(stage))
        try:
            names = terms(first, samples, training=True)
        except (RuntimeError, ValueError) as error:
            if memory.ONE_VALUE in str(error):
                raise ConfigError(
                    "a norm cannot be trained on a single sample of 1×1",
                    subject="the smallest batch of an epoch",
                    expected="two samples or more, or larger images",
                    found=f"{pluralize(samples, 'sample')}: {error}",
                    hint="--set train.drop_last=true, or a batch size that does not leave a single sample"
                    if plan.has_larger_batches(stage)
                    else "at least two samples, and --set train.batch_size=2 or more",
                ) from error
            if not is_out_of_memory(error):
                raise
            names = []
        names = names or terms(first, 1, training=False)  # the step itself will split the batch into smaller parts
    return ["train/loss", *(f"train/{name}" for name in names)]
