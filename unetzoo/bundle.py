"""A network with its labels, preprocessing and decision, in memory and in a saved folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from .cleaning import Cleaning
from .errors import CheckpointError, ConfigError
from .images import Pixels, Preprocess
from .instances import ObjectRule
from .io import write_json, write_manifest
from .labels import LabelSpec, Mode
from .precision import Precision, supported

FILE, WEIGHTS = "preprocess.json", "model.safetensors"
_ATTRIBUTE = "_unetzoo_bundle"


class ModelBundle(NamedTuple):
    """A network with its labels, preprocessing and decision.

    Args:
        model: The network.
        labels: Names and colors of its classes; if None, classes are named by index.
        preprocess: Image (H, W, C) → float tensor (C, h, w), as in validation; None if unknown. Images are uint8, or
            float32 in 0…1 if `pixels` declares a range.
        threshold: The probability thresholds used in evaluation; None means 0.5.
        mode: "binary", "multiclass" or "multilabel" (a pixel may have several labels); if None, determined by the
            number of channels.
        name: Name of the network in results.
        precision: Precision used in training; also used for prediction if the device supports it natively.
        pixels: The channels and the range of values of image files; if None, 8-bit images are converted to the
            network's channels.
        objects: How objects are separated; if None, they are connected pieces of a class.
        cleaning: Cleanup of predicted masks.
    """

    model: Any
    labels: LabelSpec | None = None
    preprocess: Callable[[np.ndarray], Tensor] | None = None
    threshold: float | Sequence[float] | None = None
    mode: Mode | None = None
    name: str = ""
    precision: Precision | None = None
    pixels: Pixels | None = None
    objects: ObjectRule | None = None
    cleaning: Cleaning | None = None

    @classmethod
    def of(cls, model: Any) -> ModelBundle:
        """Return the bundle attached to a network or exported file, or a bundle of only the network.

        A bundle is returned unchanged.
        """
        if isinstance(model, cls):
            return model
        if not isinstance(model, nn.Module) and isinstance(bundle := getattr(model, "bundle", None), cls):
            return bundle
        known = getattr(model, _ATTRIBUTE, None)
        if known is not None:
            return known._replace(model=model)
        return cls(model, name=getattr(model, "name", type(model).__name__))

    def known(self, **given: Any) -> ModelBundle:
        """Return the bundle with some fields replaced, and check that the preprocessing is known.

        Args:
            given: Fields to replace; None keeps a field.

        Raises:
            ConfigError: The preprocessing is unknown; guessing it could silently give wrong predictions.
        """
        bundle = self._replace(**{name: value for name, value in given.items() if value is not None})
        if bundle.preprocess is None:
            raise ConfigError(
                "the preprocessing of this network is unknown",
                subject=bundle.name or type(bundle.model).__name__,
                expected="what validation did to an image",
                hint='pass it: preprocess=unetzoo.Preprocess(normalize="unit") divides by 255; networks that a Trainer '
                "trained, or that unetzoo.load opened, know theirs",
            )
        return bundle

    def predicting_precision(self) -> Precision | None:
        """Return the precision used in training, or "fp32" on a device that does not support it natively."""
        tensor = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        if self.precision is None or tensor is None:
            return self.precision
        return supported(self.precision, tensor.device)

    def attach(self) -> None:
        """Attach the bundle to the network, so that it is used when predicting with or saving the network."""
        # Not a module or parameter: the state dict is unchanged.
        object.__setattr__(self.model, _ATTRIBUTE, self._replace(model=None))

    def save(self, folder: Path) -> None:
        """Write `preprocess.json` and then `manifest.json` to a folder that contains the saved network.

        Preprocessing that cannot be serialized (albumentations, a function) is not written.
        """
        preprocess = self.preprocess.to_dict() if isinstance(self.preprocess, Preprocess) else None
        if any(known is not None for known in (self.labels, preprocess, *self[3:5], *self[7:])):
            content = {
                "preprocess": preprocess,
                "labels": None if self.labels is None else self.labels.to_dict(),
                "threshold": self.threshold,
                "mode": self.mode,
                "name": self.name,
                "precision": self.precision,
                "pixels": None if self.pixels is None else self.pixels.to_dict(),
                "objects": None if self.objects is None else asdict(self.objects),
                "cleaning": None if self.cleaning is None else self.cleaning.to_dict(),
            }
            write_json(folder / FILE, content)
        else:
            (folder / FILE).unlink(missing_ok=True)  # left over from a network saved there earlier
        write_manifest(folder, [name for name in ("config.json", WEIGHTS, FILE) if (folder / name).is_file()])

    @classmethod
    def load(cls, folder: Path, model: nn.Module) -> ModelBundle:
        """Read the bundle of a network from its saved folder, or return a bundle of only the network if there is none.

        Raises:
            CheckpointError: The file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return cls.of(model)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            labels, preprocess = content["labels"], content["preprocess"]
            return cls(
                model,
                None if labels is None else LabelSpec.from_dict(labels),
                None if preprocess is None else Preprocess.from_dict(preprocess),
                content["threshold"],
                content["mode"],
                content["name"],
                content["precision"],
                None if content.get("pixels") is None else Pixels.from_dict(content["pixels"]),
                None if content.get("objects") is None else ObjectRule(**content["objects"]),
                None if content.get("cleaning") is None else Cleaning(**content["cleaning"]),
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                "cannot read the preprocessing of a network",
                subject=path,
                found=f"{type(error).__name__}: {error}",
                hint="restore the file from a copy, or save the network again",
            ) from error
