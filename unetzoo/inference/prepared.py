"""What a trained network brings along: its labels, what is done to a picture before it, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..labels import LabelSpec


@dataclass(frozen=True)
class Prepare:
    """What a run's validation does to a picture: resizing to 8-bit levels, then scaling.

    Args:
        size: (height, width) that pictures are resized to; None leaves them as they are.
        normalize: As `unetzoo.datasets.Transform` takes it: "unit", "minmax", "standard" or {"mean": …, "std": …}.

    Shape:
        Takes a uint8 array (H, W, C), gives float32 (C, h, w).

    Examples:
        >>> Prepare(size=(2, 2))(np.full((4, 6, 1), 51, np.uint8))
        tensor([[[0.2000, 0.2000],
                 [0.2000, 0.2000]]])
    """

    size: tuple[int, int] | None = None
    normalize: Any = "unit"

    def __call__(self, picture: np.ndarray) -> Tensor:
        """Prepare one picture."""
        levels = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32, order="C"))[None]
        return self.scaled(self.resized(levels))[0]

    def resized(self, levels: Tensor) -> Tensor:
        """Pictures (N, C, H, W) of 0…255 at the size that the network sees, in whole levels."""
        return levels if self.size is None else self.unrounded(levels).round()

    def unrounded(self, levels: Tensor) -> Tensor:
        """The same before rounding.

        Pictures of that size already come out as they are, without a branch: one would bind exported programs to other
        sizes.
        """
        if self.size is None:
            return levels
        return F.interpolate(levels, self.size, mode="bilinear", align_corners=False, antialias=True)

    def scaled(self, levels: Tensor) -> Tensor:
        """Pictures of 0…255 as the network was trained on them; what is given may be overwritten."""
        from ..datasets.color import normalize

        return normalize(levels, self.normalize)


class TrainedNetwork(NamedTuple):
    """A network with what belongs to it; `unetzoo.training.load_run` gives it for a run folder.

    Args:
        net: The network.
        labels: Names and colours of its classes; None names them by their index.
        prepare: uint8 array (H, W, C) → float tensor (C, h, w), as validation does.
        threshold: The probabilities that the run was evaluated with; None means 0.5.
        multilabel: Whether a pixel may bear several labels.
        name: What it is called in results.
    """

    net: Any
    labels: LabelSpec | None
    prepare: Callable[[np.ndarray], Tensor]
    threshold: float | Sequence[float] | None = None
    multilabel: bool = False
    name: str = ""
