"""`batch_size = "auto"`: as many samples as fill the processor, within the free memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from ..errors import MemoryExhaustedError
from ..inference.windows import geometry_of
from ..registry import MODELS
from .data import first_batch
from .recipe import Recipe, load, saved_recipe
from .sections import build_component

PIXELS = {"cpu": 2**17, "cuda": 2**20}  # of a batch that fills the processor
FEWEST, MOST = 4, 32
SHARE = 0.4  # of the free memory
MEASURED = 128  # pixels along a side; what is kept for the backward pass is proportional to the area
PER_PARAMETER = 16  # bytes of weight, gradient and two moments


def with_batch_size(recipe: Recipe, folder: Path, data: Callable[[], Any], *, resume: bool) -> Recipe:
    """The recipe with a number in place of `batch_size = "auto"`; a resumed run keeps the number that it began with.

    Args:
        recipe: The recipe.
        folder: The run folder.
        data: Returns the training data, with its transform.
        resume: Whether the run in the folder goes on.

    Raises:
        MemoryExhaustedError: Not even one sample fits into memory.
    """
    if recipe.train.batch_size != "auto":
        return recipe
    if resume and (folder / "recipe.json").exists():
        return load(recipe, [f"train.batch_size={saved_recipe(folder)['train']['batch_size']}"])
    dataset = data()
    device = torch.device(PartialState().device or "cpu")
    with torch.random.fork_rng(devices=[]):
        net = build_component("[model]", MODELS, recipe.model.name, **recipe.model.options)
    image = first_batch(dataset, recipe.train.seed)["image"]
    found = [fitting(net, image, device, len(dataset))]  # processes measure different amounts of free memory
    return load(recipe, [f"train.batch_size={broadcast_object_list(found)[0]}"])


def fitting(net: nn.Module, image: Tensor, device: torch.device, samples: int) -> int:
    """Choose a batch size.

    Args:
        net: The network, on the CPU.
        image: One image.
        device: Where it is trained.
        samples: Number of training samples.

    Shape:
        - image: (1, C, H, W)

    Raises:
        MemoryExhaustedError: Not even one sample fits into memory.
    """
    pixels = image[0, 0].numel()
    each = 2 * bytes_per_pixel(net, image) * pixels  # the backward pass holds as much again
    room = SHARE * free_memory(device) - PER_PARAMETER * sum(weight.numel() for weight in net.parameters())
    most = int(room // each)
    if most < 1:
        raise MemoryExhaustedError(
            "one sample does not fit into memory", subject='batch_size = "auto"',
            expected=f"{each / 1e9:.1f} GB of the free memory", found=f"{max(room, 0) / 1e9:.1f} GB",
            hint="free memory, or take a smaller crop, size or network; train.save_memory=true needs less",
        )  # fmt: skip
    return max(1, min(filling(device.type, pixels), most, samples))


def filling(device: str, pixels: int) -> int:
    """Number of samples that fill the processor.

    Args:
        device: Type of the device: "cpu", "cuda", …
        pixels: Pixels of a sample.

    Examples:
        >>> filling("cpu", 128 * 128), filling("cpu", 1024 * 1024)
        (8, 4)
    """
    return max(FEWEST, min(MOST, round(PIXELS.get(device, 2**18) / pixels)))


def bytes_per_pixel(net: nn.Module, image: Tensor) -> float:
    """Bytes that the forward pass keeps for the backward pass in float32, per pixel of an image.

    Examples:
        >>> bytes_per_pixel(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sigmoid()), torch.zeros(1, 1, 64, 64))
        12.0
    """
    geometry, held = geometry_of(net), {}
    sides = [geometry.fit(min(side, MEASURED)) for side in image.shape[-2:]]
    images = torch.rand(2, image.shape[1], *sides)  # a norm needs several values
    weights = {weight.untyped_storage().data_ptr() for weight in (*net.parameters(), *net.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net.train()(images)
    del output
    return sum(held.values()) / images[:, 0].numel()


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
