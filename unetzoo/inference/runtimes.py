"""Record modules with `torch.export`, and convert them to ONNX; check and import the packages that this requires."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError

EXTRAS = {"openvino": "openvino", "nncf": "openvino"}  # other packages belong to the extra "export"
ANY_SIZE = "fix the size of the images: size=(height, width), or --size HxW"
TELEMETRY = "openvino_telemetry"


class Step(nn.Module):
    """A function on tensors as a module that `torch.export` can record.

    Args:
        run: The function.
        net: The network that the function uses, if any.
    """

    def __init__(self, run: Callable[..., Any], net: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self._run = net, run
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        """The function's output."""
        return self._run(*inputs)


def recorded(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    free: Sequence[Sequence[int]],
    *,
    axes: Sequence[str] = ("batch", "height", "width"),
    hint: str | None = ANY_SIZE,
) -> Any:
    """Record a module with `torch.export`.

    Args:
        module: The module.
        inputs: Example inputs.
        free: For each input, its dynamic axes.
        axes: Names of the first input's dynamic axes, for errors.
        hint: How to proceed if an axis cannot be dynamic.

    Raises:
        ConfigError: The module cannot be recorded, or not with these dynamic axes; the error gives the reason.
    """
    several = len(free[0]) > 1
    what = "this network cannot be exported for every size" if several else "this network cannot be exported"
    shapes: Any = tuple(dict.fromkeys(own, torch.export.Dim.AUTO) for own in free)
    if isinstance(module, Step):
        shapes = (shapes,)
    try:
        with quiet(), torch.no_grad():
            program: Any = torch.export.export(module, inputs, dynamic_shapes=shapes)
    except Exception as error:  # arbitrary user code may fail here
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise ConfigError(what, found=reason, hint=hint if several else None) from error
    first: Any = program.graph_signature.user_inputs[0]
    shape: Any = next(node.meta["val"] for node in program.graph.nodes if node.name == first).shape
    fixed = [name for name, axis in zip(axes, free[0], strict=False) if str(shape[axis]).isdigit()]
    if fixed:
        found = f"the network is bound to one {fixed[0]}"
        raise ConfigError(what, found=found, hint=hint if several else None)
    return program


def onnx_model(program: Any, inputs: Sequence[str], outputs: Sequence[str], *, hint: str = "--to torch") -> Any:
    """Convert a recorded program to an `onnx.ModelProto` without the exporter's metadata, which contains local paths.

    Args:
        program: Output of `recorded`.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        hint: How to proceed if ONNX has no such operation.

    Raises:
        ConfigError: ONNX or its exporter lacks an operation.
    """
    try:
        with quiet():
            made = torch.onnx.export(
                program, input_names=list(inputs), output_names=list(outputs), dynamo=True, verbose=False
            )
    except Exception as error:  # operations not supported by ONNX or its exporter
        reason = [line for line in str(error).splitlines() if "<class" in line or "Error" in line]
        found = reason[0] if reason else f"{type(error).__name__}: {error}"
        raise ConfigError("this network cannot be written as ONNX", found=found, hint=hint) from error
    assert made is not None
    model = made.model_proto
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]
    return model


def need(*modules: str) -> None:
    """Check that packages are installed.

    Raises:
        ConfigError: A package is missing; the hint contains the command that installs it.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({EXTRAS.get(name, "export") for name in missing}))
        raise ConfigError("a package is missing", subject=", ".join(missing), hint=f'pip install "unetzoo[{extras}]"')


def untracked(name: str) -> Any:
    """Import `openvino` or `nncf` without their telemetry, which reports every import to Intel unless disabled."""
    held = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # pyright: ignore[reportArgumentType] -- importing it raises ImportError
    try:
        with quiet():
            return import_module(name)
    finally:
        del sys.modules[TELEMETRY]
        if held is not None:
            sys.modules[TELEMETRY] = held


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the log messages and warnings of exporters and readers; errors are still raised."""
    loggers = [
        logging.getLogger(name) for name in ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir", "nncf")
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
