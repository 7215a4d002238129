"""The contract of our networks: segmentation-models-pytorch's (SMP), kept without its faults.

`SegmentationModel` subclasses SMP's base, so that code written for SMP runs on ours: `encoder`, `decoder`,
`segmentation_head`, `classification_head`, `predict`, `freeze_encoder`, `save_pretrained`.
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
from ..io import check_manifest
from ..modules import unshared
from ..registry import MODELS, check_keywords
from .blocks import Encoder, he_normal_
from .geometry import Geometry, Region
from .regions import RegionNetwork, decodes_regions
from .states import check_tensors, read_safetensors

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
    """The module for SMP's `activation` keyword (SMP's names; softmax is over the channels).

    Raises:
        UnknownNameError: With the nearest name.
    """
    entry = OUTPUT_ACTIVATIONS.get(activation or "identity")
    if entry is None:
        raise UnknownNameError(
            f"unknown activation {activation!r}", hint=did_you_mean(str(activation), OUTPUT_ACTIVATIONS, "activation")
        )
    return entry[0](**entry[1]) if isinstance(entry, tuple) else entry()


def segmentation_head(in_channels: int, classes: int, activation: str | None) -> nn.Sequential:
    """1×1 convolution and output activation; `[0]` is the convolution, where code written for SMP looks for it."""
    if not isinstance(classes, int) or classes < 1:
        raise ConfigError("wrong classes", expected="an integer ≥ 1", found=repr(classes))
    return nn.Sequential(nn.Conv2d(in_channels, classes, 1), output_activation(activation))


def classification_head(in_channels: int, aux_params: Mapping[str, Any] | None) -> nn.Module | None:
    """SMP's auxiliary head: pooling, dropout, linear layer; `aux_params` needs at least `classes`.

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
    """Base of our networks; a plugin's network may subclass it too.

    Arguments of every network of ours:

    - `in_channels`: channels of the image
    - `classes`: channels of the output
    - `encoder_channels`: channels of each level, finest first; their number − 1 is the number of poolings
    - `hidden_act`: non-linearity between layers, "relu" or a table such as
      `{"type": "leaky_relu", "negative_slope": 0.05}`
    - `align`: how an up-sampled map meets a skip of odd size, "resize" (interpolated) or "pad" (with zeros)
    - `activation`: of the output, by SMP's names; none by default, so the output is logits
    - `aux_params`: options of SMP's classification head (`classes`, `pooling`, `dropout`, `activation`)

    A subclass takes explicit keywords that JSON can hold, sets `encoder`, `decoder`, `segmentation_head`,
    `classification_head`, `in_channels`, `name` and, where it is known, `geometry`, ends its `__init__` with
    `self.initialize()`, and defines `forward`. Where that is encoder → decoder → heads and nothing else, the class says
    so with `plain_forward = True`, and single regions of the output can be decoded.

    Shape:
        Input (N, in_channels, H, W); output logits (N, classes, H', W'), with `geometry` relating the sizes;
        with `aux_params` a tuple (masks, labels).

    Raises:
        UnknownKeywordError: A keyword the network does not take, with the nearest spelling.
        ConfigError: A value that JSON cannot hold, and so `save_pretrained` would lose.
    """

    requires_divisible_input_shape = False
    _is_torch_scriptable = False  # TorchScript is deprecated; compile and export are promised instead

    card: ClassVar[Card | None] = None
    plain_forward: ClassVar[bool] = False
    weight_layouts: ClassVar[Mapping[str, WeightLayout]] = {}  # other authors' checkpoints that it reads
    encoder: Any
    decoder: Any
    segmentation_head: Any
    classification_head: nn.Module | None
    in_channels: int
    name: str
    geometry: Geometry

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse unknown keywords and values that a saved configuration would lose."""
        check_keywords(cls, kwargs, cls.__name__)
        for value in (*args, *kwargs.values()):
            try:
                json.dumps(value)
            except TypeError as error:
                raise ConfigError(
                    f"{cls.__name__} takes values that JSON can hold",
                    found=repr(value),
                    hint='name the thing instead, e.g. activation="sigmoid"',
                ) from error
        return super().__new__(cls, *args, **kwargs)

    def initialize(self) -> None:
        """Draw the weights as the U-Net paper does: N(0, √(2/N)); a foreign encoder keeps its own."""
        if isinstance(self.encoder, Encoder):
            he_normal_(self.encoder)
        he_normal_(self.decoder)
        he_normal_(self.segmentation_head)
        if self.classification_head is not None:
            smp_init.initialize_head(self.classification_head)

    def check_input_shape(self, x: Tensor) -> None:
        """Check channels and size of an input; a compiled network does not.

        Raises:
            InputShapeError: With the nearest legal sizes.
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
        """The sizes that `forward` takes, in words."""
        g = getattr(self, "geometry", None)
        if g is None:
            return "not stated"
        if g.maximum == g.minimum:
            return f"exactly {g.minimum}×{g.minimum}"
        return f"sizes ≥ {g.minimum}" if g.step == 1 else f"sizes {g.minimum} + {g.step}k"

    def with_labels(self, masks: Any, coarsest: Tensor) -> Any:
        """The output of `forward`: the masks, or with SMP's classification head the tuple (masks, labels).

        Args:
            masks: Output of the segmentation head, or a NamedTuple with it first.
            coarsest: The last map of the encoder.
        """
        return masks if self.classification_head is None else (masks, self.classification_head(coarsest))

    @property
    def decodes_regions(self) -> bool:
        """Whether `decode_region` works."""
        return decodes_regions(self)

    def decode_region(self, x: Tensor, region: Region) -> Any:
        """Decode only a region of the output; the decoder skips what the region does not need. In evaluation mode.

        Args:
            x: Images whose sides are multiples of the stride.
            region: Rows and columns of the output.

        Raises:
            InputShapeError: Other channels or sizes than the network takes; a region that is not inside the output.
            ConfigError: A network that cannot decode a region.
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
        """Write `config.json` (arguments, and who made the class), `model.safetensors`, a model card.

        Labels and preprocessing, where they are known (`ModelBundle.attach`), go into `preprocess.json`; the SHA-256
        of all of these into `manifest.json`.
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
            self.config.pop("_unetzoo", None)  # pushing to the hub saves once more inside of this
        ModelBundle.of(self).save(Path(save_directory))
        return result

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleVariableOverride] -- the hub's is wrapped
        cls, pretrained_model_name_or_path: str | Path, **kwargs: Any
    ) -> Self:
        """Load what `save_pretrained` wrote, in evaluation mode, with its labels and preprocessing attached.

        Raises:
            CheckpointError: Damaged files, or no readable weights.
        """
        check_manifest(Path(pretrained_model_name_or_path))
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)  # pyright: ignore[reportReturnType, reportArgumentType]

    def _save_pretrained(self, save_directory: Path) -> None:
        from safetensors.torch import save_file

        save_file(unshared(self.state_dict()), save_directory / WEIGHTS, metadata={"format": "pt"})

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
        """Build from the saved arguments and load the safetensors file, local or from the hub; no code is run."""
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
            with contextlib.suppress(EntryNotFoundError):  # repositories that others wrote have none
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
        """The README that `save_pretrained` writes: what it is and how to load it."""
        from huggingface_hub import ModelCard

        from .card import pretrained_text

        arguments = {key: value for key, value in self.config.items() if not key.startswith("_")}
        return ModelCard(
            pretrained_text(type(self).__name__, self.card, arguments, kwargs.get("metrics"), kwargs.get("dataset"))
        )
