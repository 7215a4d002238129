"""Base class of the networks, compatible with segmentation-models-pytorch (SMP).

`SegmentationModel` subclasses SMP's base class, so code written for SMP also works with these networks: `encoder`,
`decoder`, `segmentation_head`, `classification_head`, `predict`, `freeze_encoder`, `save_pretrained`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import torch
from segmentation_models_pytorch.base import ClassificationHead
from segmentation_models_pytorch.base import SegmentationModel as SMPModel
from segmentation_models_pytorch.base import initialization as smp_init
from torch import Tensor, nn
from torch.utils import _pytree

from ..bundle import FILE, WEIGHTS, ModelBundle
from ..errors import (
    CheckpointMismatchError,
    ConfigError,
    InputShapeError,
    UnknownNameError,
    did_you_mean,
)
from ..io import check_manifest, write_bytes
from ..modules import unshared
from ..registry import MODELS, check_keywords
from .blocks import Encoder, he_normal_
from .geometry import Geometry, Region
from .regions import RegionNetwork, decodes_regions
from .states import check_source, check_tensors, read_safetensors

if TYPE_CHECKING:
    from .card import Card
    from .layouts import WeightLayout


class MaskDepth(NamedTuple):
    """Output of two-headed networks: mask logits (N, classes, H, W) first, then depth (N, 1, H, W)."""

    mask: Tensor
    depth: Tensor


_pytree._register_namedtuple(MaskDepth, serialized_type_name="unetzoo.MaskDepth")


OUTPUT_ACTIVATIONS: dict[str, type[nn.Module] | tuple[type[nn.Module], dict[str, Any]]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "softmax": (nn.Softmax, {"dim": 1}),
    "softmax2d": (nn.Softmax, {"dim": 1}),
    "logsoftmax": (nn.LogSoftmax, {"dim": 1}),
    "tanh": nn.Tanh,
}


def output_activation(activation: str | None) -> nn.Module:
    """Build the module for SMP's `activation` keyword (SMP's names; softmax is over the channels).

    Raises:
        UnknownNameError: Unknown activation; the error suggests the nearest name.
    """
    entry = OUTPUT_ACTIVATIONS.get(activation or "identity")
    if entry is None:
        raise UnknownNameError(
            f"unknown activation {activation!r}", hint=did_you_mean(str(activation), OUTPUT_ACTIVATIONS, "activation")
        )
    return entry[0](**entry[1]) if isinstance(entry, tuple) else entry()


def segmentation_head(in_channels: int, classes: int, activation: str | None) -> nn.Sequential:
    """Build a 1×1 convolution and output activation; `[0]` is the convolution, as expected by code written for SMP."""
    if not isinstance(classes, int) or classes < 1:
        raise ConfigError("wrong classes", expected="an integer ≥ 1", found=repr(classes))
    return nn.Sequential(nn.Conv2d(in_channels, classes, 1), output_activation(activation))


def classification_head(in_channels: int, aux_params: Mapping[str, Any] | None) -> nn.Module | None:
    """Build SMP's auxiliary head: pooling, dropout and a linear layer; `aux_params` requires at least `classes`.

    Raises:
        ConfigError: Unknown keys, or no `classes`.
    """
    if aux_params is None:
        return None
    check_keywords(ClassificationHead, dict(aux_params), "aux_params")
    if "classes" not in aux_params:
        raise ConfigError("wrong aux_params", expected="classes, the number of labels", found=dict(aux_params))
    return ClassificationHead(in_channels, **{**aux_params})


class SegmentationModel(SMPModel):
    """Base class of the networks; plugins may also subclass it.

    Arguments common to all built-in networks:

    - `in_channels`: number of image channels
    - `classes`: number of output channels
    - `encoder_channels`: channels per level, finest first; their number − 1 is the number of poolings
    - `hidden_act`: activation between layers, "relu" or a mapping such as
      `{"type": "leaky_relu", "negative_slope": 0.05}`
    - `align`: how an up-sampled map is matched to a skip of odd size, "resize" (interpolation) or "pad" (zeros)
    - `activation`: output activation, by SMP's names; none by default, so the output is logits
    - `aux_params`: options of SMP's classification head (`classes`, `pooling`, `dropout`, `activation`)

    A subclass takes explicit keyword arguments that are JSON-serializable, sets `encoder`, `decoder`,
    `segmentation_head`, `classification_head`, `in_channels`, `name` and, if known, `geometry`, calls
    `self.initialize()` at the end of its `__init__`, and defines `forward`. If `forward` only runs encoder, decoder and
    heads, set `plain_forward = True` so that regions of the output can be decoded separately.

    Shape:
        Input (N, in_channels, H, W); output logits (N, classes, H', W'), whose size is given by `geometry`; with
        `aux_params`, a tuple (masks, labels).

    Raises:
        UnknownKeywordError: Unknown keyword argument; the error suggests the nearest spelling.
        ConfigError: A value is not JSON-serializable, so `save_pretrained` could not save it.
    """

    requires_divisible_input_shape = False
    _is_torch_scriptable = False  # TorchScript is deprecated; compile and export are supported instead

    card: ClassVar[Card | None] = None
    plain_forward: ClassVar[bool] = False
    weight_layouts: ClassVar[Mapping[str, WeightLayout]] = {}  # supported third-party checkpoints
    encoder: Any
    decoder: Any
    segmentation_head: Any
    classification_head: nn.Module | None
    in_channels: int
    name: str
    geometry: Geometry

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Reject unknown keywords, and values that cannot be saved in the configuration."""
        check_keywords(cls, kwargs, cls.__name__)
        for value in (*args, *kwargs.values()):
            try:
                json.dumps(value)
            except TypeError as error:
                raise ConfigError(
                    f"{cls.__name__} takes values that JSON can hold",
                    found=repr(value),
                    hint='pass a name instead, e.g. activation="sigmoid"',
                ) from error
        return super().__new__(cls, *args, **kwargs)

    def initialize(self) -> None:
        """Initialize the weights as in the U-Net paper, from N(0, √(2/N)); a third-party encoder keeps its own."""
        if isinstance(self.encoder, Encoder):
            he_normal_(self.encoder)
        he_normal_(self.decoder)
        he_normal_(self.segmentation_head)
        if self.classification_head is not None:
            smp_init.initialize_head(self.classification_head)

    def check_input_shape(self, x: Tensor) -> None:
        """Check the channels and size of an input; skipped in a compiled network.

        Raises:
            InputShapeError: Wrong shape; the error gives the nearest legal sizes.
        """
        if torch.compiler.is_compiling():
            return
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            hint = f"build it with in_channels={x.shape[1]}" if x.ndim == 4 else "add the batch dimension: x[None]"
            if (self.in_channels, x.shape[1:2]) == (1, (3,)):
                hint += ", or read gray images: data.channels=1 in a recipe, channels=1 for a dataset"
            raise InputShapeError(
                f"{self.name} cannot take this input",
                expected=f"(N, {self.in_channels}, H, W)",
                found=tuple(x.shape),
                hint=hint,
            )
        geometry = getattr(self, "geometry", None)
        wrong = [size for size in x.shape[-2:] if geometry and not geometry.accepts(size)]
        if wrong:
            raise InputShapeError(
                f"{self.name} cannot take this size",
                subject=f"{x.shape[-2]}×{x.shape[-1]}",
                expected=self.legal_sizes(),
                hint=f"pad or crop to {' or '.join(map(str, self.geometry.neighbors(wrong[0])))}"
                + "; unetzoo.predict takes any size",
            )

    def legal_sizes(self) -> str:
        """Describe the sizes that `forward` accepts."""
        g = getattr(self, "geometry", None)
        if g is None:
            return "not stated"
        if g.maximum == g.minimum:
            return f"exactly {g.minimum}×{g.minimum}"
        return f"sizes ≥ {g.minimum}" if g.step == 1 else f"sizes {g.minimum} + {g.step}k"

    def with_labels(self, masks: Any, coarsest: Tensor) -> Any:
        """Return the output of `forward`: the masks or, with a classification head, the tuple (masks, labels).

        Args:
            masks: Output of the segmentation head, or a NamedTuple that starts with it.
            coarsest: The coarsest map of the encoder.
        """
        return masks if self.classification_head is None else (masks, self.classification_head(coarsest))

    @property
    def decodes_regions(self) -> bool:
        """Whether `decode_region` is supported."""
        return decodes_regions(self)

    def decode_region(self, x: Tensor, region: Region) -> Any:
        """Decode only a region of the output, skipping computations that it does not need. Requires evaluation mode.

        Args:
            x: Images whose sides are multiples of the stride.
            region: Rows and columns of the output.

        Raises:
            InputShapeError: The network does not accept this shape, or the region is not inside the output.
            ConfigError: The network cannot decode a region, or is in training mode.
        """
        return RegionNetwork(self, region, x.shape[-2:])(x)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen encoder keeps its normalization layers in evaluation mode."""
        nn.Module.train(self, mode)
        if self._is_encoder_frozen:
            self._hold_encoder_statistics()
        return self

    def _set_encoder_trainable(self, mode: bool) -> None:
        self.encoder.requires_grad_(mode)
        self._is_encoder_frozen = not mode
        self.train(self.training)

    def _hold_encoder_statistics(self) -> None:
        for layer in self.encoder.modules():
            if isinstance(layer, nn.modules.batchnorm._NormBase):
                layer.eval()

    def save_pretrained(  # pyright: ignore[reportIncompatibleVariableOverride] -- SMP's is wrapped, ours is a method
        self, save_directory: str | Path, **kwargs: Any
    ) -> str | None:
        """Write `config.json` (arguments and origin of the class), `model.safetensors` and a model card.

        Attached labels and preprocessing (`ModelBundle.attach`) are written to `preprocess.json`, and the SHA-256 of
        these files to `manifest.json`.
        """
        entry = MODELS.entry_of(type(self))
        self.config["_unetzoo"] = {
            "name": entry.name if entry else type(self).__name__,
            "distribution": entry.distribution if entry else None,
            "version": entry.version if entry else None,
        }
        try:
            result = SMPModel.save_pretrained(cast(Any, self), save_directory, **kwargs)
        finally:
            self.config.pop("_unetzoo", None)  # pushing to the hub saves again inside this call
        ModelBundle.of(self).save(Path(save_directory))
        return result

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleVariableOverride] -- the hub's is wrapped
        cls, pretrained_model_name_or_path: str | Path, **kwargs: Any
    ) -> Self:
        """Load a saved network in evaluation mode, with its labels and preprocessing attached.

        Raises:
            CheckpointError: Files are damaged, or the weights cannot be read.
        """
        check_manifest(Path(pretrained_model_name_or_path))
        check_source(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)  # pyright: ignore[reportReturnType, reportArgumentType]

    def _save_pretrained(self, save_directory: Path) -> None:
        from safetensors.torch import save

        # not save_file, which lets only the owner read the file
        write_bytes(save_directory / WEIGHTS, save(unshared(self.state_dict()), metadata={"format": "pt"}))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **model_kwargs: Any,
    ) -> Self:
        """Build from the saved arguments and load a local or hub safetensors file, without executing code."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        fetch = partial(
            hf_hub_download,
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        path = Path(model_id) / WEIGHTS
        if not Path(model_id).is_dir():
            path = Path(fetch(WEIGHTS))
            with contextlib.suppress(EntryNotFoundError):  # third-party repositories have none
                fetch(FILE)
        state = read_safetensors(path, map_location)
        net = cls(**model_kwargs)
        check_tensors(net.state_dict(), state, path)
        try:
            net.load_state_dict(state, strict=strict)
        except RuntimeError as error:
            raise CheckpointMismatchError("weights of another network", subject=path, found=str(error)) from error
        net = net.to(map_location).eval()
        if (path.parent / FILE).is_file():
            ModelBundle.load(path.parent, net).attach()
        return net

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """Generate the README written by `save_pretrained`."""
        from huggingface_hub import ModelCard

        from .card import pretrained_text

        arguments = {key: value for key, value in self.config.items() if not key.startswith("_")}
        return ModelCard(
            pretrained_text(type(self).__name__, self.card, arguments, kwargs.get("metrics"), kwargs.get("dataset"))
        )
