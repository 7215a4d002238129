"""`export`: write a trained network to a portable file and compare it with the original."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..bundle import ModelBundle, Preprocess
from ..errors import CheckpointWriteError, ConfigError, UnetzooError, did_you_mean
from ..io import replacing
from ..labels import LabelSpec
from .artifact import EXTRA, SUFFIXES, describe, need, quiet, seal
from .decide import Threshold
from .images import PathLike
from .parity import Parity, compare
from .pipeline import TRIAL, Pipeline
from .windows import geometry_of

Kind = Literal["onnx", "torch"]


@dataclass(frozen=True)
class Exported:
    """Result of `export`.

    Args:
        path: The exported file.
        info: Metadata of the file.
        parity: The comparison with the network; None if `verify=False`.
    """

    path: Path
    info: dict[str, Any]
    parity: Parity | None


def export(
    network: nn.Module | ModelBundle,
    path: PathLike,
    *,
    to: Kind | None = None,
    size: tuple[int, int] | None = None,
    labels: LabelSpec | None = None,
    preprocess: Preprocess | None = None,
    threshold: Threshold = None,
    dtype: str = "uint8",
    verify: bool = True,
) -> Exported:
    """Export a network with its preprocessing and decision to one file.

    The exported network has one input `image`, a batch of decoded uint8 images (N, H, W, C). Grayscale images have one
    channel; an image and its background are stacked to six. It resizes and scales images as in validation, pads them by
    mirroring to the next size that the network supports, and returns outputs of the original size: `labels`,
    `probabilities` and any other head (`depth`). Batch size, height and width are dynamic unless `size` fixes the
    latter two.

    Before the file is renamed into place, it is reopened and compared with the network at several sizes: probabilities
    and other heads must agree to 1e-4, and labels in 99.99 % of the pixels.

    Args:
        network: A network, or a `ModelBundle` (`unetzoo.load`). Labels, preprocessing, threshold and mode attached to
            a trained or loaded network are used unless given here.
        path: The file to write; an existing file is replaced.
        to: "onnx", or "torch" for a `torch.export` program (`.pt2`); inferred from the file's suffix by default.
        size: (height, width) of all images, for networks that cannot be exported with dynamic sizes.
        labels: Names and colors of the classes.
        preprocess: The preprocessing used in validation.
        threshold: See `Predictor`.
        dtype: Dtype of the images: "uint8", or "float32" for values in 0…1.
        verify: Whether to compare the file with the network. For ONNX, this requires ONNX Runtime.

    Raises:
        ConfigError: The preprocessing is unknown, the network cannot be exported, an option is invalid, or a package is
            missing.
        CheckpointError: The file's outputs differ from the network's, or it cannot be written. No file is left.

    Examples:
        >>> import tempfile, unetzoo
        >>> net = unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 16))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = unetzoo.export(net, f"{folder}/net.pt2", preprocess=unetzoo.Preprocess())
        ...     outputs = unetzoo.load(made.path)(torch.zeros(21, 30, 3, dtype=torch.uint8).numpy())
        >>> outputs["labels"].shape, outputs["probabilities"].shape
        ((21, 30), (3, 21, 30))
    """
    target, kind = Path(path), _kind(path, to)
    if kind == "onnx":
        need("onnx", "onnxscript", *(["onnxruntime"] if verify else []))
    size = _checked_size(network, size, preprocess)
    pipeline, name = _pipeline(network, labels, preprocess, threshold, dtype, size or TRIAL)
    info = describe(pipeline, name, size)
    pipeline.shows_levels = kind == "onnx" and verify and pipeline.preprocess.size is not None
    data = _serialized(kind, pipeline, _recorded(pipeline, size), info)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            partial.write_bytes(seal(data, kind))
            parity = compare(partial, pipeline, size, target) if verify else None
            if pipeline.shows_levels:
                partial.write_bytes(seal(_without_levels(data), kind))
    except OSError as error:
        if isinstance(error, UnetzooError):
            raise
        raise CheckpointWriteError("cannot write the file", subject=target, found=str(error)) from error
    return Exported(target, info, parity)


def _kind(path: PathLike, to: str | None) -> Kind:
    suffix = Path(path).suffix
    chosen = to or next((kind for kind, known in SUFFIXES.items() if known == suffix), None)
    if chosen == "onnx" or chosen == "torch":
        if suffix != SUFFIXES[chosen]:
            raise ConfigError("wrong suffix", subject=path, expected=SUFFIXES[chosen], found=suffix or "none")
        return chosen
    if to is None:
        raise ConfigError("unknown kind of file", subject=path, expected=" or ".join(SUFFIXES.values()))
    raise ConfigError(f"unknown kind of file {to!r}", hint=did_you_mean(to, SUFFIXES, "kind"))


def _pipeline(
    network: nn.Module | ModelBundle,
    labels: LabelSpec | None,
    preprocess: Preprocess | None,
    threshold: Threshold,
    dtype: str,
    size: tuple[int, int],
) -> tuple[Pipeline, str]:
    """Build the pipeline from a float32 copy of the network on the CPU, and return it with the network's name."""
    bundle = ModelBundle.of(network).known(labels=labels, preprocess=preprocess)
    net = copy.deepcopy(bundle.model).cpu().float().requires_grad_(False)
    return Pipeline(bundle._replace(model=net), threshold=threshold, dtype=dtype, size=size).eval(), bundle.name


def _checked_size(
    network: nn.Module | ModelBundle, size: tuple[int, int] | None, preprocess: Preprocess | None
) -> tuple[int, int] | None:
    sides = size if isinstance(size, tuple) else ()
    if size is not None and (len(sides) != 2 or any(not isinstance(n, int) or n < 1 for n in sides)):
        raise ConfigError("wrong size", expected="(height, width)", found=repr(size))
    net, _, own = ModelBundle.of(network)[:3]
    most = geometry_of(net).maximum
    if most is not None and getattr(preprocess or own, "size", None) is None and (size is None or max(size) > most):
        raise ConfigError(
            "this network takes images of one size",
            expected=f"at most {most}×{most}",
            found="every size" if size is None else f"{size[0]}×{size[1]}",
            hint=f"size=({most}, {most}), or --size {most}x{most}",
        )
    return size


def _recorded(pipeline: Pipeline, size: tuple[int, int] | None) -> Any:
    """Trace the pipeline with `torch.export`.

    Raises:
        ConfigError: It cannot be exported for every size; the error gives the reason.
    """
    height, width = size or TRIAL
    kind = torch.uint8 if pipeline.dtype == "uint8" else torch.float32
    image = torch.zeros(2, height, width, pipeline.in_channels, dtype=kind, device="cpu")
    free = dict.fromkeys(range(1 if size else 3), torch.export.Dim.AUTO)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(pipeline, (image,), dynamic_shapes=(free,))
    except Exception as error:  # arbitrary user code may fail here
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise _unrecorded(reason, size) from error
    shape = next(node.meta["val"] for node in program.graph.nodes if node.name == "image").shape
    fixed = [what for what, n in zip(("batch", "height", "width"), shape[:3], strict=True) if str(n).isdigit()]
    fixed = [what for what in fixed if size is None or what == "batch"]
    if fixed:
        raise _unrecorded(f"the network is bound to one {fixed[0]}", size)
    return program


def _unrecorded(reason: str, size: tuple[int, int] | None) -> ConfigError:
    what = "cannot be exported for every size" if size is None else "cannot be exported"
    hint = "fix the size of the images: size=(height, width), or --size HxW" if size is None else None
    return ConfigError(f"this network {what}", found=reason, hint=hint)


def _serialized(kind: Kind, pipeline: Pipeline, program: Any, info: dict[str, Any]) -> bytes:
    if kind == "torch":
        for module in program.graph_module.modules():
            for node in getattr(module, "graph", torch.fx.Graph()).nodes:
                node.meta.pop("stack_trace", None)  # contains local paths
        archive = io.BytesIO()
        torch.export.save(program, archive, extra_files={EXTRA: json.dumps(info)})
        return archive.getvalue()
    try:
        with quiet():
            made = torch.onnx.export(
                program, input_names=["image"], output_names=list(pipeline.names), dynamo=True, verbose=False
            )
    except Exception as error:  # operations not supported by ONNX or its exporter
        reason = [line for line in str(error).splitlines() if "<class" in line or "Error" in line]
        found = reason[0] if reason else f"{type(error).__name__}: {error}"
        raise ConfigError("this network cannot be written as ONNX", found=found, hint="--to torch") from error
    assert made is not None
    model = made.model_proto
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]  # the exporter's metadata contains local paths
    for key, value in info.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    _name_axes(model)
    return model.SerializeToString()


def _name_axes(model: Any) -> None:
    """Replace the exporter's symbols for dynamic axes with names."""
    axes = model.graph.input[0].type.tensor_type.shape.dim
    names = {axis.dim_param: name for axis, name in zip(axes, ("batch", "height", "width"), strict=False)}
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            axis.dim_param = names.get(axis.dim_param, axis.dim_param) if axis.dim_param else axis.dim_param
    del model.graph.value_info[:]


def _without_levels(data: bytes) -> bytes:
    """Remove the resized image from the outputs of an ONNX file."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    del model.graph.output[-1]
    return model.SerializeToString()
