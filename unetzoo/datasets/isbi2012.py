"""ISBI 2012 EM segmentation challenge: the original U-Net task, 30 slices of 512×512 with membranes and cells.

Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics",
Frontiers in Neuroanatomy 9:142; images by Cardona et al. 2010, PLoS Biology 8(10):e1000502.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..errors import SizeMismatchError
from ..labels import LabelSpec
from .base import Sample, SampleTransform
from .file_dataset import FileDataset, FileSample
from .files import PathLike, map_labels, read_stack, stack_shape
from .layout import FileLayout, FilePattern

VOLUME, VOLUME_LABELS = "train-volume.tif", "train-labels.tif"
LABELS = LabelSpec(("membrane", "cell"), ids=(0, 255))


class ISBI2012(FileDataset):
    """The 30 labeled slices, read from the two stacks of the challenge or from folders of PNGs.

    Supported layouts: `train-volume.tif` with `train-labels.tif`, or `images/NN.png` with `labels/NN.png`. Neighboring
    slices are nearly identical, so the split is contiguous: the last fifth (slices 24…29) is test, the four before it
    (20…23) are val. The labels of the challenge's own test slices were never published; use `unetzoo predict` for them.

    Args:
        root: The folder that contains the stacks or the two folders, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val", "test" or "all".
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (512, 512, 1), `mask` uint8 (512, 512): 0 membrane, 1 cell.

    Raises:
        ConfigError: Unknown split.
        DataError: Wrong layout, or invalid files.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for kind in ("images", "labels"):
        ...     (root / kind).mkdir()
        ...     for i in range(10):
        ...         Image.new("L", (8, 8), 255).save(root / kind / f"{i:02d}.png")
        >>> [ISBI2012(root, split)[0]["id"] for split in ("train", "val", "test")]
        ['00', '07', '08']
    """

    how_to_get: ClassVar[str] = (
        f"register at https://imagej.net/events/isbi-2012-segmentation-challenge and put {VOLUME} and {VOLUME_LABELS} "
        "into one folder, or the slices as PNG into images/ and labels/"
    )

    layouts = (
        FileLayout(
            "isbi2012-tif", f"ISBI 2012 as released: {VOLUME} and {VOLUME_LABELS}",
            (
                FilePattern("image", "{name}-volume.tif", suffixes=(".tif",)),
                FilePattern("mask", "{name}-labels.tif", suffixes=(".tif",)),
            ),
            LABELS, fields={"name": "train"}, aside=(r"test-volume\.tif",), strict=False, gray=True, stacked=True,
        ),
        FileLayout(
            "isbi2012", "ISBI 2012 as PNG: images/NN.png and labels/NN.png",
            (FilePattern("image", "images/{name}.png"), FilePattern("mask", "labels/{name}.png")),
            LABELS, sample_names="{:02d}", gray=True, certainty=0.5, telltale=r"[0-2]\d", told=0.75,
        ),
    )  # fmt: skip
    splits = ("train", "val", "test", "all")

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "test", "all"] = "train",
        transform: SampleTransform | None = None,
    ) -> None:
        self._stacks: tuple[np.ndarray, np.ndarray] | None = None
        super().__init__(root, split, transform=transform)

    @classmethod
    def divide(cls, names: Sequence[str], split: str, root: Path, **options: Any) -> Collection[str]:
        """Divide the names; the last fifth is test, and two fifteenths before it are val."""
        test = len(names) - max(1, round(len(names) / 5))
        val = test - max(1, round(len(names) * 2 / 15))
        return {"train": names[:val], "val": names[val:test], "test": names[test:], "all": names}[split]

    def _find(self, split: str | None, options: dict[str, Any]) -> list[FileSample]:
        if not self.layout.stacked:
            return super()._find(split, options)
        files = {"image": self.root / VOLUME, "mask": self.root / VOLUME_LABELS}
        images, labels = (stack_shape(path) for path in files.values())
        if images != labels:
            raise SizeMismatchError(
                "stacks of different shape", subject=self.root, expected=f"{images} as in {VOLUME}",
                found=f"{labels} in {VOLUME_LABELS}", hint="download both files again",
            )  # fmt: skip
        names = [f"{number:02d}" for number in range(images[0])]
        return [FileSample(name, files) for name in self.divide(names, str(split), self.root)]

    def __getstate__(self) -> dict[str, object]:
        """Drop the stacks: workers read them again, which is cheaper than sending them."""
        return self.__dict__ | {"_stacks": None}

    def sources(self) -> list[Path]:
        """Return both stacks, or the images and labels of the split."""
        return list(dict.fromkeys(super().sources()))

    def load(self, index: int) -> Sample:
        """Load one slice."""
        if not self.layout.stacked:
            return super().load(index)
        name, files = self.files[index].name, self.files[index].files
        if self._stacks is None:
            self._stacks = read_stack(files["image"]), read_stack(files["mask"])
        images, labels = self._stacks
        mask = map_labels(labels[int(name)], self.labels, f"{files['mask']}, slice {int(name)}")
        return {"image": images[int(name)][..., None], "mask": mask, "id": name}

    def baseline(self, sample: Sample) -> np.ndarray:
        """Predict cell everywhere, a baseline that is right for 78 % of the pixels but finds no membrane."""
        return np.full_like(sample["mask"], self.labels.names.index("cell"))
