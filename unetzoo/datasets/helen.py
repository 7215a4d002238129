"""Helen faces with the 11 classes of the HelenStar release: 1,999 + 100 images.

Le et al. 2012, "Interactive facial feature localization", ECCV; relabeled by Lin et al. 2019, "Face parsing with RoI
tanh-warping", CVPR, arXiv 1906.01342.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from ..errors import ConfigError, DataError, ImageDecodeError
from ..labels import LabelSpec
from .archive import data_root
from .base import SampleTransform, check_split, seeded_split
from .files import PathLike
from .layout import FilePairs, Pair, by_name, paired, wrong_layout
from .listing import list_images, summary

LABELS = LabelSpec(
    names=("bg", "face", "lb", "rb", "le", "re", "nose", "ulip", "imouth", "llip", "hair"),
    groups={"eyes": (4, 5), "brows": (2, 3), "mouth": (7, 8, 9), "overall": (2, 3, 4, 5, 6, 7, 8, 9)},
    swap_pairs=((2, 3), (4, 5)),
    side="viewer",
)
RESORTED = "splitted_Data"


class Helen(FilePairs):
    """Faces in 11 classes: background, skin, brows, eyes, nose, lips, inner mouth and hair.

    Left and right are the *viewer's*: `lb` lies left in the image. `groups` are the merged regions of the published
    scores: eyes, brows, mouth, overall.

    Layouts read: the release's `train/` and `test/` with `NAME_image.jpg` and `NAME_label.png` (other files, such as
    `NAME_viz.jpg`, are passed over), or re-sorted: `splitted_Data/{train,test}/{images,labels}`. Labels in JPEG files
    are refused; one beside a PNG of the same name is passed over.

    The release has no val. Here it is a seeded share of its train, and "train" is the rest; "trainval" is all of the
    release's train, "test" the release's test.

    Args:
        root: The folder that holds `train/` and `test/`, or `splitted_Data/`; or an archive of it (.zip, .tar, …).
        split: "train", "val", "trainval" or "test".
        val_fraction: Share of "val" in the release's train.
        split_seed: Seed of that division.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, 3), `mask` uint8 (H, W).

    Raises:
        ConfigError: Unknown split, or a share out of range.
        DataError: Another layout; `ImageDecodeError` for labels in JPEG files; `PairingError` for files that do not
            pair. On access also `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

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
        "fetch the HelenStar release (the relabeled Helen of arXiv 1906.01342) and give the folder that holds its "
        "train/ and test/, with NAME_image.jpg and NAME_label.png"
    )

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "trainval", "test"] = "train",
        *,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        transform: SampleTransform | None = None,
    ) -> None:
        check_split(split, ("train", "val", "trainval", "test"), "Helen")
        if not 0 < val_fraction < 1:
            raise ConfigError("wrong val_fraction", expected="between 0 and 1", found=val_fraction, hint="try 0.1")
        root = data_root(root)
        files = self._find(root, "test" if split == "test" else "train")
        if split in ("train", "val"):
            if len(files) < 2:
                raise DataError("too few images to divide", subject=root, expected="2", found=len(files),
                                hint='use split="trainval", or add images')  # fmt: skip
            chosen = set(seeded_split([name for name, _, _ in files], split, val_fraction, split_seed))
            files = [file for file in files if file[0] in chosen]
        super().__init__(root, files, labels=LABELS, split=split, transform=transform)

    def _find(self, root: Path, part: str) -> list[Pair]:
        """The pairs of the release's train or test, in either layout."""
        for folder in (root / RESORTED / part, root / part):
            if (folder / "images").is_dir() and (folder / "labels").is_dir():
                images, labels = (list_images(folder / kind, self.how_to_get) for kind in ("images", "labels"))
                break
        else:
            folder = root / part
            files = list_images(folder, self.how_to_get) if folder.is_dir() else []
            images, labels = ([p for p in files if p.stem.endswith(kind)] for kind in ("_image", "_label"))
            if not images and not labels:
                expected = f"NAME_image.jpg and NAME_label.png in {part}/, or images/ and labels/ in {RESORTED}/{part}/"
                raise wrong_layout("Helen", folder if files else root, expected, self.how_to_get)
        faults: list[str] = []
        lossy = {path for path in labels if path.suffix.lower() in (".jpg", ".jpeg")}
        masks = by_name([path for path in labels if path not in lossy], "_label", faults)
        refused = [str(path) for path in labels if path in lossy and path.stem.removesuffix("_label") not in masks]
        if refused:
            raise ImageDecodeError(
                "labels in JPEG files, which are lossy", subject=folder, expected="NAME_label.png",
                found=summary(refused), hint="fetch the labels as PNG: those in a JPEG are damaged beyond repair",
            )  # fmt: skip
        return paired(by_name(images, "_image", faults), masks, subject=folder, faults=faults)
