"""Checks of single samples, from the facts of their files."""

from __future__ import annotations

from ..datasets.layout import FileLayout
from ..datasets.tree import Inventory, Item
from ..wording import pluralize
from .facts import DepthFacts, FileFacts, ImageFacts, MaskFacts, Record
from .findings import Findings


def check_pairing(inventory: Inventory, layout: FileLayout, found: Findings) -> None:
    """Find missing, duplicate, misnamed and unused files."""
    for file in inventory.misnamed:
        found.add("misnamed", file)
    for file in inventory.strays:
        found.add("stray-file", file)
    with_depth = any(item.of("depth") for item in inventory.items)
    scenes = {item.name for item in inventory.items if item.of("background")}
    for item in inventory.items:
        _check_item(item, layout, found, with_depth=with_depth)
        if "background" in layout.needs and item.of("image") and item.name not in scenes:
            if layout.shared_name("background", item.name, scenes) is None:
                found.add("missing-background", item.of("image")[0])


def _check_item(item: Item, layout: FileLayout, found: Findings, *, with_depth: bool) -> None:
    images, masks, absent = item.of("image"), item.of("mask"), item.absent
    if "mask" in layout.needs and not masks and (images or "mask" in absent):
        found.add("missing-mask", (images or [absent.get("mask", item.name)])[0], _nowhere(absent.get("mask")))
    if not images and (masks or "image" in absent):
        parts = f"{len(masks)} files" if layout.several else _nowhere(absent.get("image"))
        found.add("missing-image", (masks or [absent.get("image", item.name)])[0], parts)
    if images and with_depth and not item.of("depth"):
        found.add("depth-missing", images[0], _nowhere(absent.get("depth")))
    for role in layout.needs:
        if images and role not in ("image", "mask", "background") and not item.of(role):
            found.add("missing-file", images[0], f"no file of the kind {role!r}")
    rivals = (item.of(role) for role in ("cutout", "scene", "background", "depth"))
    for files in (images, [] if layout.several else layout.read_first(masks), *rivals):
        for file in files[1:]:
            found.add("duplicate-stem", file, f"beside {files[0]}")


def _nowhere(file: str | None) -> str:
    return f"{file} does not exist" if file else ""


def check_record(record: Record, layout: FileLayout, found: Findings) -> None:
    """Run all checks of a single sample."""
    for facts in (record.image, *record.masks, record.depth, record.background, *record.images):
        if facts is not None and facts.fault:
            exported = facts.fault == "jpeg-mask" and layout.name == "eva"
            found.add(facts.fault, facts.file, "read it with mask_threshold=128" if exported else facts.detail)
    for image in (record.image, record.background, *record.images):
        if image is not None and image.readable:
            _check_image(image, layout, found, cutout=image is not record.image and bool(image.alpha))
    for mask in record.masks:
        values = layout.values_of(mask.file)
        if mask.readable and values is not None and values.how == "shown":
            _check_shown(mask, found)
        if mask.covered:
            found.add("overlapping-objects", mask.file, f"covers {pluralize(mask.covered, 'pixel')} of other objects")
    if record.image is not None and record.image.readable:
        if record.depth is not None and record.depth.readable:
            _check_depth(record.image, record.depth, found)
        if record.background is not None and record.background.readable:
            _check_sizes(record.image, record.background, found, proportions=False)
        for mask in record.masks[:1]:
            if mask.readable:
                _check_sizes(record.image, mask, found, proportions=bool(layout.joined))
    _check_parts(record, found)
    if record.elsewhere:
        found.add("other-ground", record.label_file, record.elsewhere)
    if record.disagreeing:
        file, pixels, share = record.disagreeing
        found.add("label-files-disagree", file, f"{pluralize(pixels, 'pixel')} ({share:.2%})")


def _check_image(image: ImageFacts, layout: FileLayout, found: Findings, *, cutout: bool) -> None:
    if image.blank:
        found.add("blank-image", image.file)
    if image.mode == "CMYK":
        found.add("cmyk-image", image.file)
    if image.alpha and not cutout:
        found.add("alpha-image", image.file, image.alpha, "note" if image.alpha == "opaque" else None)
    if image.mode in ("1", "L", "LA") and not layout.gray:
        found.add("gray-image", image.file)


def _check_shown(mask: MaskFacts, found: Findings) -> None:
    if mask.detail:
        found.add("alpha-mask", mask.file, f"{mask.detail}, read as displayed", "note")


def _check_sizes(image: FileFacts, mask: FileFacts, found: Findings, *, proportions: bool) -> None:
    def agree(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a[0] * b[1] == a[1] * b[0] if proportions else a == b

    upright, stored = agree(image.size, mask.size), agree(image.stored, mask.stored)
    turned, straight = (image, mask) if image.orientation != 1 else (mask, image)
    detail = f"orientation {turned.orientation}, {straight.file} has {straight.orientation}"
    if image.orientation != mask.orientation and stored and not upright:
        found.add("exif-one-sided", turned.file, detail)
    elif not upright:
        width, height = image.size
        found.add("size-mismatch", mask.file, f"{mask.size[0]}×{mask.size[1]}, the image {width}×{height}")
    elif image.orientation != mask.orientation and stored:  # both orientations match: a square, or a rotation by 180°
        found.add("exif-one-sided", turned.file, detail + ": was the mask drawn on the rotated image?", "warning")


def _check_depth(image: ImageFacts, depth: DepthFacts, found: Findings) -> None:
    if depth.size != image.size:
        width, height = image.size
        found.add("depth-size-mismatch", depth.file, f"{depth.size[0]}×{depth.size[1]}, the image {width}×{height}")
    if depth.constant:
        found.add("depth-constant", depth.file)


def _check_parts(record: Record, found: Findings) -> None:
    readable = [mask for mask in record.masks if mask.readable]
    for mask in readable[1:]:
        if mask.size != readable[0].size:
            found.add("size-mismatch", mask.file, f"{mask.size[0]}×{mask.size[1]}, {readable[0].file} "
                      f"{readable[0].size[0]}×{readable[0].size[1]}")  # fmt: skip
