"""What any `nn.Module` may need: its mode held for a while, and errors that mean exhausted memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# As torch's CPU allocator, CUDA and its libraries, Triton and oneDNN word it.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "ALLOC_FAILED",
    "CUDA error: out of memory",
    "[CUDA]: out of memory",
    "can't allocate memory",
    "could not allocate",
    "could not create a primitive",
)


@contextmanager
def module_mode(net: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside the block; afterwards every submodule has its own mode again."""
    modes = [(module, module.training) for module in net.modules()]
    net.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def evaluation_mode(net: nn.Module):
    """Evaluation mode inside the block; afterwards every submodule has its own mode again.

    Examples:
        >>> net = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluation_mode(net):
        ...     [module.training for module in net]
        [False, False]
        >>> [module.training for module in net]
        [True, False]
    """
    return module_mode(net, training=False)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device, or the host, has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, none of which shares memory with another: what safetensors can hold.

    Tied weights are there under each of their names.

    Examples:
        >>> tied = torch.zeros(2)
        >>> copies = unshared({"a": tied, "b": tied})
        >>> [copy.data_ptr() == tied.data_ptr() for copy in copies.values()]
        [True, False]
    """
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()  # other memory formats are refused
        address = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return plain
