"""`export`: write a trained network to a portable file and compare it with the original."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from ..bundle import ModelBundle, Preprocess
from ..errors import CheckpointMismatchError, CheckpointWriteError, ConfigError, UnetzooError, did_you_mean
from ..io import DISK, replace_folder, replacing, temporary_name
from ..labels import LabelSpec
from ..precision import Precision, resolve
from .artifact import EXTRA, SUFFIXES, describe, seal
from .decide import Threshold
from .images import PathLike
from .parity import Parity, compare, compare_labels
from .pipeline import TRIAL, Pipeline
from .quantization import Calibration, Quantized, quantize
from .runtimes import need, onnx_model, recorded
from .windows import geometry_of

Kind = Literal["onnx", "torch", "openvino"]
TYPICAL = 256**2  # pixels of an image


@dataclass(frozen=True)
class Exported:
    """Result of `export`.

    Args:
        path: The exported file, or folder for OpenVINO.
        info: Metadata of the file.
        parity: The comparison with the network; None if `verify=False`.
        int8: The scores before and after quantization; None without `int8`.
    """

    path: Path
    info: dict[str, Any]
    parity: Parity | None
    int8: Quantized | None = None


def export(
    network: nn.Module | ModelBundle,
    path: PathLike,
    *,
    to: Kind | None = None,
    size: tuple[int, int] | None = None,
    labels: LabelSpec | None = None,
    preprocess: Preprocess | None = None,
    threshold: Threshold = None,
    dtype: str | None = None,
    verify: bool = True,
    precision: Precision | None = None,
    int8: Calibration | None = None,
) -> Exported:
    """Export a network with its preprocessing and decision to one file, or to one folder for OpenVINO.

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
        to: "onnx", "torch" for a `torch.export` program (`.pt2`), or "openvino" for a folder with OpenVINO's IR
            (`.openvino`); inferred from the path's suffix by default.
        size: (height, width) of all images, for networks that cannot be exported with dynamic sizes.
        labels: Names and colors of the classes.
        preprocess: The preprocessing used in validation.
        threshold: See `Predictor`.
        dtype: Dtype of the images: "uint8", or "float32" for values in 0…1. By default "uint8", unless the network was
            trained with a range of values that are mapped to 0…1.
        verify: Whether to compare the file with the network. For ONNX, this requires ONNX Runtime.
        precision: For OpenVINO: "fp32", or "bf16" to compute convolutions in bfloat16 on processors that multiply it
            natively; then at least 99.5 % of the labels must be equal. By default as in training if they are, else
            "fp32".
        int8: For OpenVINO: quantize the network to INT8, calibrated with these images. The score of the quantized
            network must be within 0.005 of the original's; if it is not, the first and the last layer are kept in
            float.

    Raises:
        ConfigError: The preprocessing is unknown, the network cannot be exported, an option is invalid, or a package is
            missing.
        CheckpointError: The file's outputs or the score of the quantized network differ from the network's, or the file
            cannot be written. No file is left.

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
    _check_packages(kind, verify, int8)
    size = _checked_size(network, size, preprocess)
    pipeline, bundle = _pipeline(network, labels, preprocess, threshold, dtype, size or TRIAL)
    chosen = _precision(kind, bundle, precision, int8)
    info = describe(pipeline, bundle.name, size, chosen)
    pipeline.shows_levels = kind != "torch" and verify and pipeline.preprocess.size is not None
    if kind == "openvino":
        return _export_openvino(target, pipeline, info, size, verify, int8, demanded=precision is not None)
    data = _serialized(kind, pipeline, _recorded(pipeline, size), info)
    with _writing(target), replacing(target) as partial:
        partial.write_bytes(seal(data, kind))
        parity = compare(partial, pipeline, size, target) if verify else None
        if pipeline.shows_levels:
            partial.write_bytes(seal(_without_levels(data), kind))
    return Exported(target, info, parity)


def _export_openvino(
    target: Path,
    pipeline: Pipeline,
    info: dict[str, Any],
    size: tuple[int, int] | None,
    verify: bool,
    int8: Calibration | None,
    *,
    demanded: bool,
) -> Exported:
    from .openvino import whole_model, without_levels, write

    pipeline.resizes_by_products, quantized = True, None
    model = whole_model(pipeline, size)
    partial = temporary_name(target, target.suffix)
    with _writing(target):
        try:
            write(model, partial, info | {"precision": "fp32"})
            parity = compare(partial, pipeline, size, target) if verify else None
            DISK.remove(partial)
            if int8 is not None:
                quantized, network, pipeline.net = quantize(pipeline, size, int8)
                model = whole_model(pipeline, size, network)
            final = without_levels(model) if pipeline.shows_levels else model
            write(final, partial, info)
            if verify and info["precision"] != "fp32":
                try:
                    compare_labels(partial, pipeline, size, target)
                except CheckpointMismatchError as error:
                    if demanded or int8 is not None:
                        raise
                    warnings.warn(f"exported in float32, since in {info['precision']}: {error.found}", stacklevel=3)
                    DISK.remove(partial)
                    info["precision"] = "fp32"
                    write(final, partial, info)
            replace_folder(partial, target)
        except BaseException:
            if partial.exists():
                DISK.remove(partial)
            raise
    return Exported(target, info, parity, quantized)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Create the folder of a file, and convert errors of the system."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, UnetzooError):
            raise
        raise CheckpointWriteError("cannot write the file", subject=target, found=str(error)) from error


def _check_packages(kind: Kind, verify: bool, int8: Calibration | None) -> None:
    if kind == "onnx":
        need("onnx", "onnxscript", *(["onnxruntime"] if verify else []))
    if kind == "openvino":
        need("openvino", "onnx", "onnxscript", *(["nncf"] if int8 else []))
    elif int8 is not None:
        raise ConfigError("only OpenVINO files can be quantized", found=kind, hint='to="openvino", or --to openvino')


def _precision(kind: Kind, bundle: ModelBundle, precision: Precision | None, int8: Calibration | None) -> str:
    """Return the precision recorded in the file."""
    if kind != "openvino" or int8 is not None:
        if precision not in (None, "fp32"):
            what = "quantized layers are computed in int8" if int8 else "the file is computed in float32"
            raise ConfigError(what, found=f"precision={precision!r}", hint="leave precision out")
        return "int8" if int8 else "fp32"
    chosen = resolve(precision or bundle.precision or "fp32", bundle.model, "cpu", TYPICAL)
    if chosen == "fp16" and precision is not None:
        raise ConfigError("wrong precision", expected="fp32 or bf16", found=precision)
    return "fp32" if chosen == "fp16" else chosen


def _kind(path: PathLike, to: str | None) -> Kind:
    suffix = Path(path).suffix
    chosen = to or next((kind for kind, known in SUFFIXES.items() if known == suffix), None)
    if chosen in SUFFIXES:
        if suffix != SUFFIXES[chosen]:
            raise ConfigError("wrong suffix", subject=path, expected=SUFFIXES[chosen], found=suffix or "none")
        return cast(Kind, chosen)
    if to is None:
        raise ConfigError("unknown kind of file", subject=path, expected=", ".join(SUFFIXES.values()))
    raise ConfigError(f"unknown kind of file {to!r}", hint=did_you_mean(to, SUFFIXES, "kind"))


def _pipeline(
    network: nn.Module | ModelBundle,
    labels: LabelSpec | None,
    preprocess: Preprocess | None,
    threshold: Threshold,
    dtype: str | None,
    size: tuple[int, int],
) -> tuple[Pipeline, ModelBundle]:
    """Build the pipeline from a float32 copy of the network on the CPU, and return it with the network's bundle."""
    bundle = ModelBundle.of(network).known(labels=labels, preprocess=preprocess)
    net = copy.deepcopy(bundle.model).cpu().float().requires_grad_(False)
    return Pipeline(bundle._replace(model=net), threshold=threshold, dtype=dtype, size=size).eval(), bundle


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
    image = torch.zeros(2, *(size or TRIAL), pipeline.in_channels, dtype=pipeline.torch_dtype, device="cpu")
    return recorded(pipeline, (image,), [range(1 if size else 3)])


def _serialized(kind: Kind, pipeline: Pipeline, program: Any, info: dict[str, Any]) -> bytes:
    if kind == "torch":
        for module in program.graph_module.modules():
            for node in getattr(module, "graph", torch.fx.Graph()).nodes:
                node.meta.pop("stack_trace", None)  # contains local paths
        archive = io.BytesIO()
        torch.export.save(program, archive, extra_files={EXTRA: json.dumps(info)})
        return archive.getvalue()
    model = onnx_model(program, ["image"], pipeline.names)
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
