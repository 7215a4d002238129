"""The files of a prediction run: which results an image gets, where they go, how they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import ConfigError, DataError, PairingError, did_you_mean
from ..labels import LabelSpec
from .images import PathLike, find_images
from .results import DEFAULT_PRODUCTS, PRODUCTS, Answer


@dataclass(frozen=True)
class Results:
    """Where results go.

    Args:
        folder: Their folder; made when the first is written.
        products: Which; see `products_of`.
        labels: Of masks with several labels a pixel, which are written one by one; else None.
    """

    folder: Path
    products: tuple[str, ...] = DEFAULT_PRODUCTS
    labels: LabelSpec | None = None

    def targets(self, stem: str) -> list[Path]:
        """All files that an image of this stem may get."""
        return [self.folder / name for product in self.products for name in self._names(product, stem)]

    def write(self, answer: Answer, stem: str, facts: dict[str, Any]) -> None:
        """Write what is asked for; each file appears under its name only when it is complete.

        Raises:
            OSError: The disk is full, or refuses.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for product in self.products:
            pattern, draw = PRODUCTS[product]
            if product == "json":
                self._put(pattern.format(stem), json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
            elif product == "mask":
                for label, image in answer.masks().items():
                    self._put(_labeled(pattern, stem, label), image)
            elif draw is not None and (image := draw(answer)) is not None:
                self._put(pattern.format(stem), image)

    def _names(self, product: str, stem: str) -> list[str]:
        pattern = PRODUCTS[product][0]
        labels = self.labels.names if product == "mask" and self.labels else ("",)
        return [_labeled(pattern, stem, label) for label in labels]

    def _put(self, name: str, content: Image.Image | str) -> None:
        target = self.folder / name
        partial = target.with_name(f".{name}.part")
        try:
            if isinstance(content, str):
                # names that are no UTF-8 get JSON's own escape
                partial.write_text(content, encoding="utf-8", errors="backslashreplace")
            else:
                content.save(partial, format="PNG")
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def products_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """Products by name, "all", or several with commas between them, in the order in which they are written.

    Raises:
        ConfigError: None, or an unknown one.

    Examples:
        >>> products_of("json,mask")
        ('mask', 'json')
    """
    listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    unknown = [name for name in listed if name not in (*PRODUCTS, "all")]
    if unknown or not listed:
        raise ConfigError(
            f"unknown product {unknown[0]!r}" if unknown else "no product",
            hint=did_you_mean(unknown[0] if unknown else "", [*PRODUCTS, "all"], "product"),
        )
    return tuple(product for product in PRODUCTS if product in listed or "all" in listed)


def backgrounds_of(background: PathLike | None) -> dict[str, Path] | None:
    """Background files by stem; under "" the one for all.

    Raises:
        DataError: No images there.
        PairingError: Two of one stem.
    """
    if background is None:
        return None
    if Path(background).is_file():
        return {"": Path(background)}
    found: dict[str, Path] = {}
    for path in find_images(background):
        if found.setdefault(path.stem, path) != path:
            both = f"{found[path.stem]} and {path}"
            raise PairingError("two backgrounds of one name", found=both, hint="keep the one that belongs to it")
    return found


def background_of(path: Path, backgrounds: dict[str, Path] | None) -> Path | None:
    """The background of an image.

    Raises:
        PairingError: There is none.
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
            hint="name each background as its image, or give one file for all",
        )
    return found


def check_targets(images: Sequence[Path], inputs: Sequence[Path], results: Results) -> None:
    """Refuse to write over an input, or one result over another.

    Raises:
        ConfigError: A result would replace an input.
        DataError: Two images have the same result.
    """
    sources = {path.resolve() for path in inputs}
    taken: dict[Path, Path] = {}
    for path in images:
        for target in (target.resolve() for target in results.targets(path.stem)):
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


def _labeled(pattern: str, stem: str, label: str) -> str:
    suffix = re.sub(r"[^\w.-]+", "_", label)
    return pattern.format(f"{stem}_{suffix}" if label else stem)
