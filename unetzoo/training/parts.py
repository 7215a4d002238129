"""What a Trainer is made of, checked and made ready."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from ..errors import ConfigError
from .settings import Settings


def join_processes(net: nn.Module) -> Accelerator:
    """The processes that train a network together, or the only one."""
    unused = getattr(net, "classification_head", None) is not None
    accelerator = Accelerator(
        mixed_precision="no",
        cpu=not torch.accelerator.is_available(),  # unless told, accelerate joins no processes there
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
    )
    if accelerator.num_processes > 1:
        atexit.register(accelerator.state.destroy_process_group)
    return accelerator


def by_head(metrics: Any) -> dict[str, Any]:
    """Metrics by head; a single one is the mask's."""
    table = metrics if isinstance(metrics, Mapping) else {"mask": metrics}
    return {head: metric for head, metric in table.items() if metric is not None}


def make_ready(net: nn.Module, settings: Settings, device: torch.device, world: int) -> nn.Module:
    """A network on its device, in its memory layout, with batch norm over processes where asked for.

    Raises:
        ConfigError: Settings that the network or the device cannot follow.
    """
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
    net = net.to(device)
    return net.to(memory_format=torch.channels_last) if settings.channels_last else net  # pyright: ignore


def check_trained(objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Check that the optimizer trains the network, and the loss's own parameters.

    Raises:
        ConfigError: It does not, or there is nothing to train.
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
            expected="parameters of the network that the Trainer is given",
            found="none of them",
            hint="make it from this network: make_optimizer(net, 'adamw')",
        )
    if missing and all(name.startswith("loss.") for name in missing):
        raise ConfigError(
            "the loss has parameters of its own that nobody trains",
            subject="optimizer",
            found=", ".join(missing[:3]),
            hint="give the optimizer the loss's parameters too, e.g. make_optimizer(net, 'adamw', loss=loss)",
        )


def check_activation(net: nn.Module) -> None:
    """Refuse a network that answers probabilities where logits are scored.

    Raises:
        ConfigError: It has an output activation.
    """
    config = getattr(net, "config", None)
    activation = config.get("activation") if isinstance(config, Mapping) else None
    if activation not in (None, "identity"):
        raise ConfigError(
            "scores are computed from logits",
            expected="a network without output activation",
            found=f"activation={activation!r}",
            hint="leave activation out; the losses and metrics apply it themselves",
        )
