"""Load saved networks from a folder or a hub repository, as instances of their original class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..bundle import FILE, WEIGHTS, ModelBundle
from ..errors import CheckpointError, CheckpointMismatchError, PluginError, UnknownKeywordError, UnknownNameError
from ..io import check_manifest
from ..plugins import ENV_VAR
from ..registry import LOCAL, MODELS, check_keywords
from .states import check_finite, check_format, check_source

RESTORE = "restore the folder from a copy, or save the network again"


def from_pretrained(path: str | Path, *, strict: bool = True, map_location: str = "cpu", **overrides: Any) -> Any:
    """Load a network saved with `save_pretrained` (built-in, from a plugin, or from SMP), in evaluation mode.

    Labels and preprocessing saved with it are attached (`ModelBundle.of(net)`).

    Args:
        path: A folder, or the name of a hub repository.
        strict: Whether to reject missing and unexpected weights.
        map_location: Device of the weights.
        overrides: Constructor arguments to change, and options of the hub (`revision`, `token`, …).

    Raises:
        CheckpointError: The configuration or weights cannot be read, the weights contain NaN or infinity, or the
            network's class does not accept the saved arguments.
        PluginError: The class comes from a package that is not installed.

    Examples:
        >>> import tempfile, unetzoo
        >>> net = unetzoo.build("unet", encoder_channels=(4, 8, 16))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = net.save_pretrained(folder)
        ...     type(unetzoo.from_pretrained(folder)).__name__
        'UNet'
    """
    folder = Path(path)
    check_manifest(folder)  # before reading anything
    check_source(path)
    file, config = _config(folder, overrides.get("revision"))
    overrides |= {"strict": strict, "map_location": map_location}
    if "_unetzoo" in config:
        model = _registered(config["_unetzoo"], file)
        try:
            check_keywords(model, {name: value for name, value in config.items() if name[:1] != "_"}, str(file))
        except UnknownKeywordError as error:
            raise CheckpointError(error.what, subject=file, hint=error.hint) from error
        return model.from_pretrained(path, **overrides)
    model = _smp_class(config.get("_model_class"), file)
    try:
        if (folder / WEIGHTS).is_file():
            check_format(folder / WEIGHTS)
        # Prevent SMP from downloading encoder weights, which the saved weights would replace.
        net = model.from_pretrained(str(path), **({"encoder_weights": None} | overrides))
    except (TypeError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointMismatchError(
            "cannot load this network",
            subject=folder,
            expected=f"arguments and weights of SMP's {model.__name__}",
            found=f"{type(error).__name__}: {error}",
            hint=RESTORE,
        ) from error
    check_finite(net.state_dict(), path)
    if (folder / FILE).is_file():
        ModelBundle.load(folder, net).attach()
    return net


def _registered(origin: Any, file: Path) -> Any:
    """Return the class registered under a saved network's name."""
    known = origin if isinstance(origin, dict) else {}
    name, distribution = known.get("name"), known.get("distribution", ...)
    if not isinstance(name, str) or not isinstance(distribution, str | None):
        raise CheckpointError(
            "wrong configuration",
            subject=file,
            expected="name and distribution of the network under '_unetzoo'",
            found=origin,
            hint=RESTORE,
        )
    if distribution is None:
        raise CheckpointError(
            "the class of this network was not registered when it was saved",
            subject=file,
            found=name,
            hint=f"load it with {name}.from_pretrained(path)",
        )
    try:
        return MODELS.get(f"{distribution}:{name}")
    except UnknownNameError as error:
        fix = f"first run what registers {name!r}" if distribution == LOCAL else f"install {distribution}"
        raise PluginError(
            "the network's class is not installed",
            subject=file,
            expected=f"{name!r} of {distribution} {known.get('version')}",
            hint=error.hint if ENV_VAR in str(error) else fix,
        ) from error


def _smp_class(name: Any, file: Path) -> Any:
    """Return the SMP class of a network saved by SMP."""
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.base import SegmentationModel

    model = getattr(smp, name, None) if isinstance(name, str) else None
    if not (isinstance(model, type) and issubclass(model, SegmentationModel)):
        raise CheckpointError(
            "wrong configuration",
            subject=file,
            expected="'_unetzoo', or an architecture of SMP under '_model_class'",
            found="neither" if name is None else repr(name),
            hint=RESTORE,
        )
    return model


def _config_hint(folder: Path) -> str:
    if (folder / "config.json").exists():
        return "restore it from a copy, or save the network again"
    if (folder / WEIGHTS).exists():
        return f"a plain module's weights: build it, then unetzoo.from_foreign({str(folder / WEIGHTS)!r}, into=net)"
    return "give the folder that save_pretrained wrote"


def _config(folder: Path, revision: str | None) -> tuple[Path, dict[str, Any]]:
    file = folder / "config.json"
    try:
        if not folder.exists():
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(str(folder), "config.json", revision=revision))
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "cannot read the network's configuration",
            subject=file,
            found=f"{type(error).__name__}: {error}",
            hint=_config_hint(folder),
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError("wrong configuration", subject=file, expected="a JSON table", found=type(config).__name__)
    return file, config
