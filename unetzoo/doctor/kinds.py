"""The kinds of findings: severity, reason and fix. Standard library only."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]


class Kind(NamedTuple):
    """The usual severity of a kind of finding, why it matters, and how to fix it."""

    severity: Severity
    reason: str
    fix: str


_error, _warning, _note = partial(Kind, "error"), partial(Kind, "warning"), partial(Kind, "note")
_SAVE_AS_INDICES = "save one class number per pixel as an 8-bit gray or palette PNG"
_REPLACE = "download or save the file again, or remove the sample"
_GROUP = "keep such images in one split, e.g. with the option group of the dataset"
_ADD = "add the file, or remove the sample"

KINDS: dict[str, Kind] = {
    # files
    "missing-mask": _error(
        "an image without a mask; the dataset cannot be loaded", "add the mask, or remove the image"
    ),
    "missing-image": _error(
        "a mask without an image; the dataset cannot be loaded", "add the image, or remove the mask"
    ),
    "missing-background": _error("a composite without its background", "add the background, or remove the composite"),
    "missing-file": _error("a sample lacks a file that the dataset needs", _ADD),
    "duplicate-stem": _error("two files for one sample; it is unclear which one is meant", "keep one of them"),
    "misnamed": _error(
        "a file name that does not follow the naming scheme of the dataset",
        "rename the file like the others, or move it out of the folder",
    ),
    "broken-row": _error("an invalid row of the manifest", "correct the row"),
    "outside-folder": _error(
        "the manifest names files outside its folder, which are not read unless that is allowed",
        "set allow_outside=true, as proposed, or move the files into the folder",
    ),
    "other-folders": _note(
        "folders or name endings that `folder` does not expect by default",
        "pass it the options shown, or set them under [data]",
    ),
    "unreadable-folder": _error("the folder cannot be listed, so its files are not checked", "change its permissions"),
    "refused": _error("the dataset cannot be loaded", "see the message"),
    "stray-file": _note("files that the dataset does not read", "none, unless they should be read"),
    # readability
    "empty-file": _error("a file without content", _REPLACE),
    "no-permission": _error("the file cannot be opened", "change its permissions"),
    "not-an-image": _error("the file is not an image, in spite of its name", _REPLACE),
    "unsupported-image": _error(
        "the file may be intact, but its format, channels or bits are not supported",
        "convert it: images to 8-bit gray or RGB, masks to 8-bit gray or palette PNG",
    ),
    "truncated-image": _error("the image is truncated or damaged", _REPLACE),
    "truncated-mask": _error("the mask is truncated or damaged", _REPLACE),
    "truncated-depth": _error("the depth file is truncated or damaged", _REPLACE),
    "pixel-bomb": _error(
        "more pixels than the limit that guards against decompression bombs",
        "cut it into tiles; `unetzoo stream` predicts on whole images of this size",
    ),
    "sample-error": _error("the dataset raises an error for a sample", "see the message; report it to its author"),
    "broken-contract": _error("a sample violates the contract of datasets", "see the message; report it to its author"),
    # sizes
    "size-mismatch": _error(
        "image and mask differ in size, so their pixels do not correspond",
        "find the mask of this image, or resize it to the size of the image with nearest neighbor",
    ),
    "exif-one-sided": _error(
        "EXIF rotates only one of image and mask, so they do not match when read upright",
        "apply the rotation to the file (e.g. exiftran, or ImageOps.exif_transpose) and remove the tag",
    ),
    "mixed-sizes": _note(
        "images of several sizes", "set size or crop in [transform]; otherwise they cannot be batched"
    ),
    # encoding of masks
    "jpeg-mask": _error(
        "JPEG is lossy: it changes class numbers, mostly along borders",
        "export the labels again as PNG; those in the JPEG are damaged",
    ),
    "rgb-mask": _error(
        "the mask contains colors instead of class numbers",
        "declare the color of each class with colors, or save class numbers",
    ),
    "alpha-mask": _error("the mask has an alpha channel beside its class numbers", _SAVE_AS_INDICES),
    "sixteen-bit-mask": _error(
        "a 16- or 32-bit mask whose values are not classes: numbers of objects, or scaled classes",
        f"declare instances=true if they are numbers of objects; otherwise {_SAVE_AS_INDICES}",
    ),
    "float-mask": _error("the mask contains floating-point values instead of class numbers", _SAVE_AS_INDICES),
    "multi-frame-mask": _error("several images in one mask file", "save each frame as a separate file"),
    # values of masks
    "jpeg-values": _error(
        "the mask was once a JPEG: wrong class numbers are scattered around borders",
        "export the labels again without an intermediate JPEG",
    ),
    "interpolated-ids": _error(
        "the mask was resized with interpolation: values between two classes line their borders",
        "resize the original labels with nearest neighbor",
    ),
    "zero-one": _error(
        "the mask contains 0 and 1 instead of the declared values", "declare ids=[0, 1], or rescale the values"
    ),
    "zero-255": _error(
        "the mask contains 0 and 255 instead of the declared values",
        "declare ids=[0, 255], or rewrite the mask with the declared values",
    ),
    "palette-to-gray": _error(
        "a palette mask was converted to gray: its values are the brightness of the palette colors",
        'export it again as palette or gray indices, without convert("L")',
    ),
    "shifted-ids": _error(
        "all class numbers are off by the same amount, e.g. counted from 1",
        "subtract the offset, or declare the values of the files in ids",
    ),
    "out-of-range-id": _error("values that are not declared", "declare them in ids or ignore_ids, or correct the mask"),
    "unknown-color": _error(
        "colors that are not declared",
        'declare them in colors or ignore_colors, correct the mask, or set unknown_color="ignore"',
    ),
    "overlapping-objects": _warning(
        "the files of two objects share pixels, which count for the later file", "correct the masks of these objects"
    ),
    "single-number": _warning(
        "each mask contains a single number, as masks of classes do, so touching objects are not separated",
        "give each object a number of its own, or declare classes instead of instances",
    ),
    "all-ignored": _warning(
        "no pixel of the mask is labeled: nothing can be learned from the sample, and its scores are undefined",
        "remove the sample, or label it",
    ),
    "empty-mask": _note("the mask contains a single class", "none, if the image shows nothing else"),
    "absent-class": _note(
        "no mask contains the class: it cannot be learned, and its score is undefined",
        "add images that show it, or declare fewer classes",
    ),
    "imbalance": _note(
        "a class covers less than 1% of the labeled pixels",
        "use a region loss (dice, tversky) or class weights, and look at the scores per class",
    ),
    "undeclared-pixels": _note(
        "images of more than 8 bits, or with other channels than gray or RGB, which are not declared",
        "declare channels and range as proposed; the range covers 99.8 % of the values of some images",
    ),
    "other-channels": _error(
        "the image does not have the declared channels or data type; the dataset cannot be loaded",
        "declare channels, bands and range of most images, and convert the others",
    ),
    "mixed-types": _error(
        "images of several data types, to which one range does not apply", "convert them to one data type"
    ),
    "range-clips": _warning(
        "values outside the declared range are clipped",
        "declare a range that fits; with range=percentile, `unetzoo stats` computes one from all images",
    ),
    "other-ground": _error(
        "image and mask are georeferenced, but do not cover the same ground",
        "find the mask of this image, or resample it to the grid of the image",
    ),
    "undeclared-labels": _note(
        "the meaning of the mask values is not declared, and the doctor does not guess it",
        "declare it as proposed, with the right names",
    ),
    "inverted-mask": _warning(
        "compared with the other masks, foreground and background look swapped",
        "look at the mask, and swap the two values if they are wrong",
    ),
    "misaligned-mask": _warning(
        "the borders of the mask match the edges of another image, not of its own: two masks may be swapped",
        "look at both, and swap the masks if they are wrong",
    ),
    # images
    "blank-image": _warning("an image of a single color", _REPLACE),
    "sixteen-bit-image": _error(
        "more than 8 bits per channel, which are not read because their range is unknown",
        "declare the range of values, e.g. range = [0, 4095], or save the image with 8 bits",
    ),
    "multi-frame-image": _error("several images in one file", "save each frame as a separate file"),
    "cmyk-image": _warning(
        "an image for print, whose colors are wrong without its color profile", "convert it to RGB with its profile"
    ),
    "alpha-image": _warning(
        "an image with an alpha channel, which is ignored: transparent pixels are read with their hidden colors",
        "flatten it onto a background",
    ),
    "gray-image": _note("gray images where color is usual; the gray is repeated", "none, if they are meant to be gray"),
    "no-alpha": _error("a cut-out without transparency has no outline", "save it as PNG with an alpha channel"),
    "empty-cutout": _error("a cut-out without an opaque pixel", "remove the file"),
    # pairs of samples
    "duplicate-image": _warning("the same image twice in one split: it counts twice", "keep one of them"),
    "leakage": _error("the same image in two splits: scores measure memorization", "remove it from one of the splits"),
    "near-duplicate": _warning(
        "almost the same image in training and another split: scores measure memorization", _GROUP
    ),
    "neighbors-in-two-splits": _warning(
        "a frame of a video or slice of a volume is between training images that look like it: scores are too good",
        _GROUP,
    ),
    "group-in-two-splits": _warning("a group of the manifest occurs in several splits", "move it into one of them"),
    "conflicting-labels": _error("the same image with different masks; at least one is wrong", "keep the right one"),
    "label-files-disagree": _note(
        "two label files of one image differ; the dataset reads one of them", "write the other one again"
    ),
    # depth
    "depth-missing": _error("a sample without depth, while others have it", _ADD),
    "depth-size-mismatch": _error(
        "image and depth differ in size", "find the depth of this image, or resize it to the size of the image"
    ),
    "depth-constant": _warning(
        "depth is constant: probably nothing was measured", "remove the sample, or measure again"
    ),
    "depth-unreadable": _error(
        "the depth file does not contain one number per pixel", "save depth as 8- or 16-bit gray PNG, or as float TIFF"
    ),
    # installation
    "broken-plugin": _error(
        "an installed name cannot be loaded; other names are not affected",
        "reinstall or upgrade the distribution, or report it to its author",
    ),
    "slow-plugin": _warning(
        "the import of an installed name exceeded the time limit, so the name was not checked",
        "on a slow machine, allow more with --timeout SECONDS",
    ),
    "switched-off": _note("an installed distribution is disabled", "change UNETZOO_PLUGINS to enable it"),
    "name-clash": _warning("two distributions add the same name", "use the full name, DISTRIBUTION:NAME"),
    "unfit-version": _error("an installed package does not meet our requirement", "install the required version"),
}
