"""Open, run and describe exported files."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._version import __version__
from ..bundle import ModelBundle
from ..cleaning import Cleaning
from ..errors import CheckpointCorruptError, CheckpointError, ConfigError, InputShapeError
from ..images import Pixels
from ..instances import ObjectRule
from ..io import MANIFEST, check_manifest
from ..labels import LabelSpec
from ..models.geometry import Geometry
from .images import PathLike
from .pipeline import FLOATS, Pipeline
from .runtimes import need, quiet

FORMAT = 2
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "openvino": ".openvino"}
EXTRA = "unetzoo.json"
TILE = 512  # default window of the tiling recipe, if it is large enough
DIGITS = 64  # length of a SHA-256 in hexadecimal

Run = Callable[[np.ndarray], Sequence[np.ndarray]]


class Artifact:
    """An exported network: images in, classes and probabilities out.

    `Predictor` and `unetzoo.predict` accept it in place of a network; windows are exact if
    `info["tiling"]["exact"]` is true.

    Args:
        info: The file's metadata: classes, palette, input, outputs, preprocessing, tiling.
        run: Function from an array (N, H, W, C) to arrays in the order of `info["outputs"]`.
    """

    digest = ""  # SHA-256 of the file, or of the manifest of an OpenVINO folder

    def __init__(self, info: dict[str, Any], run: Run) -> None:
        self.info, self._run = info, run

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs by name for one image (H, W, C), or (H, W) if grayscale, or a batch (N, H, W, C).

        Raises:
            InputShapeError: The number of channels or, if the file has a fixed size, the image size is wrong.
            ConfigError: The dtype is wrong.
        """
        wanted = self.info["input"]
        single = image.ndim < 4
        batch = image[..., None] if image.ndim == 2 else image
        batch = batch[None] if single else batch
        size = wanted["size"] or list(batch.shape[1:3])
        if batch.ndim != 4 or batch.shape[3] != wanted["channels"] or list(batch.shape[1:3]) != size or not batch.size:
            rows, columns = wanted["size"] or ("H", "W")
            expected = f"([N,] {rows}, {columns}, {wanted['channels']})"
            raise InputShapeError("wrong image shape for this file", expected=expected, found=image.shape)
        if batch.dtype.name != wanted["dtype"]:
            raise ConfigError("wrong dtype for this file", expected=wanted["dtype"], found=batch.dtype)
        try:
            outputs = self._run(np.ascontiguousarray(batch))
        except Exception as error:  # depends on the runtime
            found = f"{image.shape}: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
            raise InputShapeError("the file cannot take this image", found=found, hint="try another size") from error
        return {name: a[0] if single else a for name, a in zip(self.info["outputs"], outputs, strict=True)}

    @property
    def bundle(self) -> ModelBundle:
        """The file as a network that takes images in 0…255 and returns logits, with its labels and thresholds."""
        info = self.info
        palette = tuple(tuple(color) for color in info["palette"])
        pairs = {name: info[name] for name in ("swap_pairs", "side") if info.get(name)}
        labels = LabelSpec(tuple(info["classes"]), palette=palette, **pairs)  # pyright: ignore[reportArgumentType]
        pixels = None if info["input"].get("pixels") is None else Pixels.from_dict(info["input"]["pixels"])
        return ModelBundle(
            _Whole(self), labels, _levels, info["thresholds"] or None, info["mode"], info["network"], pixels=pixels,
            objects=None if info.get("objects") is None else ObjectRule(**info["objects"]),
            cleaning=None if info.get("cleaning") is None else Cleaning(**info["cleaning"]),
        )  # fmt: skip


class _Whole(nn.Module):
    """An exported file as a network from levels (N, C, H, W) in 0…255 to logits and other heads."""

    exported = True

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        self._artifact, self.digest, info = artifact, artifact.digest, artifact.info
        self.in_channels: int = info["input"]["channels"]
        tiling = info["tiling"] or {"stride": 1, "exact": False}
        halo = tiling["halo"] if tiling["exact"] else None
        self.geometry = Geometry(minimum=1, stride=tiling["stride"], halo=halo)
        self._independent = info["mode"] == "multilabel"
        heads = ["mask", *[name for name in info["outputs"] if name not in ("labels", "probabilities")]]
        self._output = namedtuple("Output", heads) if len(heads) > 1 else lambda mask: mask
        self.eval()

    def forward(self, levels: Tensor) -> Any:
        images = levels.permute(0, 2, 3, 1).cpu()
        images = images / 255 if self._artifact.info["input"]["dtype"] == FLOATS else images.round().to(torch.uint8)
        outputs = self._artifact(images.numpy())
        del outputs["labels"]
        probabilities, *others = (torch.from_numpy(output) for output in outputs.values())
        independent = self._independent or probabilities.shape[1] == 1
        logits = probabilities.logit(1e-7) if independent else probabilities.clamp(min=1e-37).log()
        return self._output(logits, *others)


def _levels(image: np.ndarray) -> Tensor:
    image = image if image.dtype == np.uint8 else image * 255  # floats are in 0…1
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32, order="C"))


def load_artifact(path: PathLike, *, check: bool = True) -> Artifact:
    """Open a file written by `export`. Opening a `.pt2` file may execute code: only open files that you trust.

    Args:
        path: An `.onnx` file (run by ONNX Runtime on the CPU), an `.openvino` folder (run by OpenVINO on the CPU, in
            bfloat16 if it was exported for that and the processor multiplies it natively), or a `.pt2` file (run by
            PyTorch on the CPU).
        check: Verify SHA-256 checksums. Set to False for files that were modified by another tool, such as a quantizer.

    Raises:
        CheckpointError: The file does not exist, is not readable, or was not written by `export`.
        CheckpointCorruptError: The file was modified or is damaged.
        ConfigError: ONNX Runtime or OpenVINO is not installed.
    """
    file = Path(path)
    kind = next((kind for kind, suffix in SUFFIXES.items() if suffix == file.suffix), "torch")
    if not (file.is_dir() if kind == "openvino" else file.is_file()):
        raise CheckpointError("no such file", subject=path, hint="check the path")
    if kind != "torch":
        need("onnxruntime" if kind == "onnx" else kind)
    try:
        if kind == "openvino":
            artifact = _open_openvino(file, check)
            data = (file / MANIFEST).read_bytes() if (file / MANIFEST).exists() else b""
        else:
            data = file.read_bytes()
            if check:
                check_seal(data, file)
            artifact = _open_onnx(data, file) if kind == "onnx" else _open_torch(data, file)
        artifact.digest = hashlib.sha256(data).hexdigest()
        return artifact
    except CheckpointError:
        raise
    except Exception as error:  # the runtimes raise various errors for a broken file
        found = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise CheckpointCorruptError(
            "cannot open the exported network", subject=path, found=found, hint="export it again"
        ) from error


def seal(data: bytes, kind: str) -> bytes:
    """Append to an exported file the SHA-256 of all preceding bytes, as hexadecimal digits.

    It is the last entry of `metadata_props` in an ONNX file and the comment of a `.pt2` archive; other readers ignore
    both.
    """
    if kind == "onnx":
        import onnx

        entry = onnx.StringStringEntryProto(key="sha256", value="0" * DIGITS)
        # concatenated protobuf messages are merged
        data += onnx.ModelProto(metadata_props=[entry]).SerializeToString()
    else:
        archive = io.BytesIO(data)
        with zipfile.ZipFile(archive, "a") as file:
            file.comment = b"sha256:" + b"0" * DIGITS
        data = archive.getvalue()
    data = data[:-DIGITS]
    return data + hashlib.sha256(data).hexdigest().encode()


def check_seal(data: bytes, path: Path) -> None:
    """Verify the SHA-256 at the end of a file.

    Raises:
        CheckpointCorruptError: The digest differs.
    """
    found = hashlib.sha256(data[:-DIGITS]).hexdigest()
    if data[-DIGITS:] != found.encode():
        raise CheckpointCorruptError(
            "the file is not what export wrote",
            subject=path,
            expected="the SHA-256 of all bytes before it at the end",
            found=found,
            hint="restore it from a copy, or export it again; for a file that was modified by another tool "
            "(a quantizer): unetzoo.inference.load_artifact(path, check=False)",
        )


def describe(pipeline: Pipeline, name: str, size: tuple[int, int] | None, precision: str = "fp32") -> dict[str, Any]:
    """Return the metadata of an exported file, in JSON-serializable form."""
    labels, geometry = pipeline.labels, pipeline.geometry
    resized = pipeline.preprocess.size
    outputs = {
        "labels": "uint8 (N, K, H, W), 1 where the pixel has the label" if pipeline.decision.mode == "multilabel"
        else "uint8 (N, H, W), the index of the class",
        "probabilities": f"float32 (N, {pipeline.shape.channels}, H, W)",
    }  # fmt: skip
    return {
        "format": FORMAT,
        "unetzoo": __version__,
        "network": name,
        "precision": precision,
        "input": {
            "name": "image",
            "dtype": pipeline.dtype,
            "layout": "NHWC",
            "channels": pipeline.in_channels,
            "range": [0, 1] if pipeline.dtype == FLOATS else [0, 255],
            "pixels": None if pipeline.pixels is None else pipeline.pixels.to_dict(),
            "size": list(size) if size else None,
        },
        "outputs": outputs | {head: "float32 (N, C, H, W)" for head in pipeline.shape.heads[1:]},
        "classes": list(labels.names),
        "palette": [list(color) for color in labels.palette],
        "swap_pairs": [list(pair) for pair in labels.swap_pairs],
        "side": labels.side,
        "thresholds": list(pipeline.decision.thresholds),
        "mode": pipeline.decision.mode,
        "objects": None if pipeline.objects is None else asdict(pipeline.objects),
        "cleaning": None if pipeline.cleaning is None else pipeline.cleaning.to_dict(),
        "preparation": {"size": list(resized) if resized else None, "normalize": pipeline.preprocess.normalize},
        "tiling": None if resized or size or geometry.maximum else _tiling(pipeline, geometry),
    }


def _tiling(pipeline: Pipeline, geometry: Geometry) -> dict[str, Any]:
    """Describe how to tile larger images so that the result equals the output for the whole image."""
    unit = math.lcm(geometry.stride, geometry.out_stride)
    smallest = None if geometry.halo is None else (2 * -(-geometry.halo // unit) + 1) * unit
    statistics = pipeline.preprocess.normalize in ("minmax", "standard")
    return {
        "exact": smallest is not None and not statistics,  # windows would use their own statistics
        "stride": unit,
        "halo": geometry.halo,
        "minimum_tile": smallest,
        "tile": -(-max(TILE, 2 * (smallest or 0)) // unit) * unit,
    }


def _open_onnx(data: bytes, path: Path) -> Artifact:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.intra_op_num_threads = torch.get_num_threads()
    # the fallback prints and only tries the same provider again
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    texts = session.get_modelmeta().custom_metadata_map
    info = _checked({key: _parsed(text) for key, text in texts.items() if key != "sha256"}, path)

    def run(batch: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(output) for output in session.run(list(info["outputs"]), {"image": batch})]

    return Artifact(info, run)


def _open_torch(data: bytes, path: Path) -> Artifact:
    extra = {EXTRA: ""}
    with quiet():
        module = torch.export.load(io.BytesIO(data), extra_files=extra).module()
    info = _checked(json.loads(extra[EXTRA] or "{}"), path)

    def run(batch: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in module(torch.from_numpy(batch))]

    return Artifact(info, run)


def _open_openvino(folder: Path, check: bool) -> Artifact:
    from .openvino import compiled, read

    if check and not check_manifest(folder):
        raise CheckpointCorruptError("no manifest", subject=folder, hint="export it again")
    model, info = read(folder)
    return Artifact(_checked(info, folder), compiled(model, info.get("precision", "fp32")))


def _parsed(text: str) -> Any:
    """Parse a metadata entry; those added by other tools (quantizers) may not be JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _checked(info: dict[str, Any], path: Path) -> dict[str, Any]:
    if not {"format", "input", "outputs"} <= info.keys() or info["format"] > FORMAT:
        raise CheckpointError(
            "not a file that this unetzoo has exported",
            subject=path,
            expected=f"format {FORMAT}",
            found=info.get("format", "no description"),
            hint="export it again with this version",
        )
    return info
