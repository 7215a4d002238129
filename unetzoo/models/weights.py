"""Saved networks: from a folder (or hub repository) back to the very class that wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..bundle import FILE, ModelBundle
from ..errors import CheckpointError, PluginError, UnknownNameError
from ..io import check_manifest
from ..plugins import ENV_VAR
from ..registry import LOCAL, MODELS
from .states import check_finite


def from_pretrained(path: str | Path, *, strict: bool = True, map_location: str = "cpu", **overrides: Any) -> Any:
    """The network that `save_pretrained` wrote, ours, a plugin's or SMP's own, in evaluation mode.

    Labels and preprocessing that were saved with it are attached (`ModelBundle.of(net)`).

    Args:
        path: A folder, or the name of a hub repository.
        strict: Refuse missing and unexpected weights.
        map_location: Device of the weights.
        overrides: Constructor arguments to change, and the hub's (`revision`, `token`, …).

    Raises:
        CheckpointError: No readable configuration or weights; NaN or infinity in them.
        PluginError: The class comes from a package that is not installed.

    Examples:
        >>> import tempfile, unetzoo
        >>> net = unetzoo.build("unet", encoder_channels=(4, 8, 16))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = net.save_pretrained(folder)
        ...     type(unetzoo.from_pretrained(folder)).__name__
        'UNet'
    """
    check_manifest(Path(path))  # before anything is read of it
    config = _config(path, overrides.get("revision"))
    origin = config.get("_unetzoo")
    if origin is None:
        import segmentation_models_pytorch as smp

        net = smp.from_pretrained(str(path), strict=strict, map_location=map_location, **overrides)
        check_finite(net.state_dict(), path)
        if (Path(path) / FILE).is_file():
            ModelBundle.load(Path(path), net).attach()
        return net
    if origin["distribution"] is None:
        raise CheckpointError(
            "cannot tell the class of this network",
            subject=path,
            found=f"{origin['name']}, which was in no registry when it was saved",
            hint=f"load it with {origin['name']}.from_pretrained(path)",
        )
    try:
        model = MODELS.get(f"{origin['distribution']}:{origin['name']}")
    except UnknownNameError as error:
        here = origin["distribution"] == LOCAL
        fix = f"first run what registers {origin['name']!r}" if here else f"install {origin['distribution']}"
        raise PluginError(
            "the network's class is not installed",
            subject=path,
            expected=f"{origin['name']!r} of {origin['distribution']} {origin['version']}",
            hint=error.hint if ENV_VAR in str(error) else fix,
        ) from error
    return model.from_pretrained(path, strict=strict, map_location=map_location, **overrides)


def _config(path: str | Path, revision: str | None) -> dict[str, Any]:
    file = Path(path) / "config.json"
    try:
        if not Path(path).exists():
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(str(path), "config.json", revision=revision))
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "cannot read the network's configuration",
            subject=file,
            found=f"{type(error).__name__}: {error}",
            hint="a plain module's weights: build it, then unetzoo.from_foreign('model.safetensors', into=net)"
            if (Path(path) / "model.safetensors").exists()
            else "give the folder that save_pretrained wrote",
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError("wrong configuration", subject=file, expected="a JSON table", found=type(config).__name__)
    return config
