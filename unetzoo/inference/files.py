"""Name and write the result files of a prediction, and check for conflicts with the inputs."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from ..errors import ConfigError, DataError, PairingError, did_you_mean
from ..io import disk_errors, replacing, write_text
from ..labels import LabelSpec
from .coco import Entries, coco_record, write_coco
from .images import PathLike, find_images
from .results import DEFAULT_PRODUCTS, OBJECT_PRODUCTS, PRODUCTS, SegmentationResult
from .shards import Records, Shard, in_order
from .uncertainty import uncertainty_record, write_uncertainty


class SharedFile(NamedTuple):
    """A product that is one file for all images.

    Args:
        name: Its name.
        record: What it holds of one image, in JSON-serializable form.
        write: Writes the file from the numbers and records of all images.
    """

    name: str
    record: Callable[[Path, SegmentationResult], dict[str, Any]]
    write: Callable[[Path, Entries], None]


SHARED: Mapping[str, SharedFile] = {
    "coco": SharedFile("annotations.coco.json", partial(coco_record, polygons=True), write_coco),
    "coco_rle": SharedFile("annotations.coco_rle.json", partial(coco_record, polygons=False), write_coco),
    "uncertainty": SharedFile("uncertainty.csv", uncertainty_record, write_uncertainty),
}


@dataclass(frozen=True)
class Results:
    """The results to write.

    Args:
        folder: Output folder; created when the first result is written.
        products: Kinds of results; see `products_of`.
        labels: Labels of multilabel masks, which are written to one file per label; otherwise None.
    """

    folder: Path
    products: tuple[str, ...] = DEFAULT_PRODUCTS
    labels: LabelSpec | None = None

    def targets(self, stem: str) -> list[Path]:
        """Return all files that may be written only for an image with this stem."""
        per_image = (product for product in self.products if product in PRODUCTS)
        return [self.folder / name for product in per_image for name in self._names(product, stem)]

    def shared(self) -> dict[str, Path]:
        """Return the files of products that are one file for all images."""
        return {product: self.folder / SHARED[product].name for product in self.products if product in SHARED}

    @contextmanager
    def records(
        self, shard: Shard, recipe: Mapping[str, Any] | None = None, *, resume: bool = False
    ) -> Iterator[Records | None]:
        """Collect a record of each image, and write the files for all images when the block ends without an error.

        If there are several shards, the one that ends last writes these files. The files of an earlier run are removed
        first, so that a killed run leaves none.

        Args:
            shard: The shard.
            recipe: Everything that determines the results, for records that are kept; see `Records`.
            resume: See `Records`.

        Yields:
            The records; None if none are needed.

        Raises:
            ConfigError: The folder cannot be written; the records to resume belong to another run.
        """
        if recipe is None and not self.shared():
            yield None
            return
        with ExitStack() as stack:
            with disk_errors(self.folder, ConfigError, what="cannot write the results"):
                records = Records(self.folder, shard, recipe, resume)
                stack.callback(records.close)
                for path in self.shared().values():
                    path.unlink(missing_ok=True)
            yield records
            with disk_errors(self.folder, ConfigError, what="cannot write the results"):
                records.finish()
                if all_records := records.all_shards(stack):
                    for product, path in self.shared().items():
                        SHARED[product].write(path, partial(in_order, all_records, product))

    def record(self, path: Path, result: SegmentationResult) -> dict[str, Any]:
        """Return what the files for all images hold of one image, by product."""
        return {product: SHARED[product].record(path, result) for product in self.shared()}

    def write(self, result: SegmentationResult, stem: str, facts: dict[str, Any]) -> None:
        """Write the results of an image; each file is renamed into place once it is complete.

        Raises:
            OSError: The disk is full, or a file cannot be written.
            DataError: The name of the image is too long.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for product, (pattern, draw) in PRODUCTS.items():
                if product not in self.products:
                    continue
                if product == "json":
                    self._put(pattern.format(stem), json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
                elif product == "mask":
                    for name, image in zip(self._names(product, stem), result.masks().values(), strict=True):
                        self._put(name, image)
                elif product == "geotiff":
                    if (write := result.georeferenced()) is not None:
                        with replacing(self.folder / pattern.format(stem)) as path:
                            write(path)
                elif draw is not None and (image := draw(result)) is not None:
                    self._put(pattern.format(stem), image)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise DataError(
                "the name of an image is too long for its results",
                subject=stem,
                found=f"{len(os.fsencode(stem))} bytes",
                hint="rename the image",
            ) from error

    def _names(self, product: str, stem: str) -> list[str]:
        pattern = PRODUCTS[product][0]
        if product == "mask" and self.labels:
            return [pattern.format(f"{stem}_{suffix}") for suffix in mask_suffixes(self.labels.names)]
        return [pattern.format(stem)]

    def _put(self, name: str, content: Image.Image | np.ndarray | str) -> None:
        target = self.folder / name
        if isinstance(content, str):
            write_text(target, content)
            return
        with replacing(target) as path:
            if isinstance(content, np.ndarray):
                tifffile.imwrite(path, content, compression="zlib", metadata=None)
            else:
                content.save(path, format="PNG")


def mask_suffixes(names: Sequence[str]) -> list[str]:
    """Return suffixes of multilabel mask files: the label names, made safe for file names.

    Names that would collide with each other or with another product on any file system get their index appended.

    Examples:
        >>> mask_suffixes(("left ear", "T<1", "T>1", "overlay"))
        ['left_ear', 'T_1_1', 'T_1_2', 'overlay_3']
    """
    safe = [re.sub(r"[^\w.-]+", "_", name) for name in names]
    taken = Counter(name.casefold() for name in safe)
    taken.update(pattern.format("").removesuffix(".png").removeprefix("_") for pattern, _ in PRODUCTS.values())
    found: list[str] = []
    for index, name in enumerate(safe):
        if taken[name.casefold()] > 1 or not name:
            name = f"{name}_{index}"
            while taken[name.casefold()]:
                name += "_"
            taken[name.casefold()] += 1
        found.append(name)
    return found


def products_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """Parse product names ("all", or a comma-separated list) and return them in the order in which they are written.

    "all" are those with a file per image, except those of objects; "instances" are all of objects.

    Raises:
        ConfigError: No product is given, or one is unknown.

    Examples:
        >>> products_of("json,mask")
        ('mask', 'json')
    """
    listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    known = [*PRODUCTS, *SHARED]
    unknown = [name for name in listed if name not in (*known, "all")]
    if unknown or not listed:
        raise ConfigError(
            f"unknown product {unknown[0]!r}" if unknown else "no product",
            hint=did_you_mean(unknown[0] if unknown else "", [*known, "all"], "product"),
        )
    chosen = {*listed, *(OBJECT_PRODUCTS if "instances" in listed else ())}
    if "all" in listed:
        chosen |= PRODUCTS.keys() - set(OBJECT_PRODUCTS)
    return tuple(product for product in known if product in chosen)


def backgrounds_of(background: PathLike | None) -> dict[str, Path] | None:
    """Return background files by stem; a single file for all images has the key "".

    Raises:
        DataError: No images were found.
        PairingError: Two files have the same stem.
    """
    if background is None:
        return None
    if Path(background).is_file():
        return {"": Path(background)}
    found: dict[str, Path] = {}
    for path in find_images(background):
        if found.setdefault(path.stem, path) != path:
            both = f"{found[path.stem]} and {path}"
            raise PairingError("two backgrounds for one image", found=both, hint="keep one of them")
    return found


def background_of(path: Path, backgrounds: dict[str, Path] | None) -> Path | None:
    """Return the background of an image.

    Raises:
        PairingError: The image has no background.
    """
    if backgrounds is None:
        return None
    found = backgrounds.get("") or backgrounds.get(path.stem)
    if found is None:
        raise PairingError(
            "no background for the image",
            subject=path,
            expected=f"a file with the stem {path.stem!r}",
            found=", ".join(list(backgrounds)[:8]),
            hint="give each background the name of its image, or one file for all",
        )
    return found


def check_targets(
    images: Sequence[Path], inputs: Sequence[Path], results: Results, stem_of: Callable[[Path], str]
) -> None:
    """Check that no result would overwrite an input or another result, or be written to a folder of inputs.

    Args:
        images: The images.
        inputs: All input files.
        results: The results to write.
        stem_of: Returns the stem of an image's results.

    Raises:
        ConfigError: A result would overwrite an input or be written to a folder of inputs.
        DataError: Two images have the same result file.
    """
    sources = {path.resolve() for path in inputs}
    folder = results.folder.resolve()
    among = next((path for path in inputs if path.parent.resolve() == folder), None)
    if among is not None:
        raise ConfigError(
            "the results would be among the images",
            subject=results.folder,
            found=str(among),
            hint="choose another folder for the results, otherwise they would be read as images",
        )
    taken = {path.resolve(): path for path in results.shared().values()}
    for path in images:
        for target in (target.resolve() for target in results.targets(stem_of(path))):
            if target in sources:
                raise ConfigError(
                    "a result would replace an image", subject=target, hint="choose another folder for the results"
                )
            if taken.setdefault(target, path) != path:
                raise DataError(
                    "two images would be written to one file",
                    subject=target,
                    found=f"{taken[target]} and {path}",
                    hint="rename one of them, or predict them into different folders",
                )


def unwritable(folder: Path, error: OSError, tried: int, failures: Sequence[DataError], total: int) -> ConfigError:
    """Return the error of a disk that is full or gone, with the errors of images as notes.

    Args:
        folder: Folder of the results.
        error: Error of the system.
        tried: Number of images before it.
        failures: Errors of images that could not be read.
        total: Number of images.
    """
    failed = f", {len(failures)} could not be predicted" if failures else ""
    found = ConfigError(
        "cannot write the results",
        subject=folder,
        found=f"{error} ({tried - len(failures)} of {total} images are done and kept{failed})",
        hint="make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose a folder that can be written to",
    )
    for failure in failures:
        found.add_note(str(failure))
    return found
