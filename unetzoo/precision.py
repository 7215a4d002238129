"""Precision of a network's computations: float32, or bfloat16 if the hardware supports it natively.

Weights, batch norm statistics, losses, metrics and the optimizer's state are always float32; only matrix products and
convolutions of the forward and backward pass use the lower precision (`torch.autocast`).
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Literal, get_args

import torch
from torch import nn

from .errors import ConfigError, did_you_mean

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Below these, converting between dtypes costs more than it saves (benchmarks/precision.py).
SMALLEST_WORK = 2**15  # channels of the first convolution × pixels per batch
SMALLEST_WIDTH_WITHOUT_AMX = 64
ISAS_WITH_BF16 = ("DEFAULT", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")


def resolve(precision: Precision, net: nn.Module, device: torch.device | str, pixels: int) -> Precision:
    """Replace "auto" with the fastest precision for a network on a device.

    Args:
        precision: The requested precision. "auto" becomes bfloat16 if the device supports it natively and the network
            and its images are large enough to benefit, otherwise float32. Other values are returned unchanged.
        net: The network.
        device: Device on which the network runs.
        pixels: Number of pixels per batch.

    Returns:
        "fp32", "bf16" or "fp16".

    Raises:
        ConfigError: Unknown precision.

    Examples:
        >>> resolve("fp32", nn.Conv2d(3, 64, 3), "cpu", pixels=256**2)
        'fp32'
        >>> resolve("auto", nn.Conv2d(3, 4, 3), "cpu", pixels=32**2)
        'fp32'
    """
    if check_precision(precision) != "auto":
        return precision
    device = torch.device(device)
    return "bf16" if _multiplies_bf16(device) and _gains(net, device, pixels) else "fp32"


def _gains(net: nn.Module, device: torch.device, pixels: int) -> bool:
    if device.type == "cuda":
        return True
    width = next((module.out_channels for module in net.modules() if isinstance(module, nn.Conv2d)), 0)
    wide_enough = bf16_units() == "amx" or width >= SMALLEST_WIDTH_WITHOUT_AMX
    return wide_enough and width * pixels >= SMALLEST_WORK


def check_precision(precision: Any) -> Precision:
    """Check that a precision exists, and return it.

    Raises:
        ConfigError: Unknown precision.
    """
    if precision not in get_args(Precision):
        raise ConfigError(
            f"unknown precision {precision!r}", hint=did_you_mean(str(precision), get_args(Precision), "precision")
        )
    return precision


def supported(precision: Precision, device: torch.device | str) -> Precision:
    """Return a precision if the device supports it natively, otherwise "fp32".

    Args:
        precision: "fp32", "bf16" or "fp16".
        device: Device on which the network will run.

    Examples:
        >>> supported("fp16", "cpu")
        'fp32'
    """
    device = torch.device(device)
    native = {"bf16": _multiplies_bf16(device), "fp16": device.type == "cuda"}
    return precision if native.get(precision, True) else "fp32"


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bf16_units() is not None


def bf16_units() -> Literal["amx", "avx512"] | None:
    """Return which instructions of this processor multiply bfloat16: AMX, AVX512-BF16, or None.

    The processor and oneDNN must support them, and `ONEDNN_MAX_CPU_ISA` must not disable them.

    Examples:
        >>> bf16_units() in ("amx", "avx512", None)
        True
    """
    isa = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT").upper()
    amx_allowed = isa in ("DEFAULT", "ALL") or "AMX" in isa
    allowed = amx_allowed or isa in ISAS_WITH_BF16
    if not (allowed and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return None
    if amx_allowed and torch.cpu._is_amx_tile_supported():
        return "amx"
    return "avx512" if torch.cpu._is_avx512_bf16_supported() else None


def autocast(device: torch.device | str, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Return a context manager that runs a network in a resolved precision; a no-op for "fp32".

    Args:
        device: Device on which the network runs.
        precision: "fp32", "bf16" or "fp16".
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=DTYPES[precision])
