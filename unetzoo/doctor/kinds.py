"""The kinds of findings: how bad each is, why it matters, what to do. Standard library only."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Kind(NamedTuple):
    """A kind's usual severity, its reason and its fix."""

    severity: Literal["error", "warning", "note"]
    reason: str
    fix: str


_SAVE_AS_NUMBERS = "save one class number a pixel as an 8 bit gray or palette PNG"
_FETCH_AGAIN = "fetch or save the file again, or remove the sample"

KINDS: dict[str, Kind] = {
    # which files there are
    "missing-mask": Kind(
        "error", "an image has no mask, so the dataset refuses to load", "add the mask, or remove the image"
    ),
    "missing-image": Kind(
        "error", "a mask has no image, so the dataset refuses to load", "add the image, or remove the mask"
    ),
    "missing-background": Kind(
        "error", "a composite has no scene of its name", "add the scene, or remove the composite"
    ),
    "missing-file": Kind("error", "a sample lacks a file that the dataset needs", "add the file, or remove the sample"),
    "duplicate-stem": Kind(
        "error", "two files claim one sample, and which is meant is anybody's guess", "keep one of them"
    ),
    "misnamed": Kind(
        "error",
        "a file's name does not follow the dataset's scheme, so its sample is unknown",
        "rename it after its neighbors, or move it out of the folder",
    ),
    "broken-row": Kind("error", "a row of the manifest cannot be understood", "correct the line"),
    "outside-folder": Kind(
        "error",
        "the manifest names files outside its folder, which are not read unless that is allowed",
        "set allow_outside=true, as proposed, or move the files into the folder",
    ),
    "other-folders": Kind(
        "note",
        "images and masks lie in folders, or end in names, that `folder` does not take by default",
        "give it the options shown, or the same under [data]",
    ),
    "unreadable-folder": Kind(
        "error", "the folder cannot be listed, so what it holds is not audited", "change its permissions"
    ),
    "refused": Kind("error", "the dataset itself refuses to load", "see the message"),
    "stray-file": Kind("note", "files that the dataset does not read", "none needed, if they are not meant to be read"),
    # whether they can be read
    "empty-file": Kind("error", "the file has no content", _FETCH_AGAIN),
    "no-permission": Kind("error", "the file cannot be opened", "change its permissions"),
    "not-an-image": Kind("error", "the file is no image, whatever its name says", _FETCH_AGAIN),
    "truncated-image": Kind("error", "the image breaks off or is damaged", _FETCH_AGAIN),
    "truncated-mask": Kind("error", "the mask breaks off or is damaged", _FETCH_AGAIN),
    "truncated-depth": Kind("error", "the depth file breaks off or is damaged", _FETCH_AGAIN),
    "pixel-bomb": Kind(
        "error",
        "more pixels than the limit against decompression bombs allows",
        "cut it into tiles, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file",
    ),
    "sample-error": Kind(
        "error", "the dataset fails on a sample", "see the message; a fault in a plugin's code is for its author"
    ),
    "broken-contract": Kind(
        "error", "a sample is not what the contract of datasets says", "see the message; it is for the dataset's author"
    ),
    # sizes
    "size-mismatch": Kind(
        "error",
        "image and mask differ in size, so their pixels do not belong together",
        "find the mask of this image, or bring it to the image's size by nearest-neighbor resizing",
    ),
    "exif-one-sided": Kind(
        "error",
        "EXIF turns one of image and mask and not the other: read upright, they no longer lie on each other",
        "apply the rotation to the file (e.g. exiftran, or ImageOps.exif_transpose) and drop the tag",
    ),
    "mixed-sizes": Kind(
        "note", "images of several sizes", "set a size or crop in [transform], or they cannot be batched"
    ),
    # how masks are stored
    "jpeg-mask": Kind(
        "error",
        "JPEG is lossy: it changes class numbers, and most along borders",
        "export the labels again as PNG; those in a JPEG are damaged",
    ),
    "rgb-mask": Kind(
        "error",
        "the mask holds colors, not class numbers",
        "map each color to its class number, and " + _SAVE_AS_NUMBERS,
    ),
    "alpha-mask": Kind("error", "the mask has a transparency channel beside its numbers", _SAVE_AS_NUMBERS),
    "sixteen-bit-mask": Kind(
        "error",
        "16 or 32 bits a pixel whose numbers are no classes: instance numbers, or classes scaled up",
        _SAVE_AS_NUMBERS,
    ),
    "float-mask": Kind("error", "the mask holds fractions, not class numbers", _SAVE_AS_NUMBERS),
    "multi-frame-mask": Kind("error", "several images in one mask file", "save each frame as a file of its own"),
    # which values they hold
    "jpeg-values": Kind(
        "error",
        "the mask was once a JPEG: class numbers are strewn around borders",
        "export the labels again without JPEG on the way",
    ),
    "interpolated-ids": Kind(
        "error",
        "the mask was resized with interpolation: numbers between two classes line their borders",
        "resize the original labels with nearest neighbor",
    ),
    "zero-one": Kind(
        "error", "the mask holds 0 and 1 where other numbers are declared", "declare ids=[0, 1], or multiply the file"
    ),
    "zero-255": Kind(
        "error",
        "the mask holds 0 and 255 where other numbers are declared",
        "declare ids=[0, 255], or rewrite the mask in the declared numbers",
    ),
    "palette-to-gray": Kind(
        "error",
        "a palette mask was converted to gray: its numbers are now brightnesses of its colors",
        'export it again as palette or gray of the indices; never convert("L")',
    ),
    "shifted-ids": Kind(
        "error",
        "all class numbers are off by the same step, e.g. counted from 1",
        "subtract the step, or declare the file values in ids",
    ),
    "out-of-range-id": Kind(
        "error", "values that the declaration does not know", "declare them in ids or ignore_ids, or correct the mask"
    ),
    "all-ignored": Kind(
        "warning",
        "no pixel of the mask is labeled: the sample teaches nothing, and its scores are undefined",
        "remove the sample, or label it",
    ),
    "empty-mask": Kind("note", "the mask shows one class alone", "none needed, if there is nothing else in the image"),
    "absent-class": Kind(
        "note",
        "no mask shows the class: it cannot be learned, and its score is undefined",
        "add images that show it, or declare fewer classes",
    ),
    "imbalance": Kind(
        "note",
        "a class holds less than 1 % of the labeled pixels",
        "a loss by regions (dice, tversky) or class weights, and scores by class",
    ),
    "undeclared-labels": Kind(
        "note",
        "the meaning of the mask values is not declared; nothing is guessed",
        "declare them as proposed, with the names that are right",
    ),
    "inverted-mask": Kind(
        "warning",
        "foreground and background look exchanged, measured against the other masks",
        "look at it; exchange the two values if so",
    ),
    "misaligned-mask": Kind(
        "warning",
        "the mask's borders lie on another image's edges and not on its own: two masks may be swapped",
        "look at both; exchange the masks if so",
    ),
    # images
    "blank-image": Kind("warning", "the image is of one color", _FETCH_AGAIN),
    "sixteen-bit-image": Kind(
        "error",
        "more than 8 bits a channel, which are not read: only you know their range",
        "scale the image to 0…255 and save it with 8 bits",
    ),
    "multi-frame-image": Kind("error", "several images in one file", "save each frame as a file of its own"),
    "cmyk-image": Kind(
        "warning",
        "an image for print: without its color profile its colors come out wrong",
        "convert it to RGB with its profile",
    ),
    "alpha-image": Kind(
        "warning",
        "an image with transparent parts: what hides under them is read as if it were seen",
        "flatten it over a background",
    ),
    "gray-image": Kind(
        "note",
        "gray images where color is expected: the gray is repeated",
        "none needed, if they are as they should be",
    ),
    "no-alpha": Kind("error", "a cut-out without transparency has no outline", "save it as PNG with an alpha channel"),
    "empty-cutout": Kind("error", "a cut-out has no opaque pixel", "remove the file"),
    "duplicate-image": Kind("warning", "the same image twice in one split: it counts double", "keep one of them"),
    "leakage": Kind("error", "the same image in two splits: scores measure memory", "remove it from one of the splits"),
    "conflicting-labels": Kind(
        "error", "the same image with different masks: one of them is wrong", "keep the right one"
    ),
    "label-files-disagree": Kind(
        "note",
        "two label files of one image say different things; the dataset reads one of them",
        "make the other one anew",
    ),
    # depth
    "depth-missing": Kind("error", "a sample has no depth where others have", "add the file, or remove the sample"),
    "depth-size-mismatch": Kind(
        "error", "image and depth differ in size", "find the depth of this image, or bring it to the image's size"
    ),
    "depth-constant": Kind(
        "warning",
        "depth is the same everywhere: most likely nothing was measured",
        "remove the sample, or measure it again",
    ),
    "depth-unreadable": Kind(
        "error", "the depth file is not one number a pixel", "save depth as gray PNG of 8 or 16 bits, or as float TIFF"
    ),
    # what is installed
    "broken-plugin": Kind(
        "error",
        "an installed name cannot be loaded; nothing else depends on it",
        "reinstall or update the distribution, or tell its author",
    ),
    "slow-plugin": Kind(
        "warning",
        "the import of an installed name exceeded the time limit, so the name was not checked",
        "on a slow machine, allow more with --timeout SECONDS",
    ),
    "switched-off": Kind(
        "note", "an installed distribution is not let in", "change UNETZOO_PLUGINS, if its names are wanted"
    ),
    "name-clash": Kind("warning", "two distributions offer one name", "use the full name, DISTRIBUTION:NAME"),
    "unfit-version": Kind(
        "error", "an installed package does not meet our requirement", "install the version that is asked for"
    ),
}
