"""Helen faces with the 11 classes of the HelenStar release: 1,999 + 100 images.

Le et al. 2012, "Interactive facial feature localization", ECCV; relabeled by Lin et al. 2019, "Face parsing with RoI
tanh-warping", CVPR, arXiv 1906.01342.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import ConfigError
from ..labels import LabelSpec
from .base import SampleTransform, check_split, seeded_split
from .file_dataset import FileDataset
from .files import PathLike
from .layout import FileLayout, FilePattern

LABELS = LabelSpec(
    names=("bg", "face", "lb", "rb", "le", "re", "nose", "ulip", "imouth", "llip", "hair"),
    groups={"eyes": (4, 5), "brows": (2, 3), "mouth": (7, 8, 9), "overall": (2, 3, 4, 5, 6, 7, 8, 9)},
    swap_pairs=((2, 3), (4, 5)),
    side="viewer",
)


def _layout(name: str, about: str, image: str, mask: str) -> FileLayout:
    return FileLayout(
        name, about,
        (
            FilePattern("image", f"{image}.jpg"),
            FilePattern("mask", f"{mask}.jpg", suffixes=(".jpg", ".jpeg"), fallback=True),  # damaged copies of the PNGs
            FilePattern("mask", f"{mask}.png"),
        ),
        LABELS, parts={"train": ("train", "val", "trainval"), "test": ("test",)}, strict=False,
        aside=(r"(?:train|test)/.*_viz\.\w+",),
    )  # fmt: skip


class Helen(FileDataset):
    """Faces in 11 classes: background, skin, brows, eyes, nose, lips, inner mouth and hair.

    Left and right are the *viewer's*: `lb` is on the left in the image. `groups` are the merged regions of the
    published scores: eyes, brows, mouth and overall.

    Supported layouts: `train/` and `test/` with `NAME_image.jpg` and `NAME_label.png` as in the release, or the
    re-sorted `splitted_Data/{train,test}/{images,labels}`. Other files, such as `NAME_viz.jpg`, are skipped. JPEG
    labels are rejected, unless there is a PNG with the same name.

    The release has no validation split. "val" is a seeded share of its train split and "train" the rest; "trainval" is
    the whole train split, and "test" is the test split of the release.

    Args:
        root: The folder that contains `train/` and `test/`, or `splitted_Data/`; or an archive of it (.zip, .tar, …).
        split: "train", "val", "trainval" or "test".
        val_fraction: Share of "val" in the train split of the release.
        split_seed: Seed of the division into "train" and "val".
        fold: "k/n": "val" is the k-th of n folds of the train split, instead of `val_fraction`.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, 3), `mask` uint8 (H, W).

    Raises:
        ConfigError: Unknown split, or a share out of range.
        DataError: Wrong layout; `ImageDecodeError` for JPEG labels; `PairingError` for unmatched files. On access also
            `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "test").mkdir()
        >>> Image.new("RGB", (8, 6)).save(root / "test" / "1_image.jpg")
        >>> Image.new("L", (8, 6), 10).save(root / "test" / "1_label.png")
        >>> data = Helen(root, "test")
        >>> data.labels.names[data[0]["mask"][0, 0]], data.labels.groups["mouth"]
        ('hair', (7, 8, 9))
    """

    how_to_get: ClassVar[str] = (
        "download the HelenStar release (the relabeled Helen of arXiv 1906.01342); root is the folder that contains "
        "its train/ and test/, with NAME_image.jpg and NAME_label.png"
    )

    layouts = (
        _layout("helen-resorted", "Helen re-sorted: splitted_Data/{train,test}/{images,labels}",
                "splitted_Data/{split}/images/{name}_image", "splitted_Data/{split}/labels/{name}_label"),
        _layout("", "Helen re-sorted: {train,test}/{images,labels}",
                "{split}/images/{name}_image", "{split}/labels/{name}_label"),
        _layout("helen", "the HelenStar release: train/ and test/ with NAME_image.jpg and NAME_label.png",
                "{split}/{name}_image", "{split}/{name}_label"),
    )  # fmt: skip
    splits = ("train", "val", "trainval", "test")

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "trainval", "test"] = "train",
        *,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        fold: str | None = None,
        transform: SampleTransform | None = None,
    ) -> None:
        check_split(split, ("train", "val", "trainval", "test"), "Helen")
        if not 0 < val_fraction < 1:
            raise ConfigError("wrong val_fraction", expected="between 0 and 1", found=val_fraction, hint="try 0.1")
        options = {"val_fraction": val_fraction, "split_seed": split_seed, "fold": fold}
        super().__init__(root, split, transform=transform, **options)

    @classmethod
    def divide(
        cls, names: Sequence[str], split: str, root: Path, *, val_fraction: float = 0.1, split_seed: int = 0,
        fold: str | None = None, **options: Any,
    ) -> Collection[str]:  # fmt: skip
        """Divide the train split of the release into train and val."""
        if split not in ("train", "val"):
            return names
        return seeded_split(names, split, val_fraction, split_seed, fold=fold, subject=root)
