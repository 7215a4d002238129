"""The environment of a run: versions and machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from .._version import __version__
from ..precision import Precision

PACKAGES = ("numpy", "accelerate", "albumentations", "kornia", "segmentation-models-pytorch", "timm")


def environment(
    net: nn.Module, device: torch.device, processes: int = 1, precision: Precision = "fp32"
) -> dict[str, Any]:
    """Return versions and machine as JSON-serializable values.

    Args:
        net: The network, whose parameters are counted.
        device: The device the network is trained on.
        processes: Number of training processes.
        precision: The precision the network computes in.

    Examples:
        >>> environment(nn.Linear(1, 1), torch.device("cpu"))["device"]
        'cpu'
    """
    cuda = device.type == "cuda"
    facts: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "unetzoo": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "precision": precision,
        "device": f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}" if cuda else device.type,
        "cpu": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "system": platform.platform(),
    }
    return facts | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
