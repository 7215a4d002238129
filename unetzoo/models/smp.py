"""SMP's own architectures in our registry, as `smp-<name>`.

They keep SMP's behavior. Three things differ: every keyword is explicit; `encoder_weights` is None by default, so that
nothing is downloaded unless it is given, and may be a file of weights of timm, torchvision or SMP; what SMP passes on
to timm goes into `encoder_kwargs`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import segmentation_models_pytorch as smp

from ..registry import check_keywords
from .geometry import Geometry
from .pretrained import downloading, start_encoder, weights_file

# What SMP 0.6 does otherwise than our own networks; `info` and the tests read it.
TAGS = (
    "smp",
    "after freeze_encoder(), eval() leaves the encoder in training mode",
    "sizes may have to be multiples of the encoder's stride",
    "values that JSON cannot hold are dropped from a saved configuration",
)


def _factory(architecture: type) -> Callable[..., Any]:
    """A function with the architecture's keywords spelled out, `encoder_kwargs` in place of its `**kwargs`."""
    native = inspect.signature(architecture.__init__).parameters.values()
    parameters = [
        p.replace(default=None, kind=p.KEYWORD_ONLY) if p.name == "encoder_weights" else p.replace(kind=p.KEYWORD_ONLY)
        for p in native
        if p.name != "self" and p.kind is not p.VAR_KEYWORD
    ]
    if any(p.kind is p.VAR_KEYWORD for p in native):
        annotation = "Mapping[str, Any] | None"
        parameters.append(
            inspect.Parameter("encoder_kwargs", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )

    def build(**given: Any) -> Any:
        check_keywords(build, given, name)
        extras: Mapping[str, Any] = given.pop("encoder_kwargs", None) or {}
        file = weights_file(given.get("encoder_weights"))
        given["encoder_weights"] = given.get("encoder_weights") if file is None else None
        with downloading(given.get("encoder_name", "the default encoder"), given["encoder_weights"]):
            net = architecture(**given, **extras)
        if file is not None:
            start_encoder(net.encoder, file)
        if geometry := _geometry(net):
            net.geometry = geometry
        return net

    name = f"smp-{architecture.__name__.lower()}"
    build.__name__ = build.__qualname__ = architecture.__name__.lower()
    build.tags = TAGS  # type: ignore[attr-defined]
    build.__doc__ = f"SMP's {architecture.__name__}; see its documentation for the keywords."
    build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return build


def _geometry(net: Any) -> Geometry | None:
    """Sizes of the architectures that do not take every multiple of their encoder's stride."""
    stride = net.encoder.output_stride
    if isinstance(net, smp.PAN):  # it pools its deepest map three times
        return Geometry(minimum=8 * stride, stride=stride, step=stride)
    if isinstance(net, smp.DPT):
        if net.encoder.is_fixed_input_size and not getattr(net.encoder.model, "dynamic_img_size", False):
            side = net.encoder.input_size[1]
            return Geometry(minimum=side, maximum=side, stride=stride, step=stride)
        return Geometry(minimum=2 * stride, stride=2 * stride, step=2 * stride)  # it halves the encoder's map
    return None


unet = _factory(smp.Unet)
unetplusplus = _factory(smp.UnetPlusPlus)
manet = _factory(smp.MAnet)
linknet = _factory(smp.Linknet)
fpn = _factory(smp.FPN)
pspnet = _factory(smp.PSPNet)
deeplabv3 = _factory(smp.DeepLabV3)
deeplabv3plus = _factory(smp.DeepLabV3Plus)
pan = _factory(smp.PAN)
upernet = _factory(smp.UPerNet)
segformer = _factory(smp.Segformer)
dpt = _factory(smp.DPT)
