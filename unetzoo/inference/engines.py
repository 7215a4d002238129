"""Networks that OpenVINO or ONNX Runtime computes in place of PyTorch, for prediction."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, did_you_mean
from ..heads import heads_of, split_heads
from ..modules import evaluation_mode
from ..precision import Precision, resolve
from .images import in_channels_of
from .runtimes import Step, need, onnx_model, recorded
from .windows import canvas_length, geometry_of

EngineName = Literal["torch", "openvino", "onnx"]
TRIAL = (131, 165)
TYPICAL = 256**2  # pixels of an image
STAY = 'the engine "torch" takes every network'


class Engine(nn.Module):
    """A network computed by another runtime on the CPU. It has no parameters; other attributes are the network's own.

    Args:
        net: The network.
        run: Function from an input array (N, C, H, W) to one array per head.
        rebuild: Function from tensors to the kind of output that the network returns.
    """

    def __init__(self, net: nn.Module, run: Callable[..., Sequence[np.ndarray]], rebuild: Callable[..., Any]) -> None:
        super().__init__()
        self.__dict__["_original"] = net  # not a submodule: its parameters are not used
        self._run, self._rebuild = run, rebuild
        self.eval()

    decodes_regions = False

    def forward(self, x: Tensor) -> Any:
        """The network's output."""
        outputs = self._run(np.ascontiguousarray(x.detach().float().cpu().numpy()))
        return self._rebuild([torch.from_numpy(np.asarray(output)).to(x.device) for output in outputs])

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_original"], name)


def run_by(net: nn.Module, engine: EngineName, precision: Precision | None = None) -> nn.Module:
    """Return a network that is computed by another runtime, at any image size.

    Args:
        net: The network.
        engine: "torch" returns the network itself.
        precision: "bf16" for bfloat16 in OpenVINO, or "auto"; otherwise float32.

    Raises:
        ConfigError: Unknown engine, a package is missing, or the network cannot be converted at dynamic sizes.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("bnunet", classes=2, encoder_channels=(4, 8, 16))
        >>> run_by(net, "torch") is net
        True
    """
    if engine not in get_args(EngineName):
        hint = did_you_mean(str(engine), get_args(EngineName), "engine")
        raise ConfigError(f"unknown engine {engine!r}", hint=hint)
    if engine == "torch":
        return net
    need("onnx", "onnxscript", "openvino" if engine == "openvino" else "onnxruntime")
    if (precision in ("bf16", "fp16") and engine == "onnx") or precision == "fp16":
        raise ConfigError(
            "the engine does not compute in this precision",
            subject=engine,
            expected="fp32" if engine == "onnx" else "fp32 or bf16",
            found=precision,
            hint='precision="fp32"',
        )
    own = copy.deepcopy(net).cpu().float().requires_grad_(False)
    geometry = geometry_of(own)
    sides = [canvas_length(geometry, side) for side in TRIAL]
    x = torch.zeros(2, in_channels_of(own) or 3, *sides, dtype=torch.float32, device="cpu")
    with evaluation_mode(own), torch.no_grad():
        _, rebuild = split_heads(own(x))
        if engine == "openvino":
            from .openvino import compiled, network_model

            chosen = "fp32" if precision is None else resolve(precision, own, "cpu", TYPICAL)
            return Engine(net, compiled(network_model(own, x, hint=STAY), chosen), rebuild)
        return Engine(net, _onnx_session(own, x), rebuild)


def _onnx_session(net: nn.Module, x: Tensor) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
    import onnxruntime

    step = Step(lambda x: tuple(heads_of(net(x)).values()), net)
    program = recorded(step, (x,), [(0, 2, 3)], hint=STAY)
    model = onnx_model(program, ["x"], list(heads_of(net(x))), hint=STAY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    return lambda batch: [np.asarray(output) for output in session.run(None, {"x": batch})]
