"""Cityscapes: 2,975 + 500 + 1,525 street scenes of 2048×1024 with fine labels, 19 classes.

Cordts et al. 2016, "The Cityscapes dataset for semantic urban scene understanding", CVPR, arXiv 1604.01685.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar, Literal

from ..errors import ConfigError, LayoutError
from ..labels import LabelSpec
from .base import SampleTransform, check_split
from .file_dataset import FileDataset
from .files import PathLike
from .layout import FileLayout, FilePattern, MaskValues

# train id: (id in labelIds files, name, color)
TABLE = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
IDS, NAMES, PALETTE = zip(*TABLE, strict=True)
IGNORED = (-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
LABELS = LabelSpec(names=NAMES, ids=IDS, ignore_ids=IGNORED, ignore_index=255, palette=PALETTE)
TRAIN_ID_LABELS = LabelSpec(names=NAMES, ignore_ids=(255,), ignore_index=255, palette=PALETTE)
_PATH = "{split}/{city}/{name}"


class Cityscapes(FileDataset):
    """Street scenes in the 19 scored classes; all other pixels are ignored (255).

    Supported layout: `leftImg8bit/{split}/{city}/*_leftImg8bit.png` with
    `gtFine/{split}/{city}/*_gtFine_labelIds.png`. Images without labelIds use `*_gtFine_labelTrainIds.png`. Other files
    are skipped.

    The labels of the test split are not public: its label files contain only ignored values, so scores are undefined,
    and a warning is issued. The coarse labels (`gtCoarse`, split "train_extra") are not supported.

    Args:
        root: The folder that contains `leftImg8bit/` and `gtFine/`, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val" or "test".
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (1024, 2048, 3), `mask` uint8 (1024, 2048).

    Raises:
        ConfigError: Unknown split.
        DataError: Wrong layout; `PairingError` for images and labels that do not match. On access also
            `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for kind, end, mode in (("leftImg8bit", "_leftImg8bit", "RGB"), ("gtFine", "_gtFine_labelIds", "L")):
        ...     (root / kind / "val" / "ulm").mkdir(parents=True)
        ...     Image.new(mode, (8, 4), 26).save(root / kind / "val" / "ulm" / f"ulm_000000_000019{end}.png")
        >>> data = Cityscapes(root, "val")
        >>> data[0]["id"], data.labels.names[data[0]["mask"][0, 0]]
        ('ulm_000000_000019', 'car')
    """

    how_to_get: ClassVar[str] = (
        "register at https://www.cityscapes-dataset.com and unpack leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip into one folder"
    )

    layouts = (
        FileLayout(
            "cityscapes", "Cityscapes: leftImg8bit/SPLIT/CITY/ and gtFine/SPLIT/CITY/",
            (
                FilePattern("image", f"leftImg8bit/{_PATH}_leftImg8bit.png"),
                FilePattern("mask", f"gtFine/{_PATH}_gtFine_labelIds.png", MaskValues(LABELS)),
                FilePattern("mask", f"gtFine/{_PATH}_gtFine_labelTrainIds.png", MaskValues(TRAIN_ID_LABELS),
                            fallback=True),
            ),
            LABELS, fields={"split": "train|val|test"}, strict=False, withheld=("test",),
            aside=(r"gtFine/.*_gtFine_(?:instance(?:Train)?Ids|color|polygons)\.\w+",
                   r"(?:leftImg8bit/train_extra|gtCoarse|license|README).*"),
        ),
    )  # fmt: skip

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "test"] = "train",
        transform: SampleTransform | None = None,
    ) -> None:
        if split in ("train_extra", "coarse"):
            raise ConfigError(
                "the coarse labels are not supported", subject="Cityscapes", expected="train | val | test",
                found=repr(split), hint="use the fine labels (gtFine)",
            )  # fmt: skip
        check_split(split, ("train", "val", "test"), "Cityscapes")
        if split == "test":
            warnings.warn(
                "Cityscapes keeps the labels of its test split secret: every pixel is ignored and no score is defined. "
                "Use it only for predictions; validate on val",
                stacklevel=2,
            )
        super().__init__(root, split, transform=transform)

    def _wrong_layout(self, folder: Path, expected: str, hint: str = "") -> LayoutError:
        coarse = "; the coarse labels (gtCoarse) are not supported" if (self.root / "gtCoarse").is_dir() else ""
        return super()._wrong_layout(folder, expected, self.how_to_get + coarse)
