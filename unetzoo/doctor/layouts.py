"""The layouts that an audit knows, each as patterns of the files it is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..datasets import camvid, carvana, celebamask, cityscapes, helen, isbi2012
from ..datasets.export_files import COMPOSITE, DEPTH, MANIFEST, MASK, SCENE
from ..datasets.exports import LABELS as EXPORT_LABELS
from ..datasets.listing import IMAGE_SUFFIXES
from ..labels import LabelSpec
from .tree import Role, Slot

EXPORT = "composites-export"
EXT = r"\.(?i:" + "|".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES)) + ")"
NAME = r"(?P<name>[^/]+)"
USUAL = {"images": "images", "masks": "masks", "mask_suffix": ""}  # the names that `folder` takes by default
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "gt", "ground_truth", "segmentation", "targets")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "images", "photos")
MASK_SUFFIXES = ("", "_mask", "_label", "_labels", "_gt", "_seg", "_segmentation", "-mask", "_m")


@dataclass(frozen=True)
class Reading:
    """How a mask file is read.

    Args:
        labels: The declared values; None where none are declared.
        how: "numbers": the stored numbers are classes. "shown": black and white as they look, in any storage.
            "thresholded": bright is foreground, and lossy files are expected.
        otherwise: Values that a file may hold in place of those in `labels`, all of it.
        threshold: The least gray that is foreground, where masks are thresholded.
    """

    labels: LabelSpec | None
    how: Literal["numbers", "shown", "thresholded"] = "numbers"
    otherwise: LabelSpec | None = None
    threshold: int = 128

    def of(self, values: Iterable[int]) -> Reading:
        """The reading of a file that holds these values."""
        if self.otherwise is None or not set(values) <= set(self.otherwise.ids):
            return self
        return replace(self, labels=self.otherwise, otherwise=None)


@dataclass(frozen=True)
class Layout:
    """One layout of one dataset.

    Args:
        dataset: The dataset's registry name.
        about: The layout in a line.
        slots: Its files.
        needs: Roles without which it is not this layout.
        sure: How unmistakable it is when every file fits, in [0, 1].
        telling: Names of samples that settle it, where the folders alone do not.
        told: How sure it is then.
        options: Arguments of the dataset that mean this layout.
        reading: How the mask file of that path is read; None where the user declares the labels.
        labels: The label set of samples; None where the user declares it.
        parts: Whether several mask files make one label map.
        gray: Whether images are read as gray.
        stacked: Whether all samples lie in two files.
        passed_over: Mask files that are read only where there is no other.
    """

    dataset: str
    about: str
    slots: tuple[Slot, ...]
    needs: tuple[Role, ...] = ("image", "mask")
    sure: float = 1.0
    telling: re.Pattern[str] | None = None
    told: float = 0.95
    options: Mapping[str, Any] | None = None
    reading: Callable[[str], Reading] | None = None
    labels: LabelSpec | None = None
    parts: bool = False
    gray: bool = False
    stacked: bool = False
    passed_over: re.Pattern[str] | None = None

    def claimants(self, masks: Sequence[str]) -> list[str]:
        """The mask files of a sample that the dataset would read: one, if all is well, or all its parts."""
        read = [file for file in masks if self.passed_over is None or not self.passed_over.search(file)]
        return read or list(masks)


def slot(role: Role, pattern: str) -> Slot:
    """A slot whose pattern is written without the image suffix, which is `{ext}`."""
    return Slot(role, re.compile(pattern.replace("{ext}", EXT).replace("{name}", NAME)))


def _helen(prefix: str, about: str, *, resorted: bool) -> Layout:
    images, masks = ("images/", "labels/") if resorted else ("", "")
    return Layout(
        "helen", about,
        (
            slot("image", rf"{prefix}(?P<split>train|test)/{images}{{name}}_image{{ext}}"),
            slot("mask", rf"{prefix}(?P<split>train|test)/{masks}{{name}}_label{{ext}}"),
            slot("aside", rf"{prefix}(?:train|test)/.*_viz{{ext}}"),
        ),
        reading=lambda _: Reading(helen.LABELS), labels=helen.LABELS, passed_over=re.compile(r"(?i:\.jpe?g)$"),
    )  # fmt: skip


def _celebamask(task: str) -> Layout:
    images, parts = re.escape(celebamask.PICTURES), re.escape(celebamask.PART_FILES)
    return Layout(
        "celebamask", "CelebA-HQ-img/ID.jpg and CelebAMask-HQ-mask-anno/N/ID_part.png",
        (
            slot("image", rf"{images}/(?P<name>0|[1-9]\d*){{ext}}"),
            slot("mask", rf"{parts}/\d+/0*(?P<name>0|[1-9]\d*)_(?P<part>{'|'.join(celebamask.PARTS)}){{ext}}"),
            slot("misnamed", rf"(?:{images}|{parts}/[^/]+)/[^/]+{{ext}}"),
            slot("aside", r"[^/]+\.txt"),
        ),
        reading=lambda _: Reading(celebamask.PRESENCE, "shown"), labels=celebamask.LABELS[task], parts=True,
    )  # fmt: skip


def _cityscapes_reading(path: str) -> Reading:
    trained = f"{cityscapes.TRAIN_IDS}." in path
    return Reading(cityscapes.TRAIN_ID_LABELS if trained else cityscapes.LABELS)


_CITY = r"(?P<split>train|val|test)/(?P<city>[^/]+)"
CITYSCAPES = Layout(
    "cityscapes", "leftImg8bit/SPLIT/CITY/ and gtFine/SPLIT/CITY/",
    (
        slot("image", rf"leftImg8bit/{_CITY}/{{name}}_leftImg8bit{{ext}}"),
        slot("mask", rf"gtFine/{_CITY}/{{name}}_gtFine_label(?:Train)?Ids{{ext}}"),
        slot("aside", r"gtFine/.*_gtFine_(?:instance(?:Train)?Ids|color|polygons)\.\w+"),
        slot("aside", r"(?:leftImg8bit/train_extra|gtCoarse|license|README).*"),
    ),
    reading=_cityscapes_reading, labels=cityscapes.LABELS, passed_over=re.compile(cityscapes.TRAIN_IDS),
)  # fmt: skip


def _carvana(folder: str) -> Layout:
    other = "train" if folder == "train_hq" else "train_hq"
    return Layout(
        "carvana", f"{folder}/CAR_01.jpg and train_masks/CAR_01_mask.gif",
        (
            slot("image", rf"{folder}/(?P<name>[^/]+_(?:0[1-9]|1[0-6])){{ext}}"),
            slot("mask", r"train_masks/(?P<name>[^/]+_(?:0[1-9]|1[0-6]))_mask{ext}"),
            slot("misnamed", rf"(?:{folder}|train_masks)/[^/]+{{ext}}"),
            slot("aside", rf"(?:{other}|test|test_hq)/.*|[^/]+\.csv"),
        ),
        options={"hq": True} if folder == "train_hq" else None,
        reading=lambda _: Reading(carvana.SHOWN, "shown", carvana.NUMBERS), labels=carvana.SHOWN,
    )  # fmt: skip


def _camvid(about: str, images: str, masks: str) -> Layout:
    return Layout(
        "camvid", about,
        (slot("image", images), slot("mask", masks), slot("aside", r"[^/]+\.txt")),
        sure=0.9 if "annot" in masks else 0.5,
        telling=re.compile(r"(?:\d{4}(?:TP|E5|R0)|Seq05VD)_f?\d+"),
        reading=lambda _: Reading(camvid.LABELS), labels=camvid.LABELS,
    )  # fmt: skip


CELLS = LabelSpec(("membrane", "cell"), ids=(0, 255))
SLICES = Layout(
    "isbi2012", "images/NN.png and labels/NN.png",
    (slot("image", r"images/{name}{ext}"), slot("mask", r"labels/{name}{ext}")),
    sure=0.5, telling=re.compile(r"[0-2]\d"), told=0.75, reading=lambda _: Reading(CELLS), labels=CELLS, gray=True,
)  # fmt: skip
STACKS = Layout(
    "isbi2012", f"{isbi2012.VOLUME} and {isbi2012.VOLUME_LABELS}",
    (
        slot("image", re.escape(isbi2012.VOLUME).replace("train", "(?P<name>train)", 1)),
        slot("mask", re.escape(isbi2012.VOLUME_LABELS).replace("train", "(?P<name>train)", 1)),
        slot("aside", r"test-volume\.tif"),
    ),
    reading=lambda _: Reading(CELLS), labels=CELLS, gray=True, stacked=True,
)  # fmt: skip


def _composites(options: Mapping[str, Any]) -> Layout:
    cutouts, scenes = (re.escape(str(options.get(kind, kind))) for kind in ("fg", "bg"))
    return Layout(
        "composites", "fg/ (cut-outs with transparency) and bg/ (scenes)",
        (slot("cutout", rf"{cutouts}/{{name}}{{ext}}"), slot("scene", rf"{scenes}/{{name}}{{ext}}")),
        needs=("cutout", "scene"), labels=LabelSpec(("background", "foreground")),
    )  # fmt: skip


def export_layout(options: Mapping[str, Any]) -> Layout:
    """Composites as files; their masks may be grays that `mask_threshold` divides."""
    threshold = options.get("mask_threshold")
    how = "numbers" if threshold is None else "thresholded"
    return Layout(
        EXPORT, f"{COMPOSITE}/, {MASK}/ and {SCENE}/ by stem, perhaps {DEPTH}/",
        (
            slot("image", rf"{COMPOSITE}/{{name}}{{ext}}"), slot("mask", rf"{MASK}/{{name}}{{ext}}"),
            slot("depth", rf"{DEPTH}/{{name}}{{ext}}"), slot("background", rf"{SCENE}/{{name}}{{ext}}"),
            slot("aside", re.escape(MANIFEST)),
        ),
        needs=("image", "mask", "background") if options.get("channels", 6) == 6 else ("image", "mask"),
        reading=lambda _: Reading(EXPORT_LABELS, how, threshold=threshold or 128), labels=EXPORT_LABELS,
    )  # fmt: skip


def folder_layout(images: str = "images", masks: str = "masks", suffix: str = "", *, sure: float = 0.6) -> Layout:
    """A user's own two folders, in any of the three arrangements of splits."""
    image, mask = re.escape(images), re.escape(masks)
    ending = re.escape(suffix)
    split = r"(?P<split>[^/]+)"
    options = dict(zip(USUAL, (images, masks, suffix), strict=True))
    return Layout(
        "folder", f"{images}/ and {masks}/ by stem",
        (
            slot("image", rf"{image}/(?:{split}/)?{{name}}{{ext}}"),
            slot("image", rf"{split}/{image}/{{name}}{{ext}}"),
            slot("mask", rf"{mask}/(?:{split}/)?(?P<name>[^/]+){ending}{{ext}}"),
            slot("mask", rf"{split}/{mask}/(?P<name>[^/]+){ending}{{ext}}"),
            slot("misnamed", rf"(?:[^/]+/)?{mask}/(?:[^/]+/)?[^/]+{{ext}}"),
        ),
        sure=sure, options={key: value for key, value in options.items() if value != USUAL[key]} or None,
    )  # fmt: skip


def official(dataset: str, options: Mapping[str, Any]) -> list[Layout]:
    """The layouts of a dataset, or of all (`dataset=""`), except those of `folder` and `csv`."""
    known = [
        CITYSCAPES,
        _celebamask(str(options.get("task", "parts"))),
        _helen("", "train/ and test/ with NAME_image.jpg and NAME_label.png", resorted=False),
        _helen(rf"(?:{helen.RESORTED}/)?", "splitted_Data/{train,test}/{images,labels}/", resorted=True),
        *(_carvana(folder) for folder in ("train", "train_hq") if options.get("hq") in (None, folder == "train_hq")),
        _camvid("train/ and trainannot/, and so on", rf"(?P<split>train|val|test)/{NAME}{{ext}}",
                rf"(?P<split>train|val|test)annot/{NAME}{{ext}}"),
        _camvid("images/SPLIT/ and labels/SPLIT/", rf"images/(?P<split>train|val|test)/{NAME}{{ext}}",
                rf"labels/(?P<split>train|val|test)/{NAME}{{ext}}"),
        SLICES,
        STACKS,
        _composites(options),
        export_layout(options),
    ]  # fmt: skip
    return [layout for layout in known if dataset in ("", layout.dataset)]
