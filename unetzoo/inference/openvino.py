"""OpenVINO models: conversion, quantization to INT8, and the folder in which they are stored."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..heads import heads_of
from ..io import write_json, write_manifest
from ..precision import Precision, supported
from .pipeline import TRIAL, Pipeline
from .runtimes import ANY_SIZE, Step, need, onnx_model, quiet, recorded, untracked
from .windows import canvas_length

XML, BIN, INFO = "model.xml", "model.bin", "unetzoo.json"
MULTIPLYING = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "MatMul")

Run = Callable[..., list[np.ndarray]]


def network_model(net: nn.Module, x: torch.Tensor, *, fixed: bool = False, hint: str = ANY_SIZE) -> Any:
    """Convert a network to an OpenVINO model with one output per head.

    Args:
        net: A float32 network on the CPU.
        x: An input (N, C, H, W) with N ≥ 2.
        fixed: Whether height and width are always those of `x`; otherwise they are dynamic.
        hint: How to proceed if the network cannot be converted with dynamic sizes.

    Raises:
        ConfigError: The network cannot be converted.
    """
    heads = list(heads_of(net(x)))
    step = Step(lambda x: tuple(heads_of(net(x)).values()), net)
    free = (0,) if fixed else (0, 2, 3)
    return _converted(step, (x,), [free], ["x"], heads, hint)


def whole_model(pipeline: Pipeline, size: tuple[int, int] | None, network: Any = None) -> Any:
    """Convert preprocessing, network and decision to one OpenVINO model.

    Args:
        pipeline: The pipeline.
        size: (height, width) of all images; None if it is free.
        network: The converted network; by default it is converted too.
    """
    image = torch.zeros(2, *(size or TRIAL), pipeline.in_channels, dtype=pipeline.torch_dtype, device="cpu")
    with torch.no_grad():
        x, _ = pipeline.prepared(image)
        heads = tuple(heads_of(pipeline.net(x)).values())
    fixed = size is not None or pipeline.preprocess.size is not None
    rows, maps = ((0,) if size else (0, 1, 2)), ((0,) if fixed else (0, 2, 3))
    names = [_head(number) for number in range(len(heads))]
    before = _converted(Step(pipeline.prepared), (image,), [rows], ["image"], ["x", "levels"])
    if network is None:
        network = network_model(pipeline.net, x, fixed=fixed)
    outputs = [name for name in pipeline.names if name != "levels"]
    after = _converted(
        Step(pipeline.finished), (image, *heads), [rows, *[maps] * len(heads)], ["image", *names], outputs
    )
    return _joined(before, network, after, pipeline)


def input_of(pipeline: Pipeline, size: tuple[int, int]) -> torch.Tensor:
    """Return an empty batch as the network of a pipeline gets it for images of a size."""
    sides = [canvas_length(pipeline.geometry, side) for side in pipeline.preprocess.size or size]
    return torch.zeros(2, pipeline.in_channels, *sides, dtype=torch.float32, device="cpu")


def _converted(
    step: Step, inputs: Any, free: Any, names: Sequence[str], outputs: Sequence[str], hint: str = ANY_SIZE
) -> Any:
    axes = ("batch", "height", "width")
    with torch.no_grad():
        program = recorded(step, inputs, free, axes=axes, hint=hint)
    data = onnx_model(program, names, outputs, hint="--to torch").SerializeToString()
    return _core().read_model(data)


@functools.cache
def _core() -> Any:
    """One for the process.

    With AMX, every core gives its thread a signal stack, and its end restores the one before it, which may be freed by
    then: the next signal crashes the process.
    """
    return untracked("openvino").Core()


def without_levels(model: Any) -> Any:
    """Remove the resized image from the outputs."""
    return untracked("openvino").Model(model.get_results()[:-1], model.get_parameters(), "unetzoo")


def _joined(before: Any, network: Any, after: Any, pipeline: Pipeline) -> Any:
    """Connect the outputs of one model with the inputs of the next."""
    image = before.get_parameters()[0]
    _wire(before.get_results()[0].input_value(0), network.get_parameters()[0])
    sources = {"image": image.output(0)}
    sources |= {_head(number): result.input_value(0) for number, result in enumerate(network.get_results())}
    for parameter in after.get_parameters():  # the image is missing if its size is fixed
        _wire(sources[parameter.output(0).any_name], parameter)
    results = [*after.get_results(), *(before.get_results()[1:] if pipeline.shows_levels else [])]
    return untracked("openvino").Model(results, [image], "unetzoo")


def _head(number: int) -> str:
    return f"head {number}"


def _wire(source: Any, parameter: Any) -> None:
    for target in parameter.output(0).get_target_inputs():
        target.replace_source_output(source)


def write(model: Any, folder: Path, info: dict[str, Any]) -> None:
    """Write a model with its metadata and manifest to a new folder."""
    folder.mkdir()
    untracked("openvino").save_model(model, str(folder / XML), compress_to_fp16=False)
    write_json(folder / INFO, info)
    write_manifest(folder, (XML, BIN, INFO))


def read(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Read a model and its metadata from a folder."""
    need("openvino")
    info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    return _core().read_model((folder / XML).read_bytes(), (folder / BIN).read_bytes()), info


def compiled(model: Any, precision: Precision | str) -> Run:
    """Prepare a model for the CPU.

    Args:
        model: The model.
        precision: "bf16" to compute convolutions in bfloat16, if the processor multiplies it natively; otherwise what
            is not quantized is computed in float32.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" and supported("bf16", "cpu") == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    ready = _core().compile_model(model, "CPU", settings)
    return lambda *inputs: list(ready(inputs).values())


def quantized(model: Any, batches: Sequence[np.ndarray], ignored: Sequence[str] = ()) -> Any:
    """Quantize a converted network to INT8.

    Args:
        model: The network, which is not modified.
        batches: Inputs of the network, for calibration.
        ignored: Names of operations that stay in float32.
    """
    nncf = untracked("nncf")
    scope = nncf.IgnoredScope(names=list(ignored)) if ignored else None
    with quiet(), redirect_stdout(io.StringIO()):  # progress bars
        return nncf.quantize(model.clone(), nncf.Dataset(batches), subset_size=len(batches), ignored_scope=scope)


def layers_of(model: Any) -> dict[str, str]:
    """Return the operations of a converted network that quantization affects, in order, with their layer's name."""
    found = {}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in MULTIPLYING:
            weight = operation.input_value(1).get_node()
            while weight.get_type_name() != "Constant" and weight.get_input_size():
                weight = weight.input_value(0).get_node()
            layer = weight.get_friendly_name().removeprefix("net.").removesuffix(".weight")
            found[operation.get_friendly_name()] = layer
    return found
