"""ISBI 2012 EM segmentation challenge: the original U-Net task. 30 slices, 512×512, membranes against cells.

Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics",
Frontiers in Neuroanatomy 9:142; images by Cardona et al. 2010, PLoS Biology 8(10):e1000502.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ..errors import SizeMismatchError
from ..labels import LabelSpec
from .archive import data_root
from .base import Sample, SampleTransform, SegmentationDataset, check_split
from .files import PathLike, check_same_size, map_labels, read_image, read_mask, read_stack, stack_shape
from .layout import wrong_layout
from .listing import list_folder, pair_by_stem

VOLUME, VOLUME_LABELS = "train-volume.tif", "train-labels.tif"


class ISBI2012(SegmentationDataset):
    """The 30 labeled slices, from the challenge's two stacks or from folders of PNGs.

    Layouts read: `train-volume.tif` with `train-labels.tif`, or `images/NN.png` with `labels/NN.png`. Neighboring
    slices are nearly the same image, so the split is contiguous: the last fifth (slices 24…29) is val. The challenge
    never published labels of its test slices: hand those to `unetzoo predict`.

    Args:
        root: The folder that holds the stacks or the two folders, or an archive of it (.zip, .tar, .tar.gz, …).
        split: "train", "val" or "all".
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (512, 512, 1), `mask` uint8 (512, 512): 0 membrane, 1 cell.

    Raises:
        ConfigError: Unknown split.
        DataError: Another layout, and all that the files may be guilty of.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for kind in ("images", "labels"):
        ...     (root / kind).mkdir()
        ...     for i in range(10):
        ...         Image.new("L", (8, 8), 255).save(root / kind / f"{i:02d}.png")
        >>> [ISBI2012(root, split)[0]["id"] for split in ("train", "val")]
        ['00', '08']
    """

    how_to_get: ClassVar[str] = (
        f"register at https://imagej.net/events/isbi-2012-segmentation-challenge and put {VOLUME} and {VOLUME_LABELS} "
        "into one folder, or the slices as PNG into images/ and labels/"
    )

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "all"] = "train",
        transform: SampleTransform | None = None,
    ) -> None:
        check_split(split, ("train", "val", "all"), "ISBI2012")
        super().__init__(labels=LabelSpec(("membrane", "cell"), ids=(0, 255)), split=split, transform=transform)
        self.root = data_root(root)
        found = {path.name: path for path in list_folder(self.root, self.how_to_get)}
        self._stacks: tuple[np.ndarray, np.ndarray] | None = None
        self._files = None
        if VOLUME in found and VOLUME_LABELS in found:
            count = self._count_slices()
        elif "images" in found and "labels" in found:
            self._files = pair_by_stem(found["images"], found["labels"], how_to_get=self.how_to_get)
            count = len(self._files)
        else:
            expected = f"{VOLUME} and {VOLUME_LABELS}, or images/ and labels/"
            raise wrong_layout("ISBI 2012", self.root, expected, self.how_to_get)
        first_val = count - max(1, round(count / 5))
        self._slices = {"train": range(first_val), "val": range(first_val, count), "all": range(count)}[split]

    def _count_slices(self) -> int:
        """Length of the stacks, from their headers."""
        images, labels = stack_shape(self.root / VOLUME), stack_shape(self.root / VOLUME_LABELS)
        if images != labels:
            raise SizeMismatchError(
                "stacks of different shape",
                subject=self.root,
                expected=f"{images} as in {VOLUME}",
                found=f"{labels} in {VOLUME_LABELS}",
                hint="fetch both files again",
            )
        return images[0]

    def _volumes(self) -> tuple[np.ndarray, np.ndarray]:
        if self._stacks is None:
            self._stacks = read_stack(self.root / VOLUME), read_stack(self.root / VOLUME_LABELS)
        return self._stacks

    def __getstate__(self) -> dict[str, object]:
        """Workers read the stacks again: cheaper than sending them."""
        return self.__dict__ | {"_stacks": None}

    def __len__(self) -> int:
        return len(self._slices)

    def sources(self) -> list[Path]:
        """Both stacks, or the split's images and labels."""
        if self._files is None:
            return [self.root / VOLUME, self.root / VOLUME_LABELS]
        return [path for number in self._slices for path in self._files[number][1:]]

    def load(self, index: int) -> Sample:
        """One slice."""
        number = self._slices[index]
        if self._files is None:
            images, labels = self._volumes()
            mask = map_labels(labels[number], self.labels, f"{self.root / VOLUME_LABELS}, slice {number}")
            return {"image": images[number][..., None], "mask": mask, "id": f"{number:02d}"}
        stem, image_path, mask_path = self._files[number]
        image = read_image(image_path, channels=1)
        mask = read_mask(mask_path, self.labels)
        check_same_size(image, mask, image_path, mask_path)
        return {"image": image, "mask": mask, "id": stem}

    def baseline(self, sample: Sample) -> np.ndarray:
        """What a network must beat: cell everywhere, which is right for 78 % of the pixels and finds no membrane."""
        return np.full_like(sample["mask"], self.labels.names.index("cell"))
