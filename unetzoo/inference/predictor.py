"""`Predictor`: picture files in; class maps, overlays and depth out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..errors import ConfigError, DataError, PairingError, SizeMismatchError
from ..labels import LabelSpec
from .geometry import Blend
from .pictures import PathLike, as_picture, class_map, find_pictures, in_channels_of, palette_picture, read_picture
from .tiling import predict_picture

OPACITY = 0.5
NAMES = {"mask": "{}.png", "overlay": "{}_overlay.png", "depth": "{}_depth.png"}


class Prediction(NamedTuple):
    """What a network says of one file, in the file's size.

    Args:
        mask: Palette picture ("P"): the number of a pixel is its class.
        overlay: The picture, half covered by the classes' colours; black classes (background) leave it as it is.
        depth: 16-bit grey picture, 0…65535 for 0…1; None from networks without depth.
    """

    mask: Image.Image
    overlay: Image.Image
    depth: Image.Image | None


class Predictor:
    """Predicts picture files of any size.

    Args:
        net: A network that answers logits, as `unetzoo.predict` takes it; used on the device where it is.
        labels: Names and colours of the classes; by default the classes are named by their index. A network with one
            channel has two classes, background and foreground.
        prepare: What training did to a picture: uint8 array (H, W, C) → float tensor (C, h, w). Where it changes the
            size, the answer is brought back to the file's. By default the values are divided by 255.
        tile: See `unetzoo.predict`.
        blend: See `unetzoo.predict`.
        tta: See `unetzoo.predict`; left and right labels (`labels.swapped_by`) change places here.

    Raises:
        ConfigError: Labels that do not fit the network's answer (when the first file is predicted).

    Examples:
        >>> import tempfile, unetzoo
        >>> net = unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 16))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (50, 31)).save(f"{folder}/street.jpg")
        ...     failures = Predictor(net).predict_files(folder, f"{folder}/out")
        ...     failures, sorted(path.name for path in Path(folder, "out").iterdir())
        ([], ['street.png', 'street_overlay.png'])
    """

    def __init__(
        self,
        net: nn.Module,
        labels: LabelSpec | None = None,
        prepare: Callable[[np.ndarray], Tensor] | None = None,
        *,
        tile: int | Sequence[int] | None = None,
        blend: Blend = "exact",
        tta: Literal["flips"] | None = None,
    ) -> None:
        self.net, self.labels, self.prepare = net, labels, prepare or as_picture
        self.tile = tile
        self.blend: Blend = blend
        self.tta: Literal["flips"] | None = tta

    def predict_file(self, path: PathLike, background: PathLike | None = None) -> Prediction:
        """Predict one file.

        Args:
            path: A picture of 8 bits a channel; grey or RGB, converted to what the network takes.
            background: The bare background, for networks that take picture and background (6 channels, picture first).

        Raises:
            DataError: The file cannot be read, or the two differ in size.
            ConfigError: The network takes neither this kind of input nor `labels`; wrong `tile`, `blend`, `tta`.
        """
        channels = self._channels_a_file(background is not None)
        picture = read_picture(path, channels)
        stack = [picture] if background is None else [picture, read_picture(background, channels)]
        if stack[-1].shape != picture.shape:
            raise SizeMismatchError(
                "picture and background differ in size",
                subject=background,
                expected=f"{picture.shape[1]}×{picture.shape[0]} as {path}",
                found=f"{stack[-1].shape[1]}×{stack[-1].shape[0]}",
                hint="give the background that belongs to the picture",
            )
        answer = predict_picture(
            self.net,
            self.prepare(np.concatenate(stack, axis=2)),
            tile=self.tile,
            blend=self.blend,
            tta=self.tta,
            labels=self.labels,
        )
        logits, depth = (answer, None) if isinstance(answer, Tensor) else (answer[0], getattr(answer, "depth", None))
        size = picture.shape[0], picture.shape[1]
        return self._drawn(picture, _resized(logits, size), None if depth is None else _resized(depth, size))

    def predict_files(
        self, inputs: PathLike | Sequence[PathLike], out_dir: PathLike, background: PathLike | None = None
    ) -> list[DataError]:
        """Predict files and write `<stem>.png` (classes), `<stem>_overlay.png` and, with depth, `<stem>_depth.png`.

        Args:
            inputs: A picture, a folder of pictures, a glob, or several of these.
            out_dir: Folder for the results; made when it is not there. Older results of the same name are replaced.
            background: For networks that take picture and background: a folder with one of the same stem for each
                picture, or one file for all.

        Returns:
            One error for each picture that could not be read; it names the file. The others were written.

        Raises:
            DataError: No pictures; two that would be written to one file.
            ConfigError: A result would replace an input, or cannot be written; and as `predict_file`.
        """
        self._channels_a_file(background is not None)
        pictures = find_pictures(inputs)
        backgrounds = _backgrounds(background)
        inputs_too = [*pictures, *([] if backgrounds is None else backgrounds.values())]
        _check_targets(pictures, inputs_too, Path(out_dir))
        failures: list[DataError] = []
        for path in pictures:
            try:
                prediction = self.predict_file(path, _background_of(path, backgrounds))
            except DataError as error:
                failures.append(_naming(path, error))
                continue
            _write(prediction, Path(out_dir), path.stem)
        return failures

    def _channels_a_file(self, pair: bool) -> int:
        """Channels to read of each file: 1 or 3."""
        taken = in_channels_of(self.net) or (6 if pair else 3)
        if taken in ((2, 6) if pair else (1, 3)):
            return taken // 2 if pair else taken
        if taken in (2, 6):
            hint = "give `background`: this network takes a picture and its background"
        elif pair and taken in (1, 3):
            hint = "leave `background` out: this network takes the picture alone"
        else:
            hint = "stack the channels yourself and pass the array to unetzoo.predict"
        raise ConfigError(
            "the network takes other pictures",
            expected=f"{taken} channels",
            found="a picture and its background" if pair else "one picture, grey or RGB",
            hint=hint,
        )

    def _drawn(self, picture: np.ndarray, logits: Tensor, depth: Tensor | None) -> Prediction:
        labels = self._labels_for(len(logits))
        classes = self._classes(logits)
        mask = palette_picture(classes, labels)
        colors = np.asarray(labels.palette, np.float32)[classes]
        rgb = np.broadcast_to(picture[..., :3], (*classes.shape, 3))
        covered = np.where(colors.any(axis=2, keepdims=True), OPACITY, 0.0)
        overlay = np.rint(rgb * (1 - covered) + colors * covered).astype(np.uint8)
        deep = None
        if depth is not None:
            deep = Image.fromarray((depth[0].float().clamp(0, 1) * 65535).round().cpu().numpy().astype(np.uint16))
        return Prediction(mask, Image.fromarray(overlay), deep)

    def _classes(self, logits: Tensor) -> np.ndarray:
        """A network built with activation="sigmoid" answers probabilities already."""
        head = getattr(self.net, "segmentation_head", None)
        squashed = isinstance(head, nn.Module) and any(isinstance(part, nn.Sigmoid) for part in head.modules())
        return class_map(logits, 0.5 if squashed else 0.0)

    def _labels_for(self, channels: int) -> LabelSpec:
        """The label set for an answer of so many channels, one channel meaning background and foreground."""
        wanted = max(channels, 2)
        labels = self.labels or (LabelSpec.indexed(wanted) if channels > 1 else LabelSpec(("background", "foreground")))
        if channels == labels.classes == 1:
            color = labels.palette[0] if any(labels.palette[0]) else (255, 255, 255)
            return LabelSpec(("background", *labels.names), palette=((0, 0, 0), color))
        if labels.classes != wanted or wanted > 256:
            raise ConfigError(
                "labels and network differ",
                expected=f"{channels} classes" if wanted <= 256 else "at most 256 classes in an 8-bit picture",
                found=f"{labels.classes}: {', '.join(labels.names[:8])}",
                hint="give the label set that the network was trained with"
                if wanted <= 256
                else "use unetzoo.predict and write the classes yourself",
            )
        return labels


def _resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Planes in the file's size, where a network answers at half size or `prepare` changed it."""
    if tuple(planes.shape[-2:]) == size:
        return planes
    return F.interpolate(planes[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def _backgrounds(background: PathLike | None) -> dict[str, Path] | None:
    """Background files by stem; under "" the one for all."""
    if background is None:
        return None
    if Path(background).is_file():
        return {"": Path(background)}
    return {path.stem: path for path in find_pictures(background)}


def _background_of(path: Path, backgrounds: dict[str, Path] | None) -> Path | None:
    if backgrounds is None:
        return None
    found = backgrounds.get("") or backgrounds.get(path.stem)
    if found is None:
        raise PairingError(
            "no background for the picture",
            subject=path,
            expected=f"a file with the stem {path.stem!r}",
            found=", ".join(list(backgrounds)[:8]),
            hint="name each background as its picture, or give one file for all",
        )
    return found


def _check_targets(pictures: Sequence[Path], inputs: Sequence[Path], folder: Path) -> None:
    """Refuse to write over an input, or one result over another."""
    sources = {path.resolve() for path in inputs}
    taken: dict[Path, Path] = {}
    for path in pictures:
        for target in ((folder / name.format(path.stem)).resolve() for name in NAMES.values()):
            if target in sources:
                raise ConfigError(
                    "a result would replace a picture", subject=target, hint="choose another folder for the results"
                )
            if taken.setdefault(target, path) != path:
                raise DataError(
                    "two pictures would be written to one file",
                    subject=target,
                    found=f"{taken[target]} and {path}",
                    hint="rename one of them, or predict them into different folders",
                )


def _naming(path: Path, error: DataError) -> DataError:
    """The error with the file's name in it."""
    if str(path) in str(error):
        return error
    subject = path if error.subject is None else f"{path} ({error.subject})"
    return type(error)(error.what, subject=subject, expected=error.expected, found=error.found, hint=error.hint)


def _write(prediction: Prediction, folder: Path, stem: str) -> None:
    """Write the pictures; each appears under its name only when it is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in prediction._asdict().items():
            if picture is not None:
                target = folder / NAMES[name].format(stem)
                partial = target.with_name(f".{target.name}.part")
                picture.save(partial, format="PNG")
                partial.replace(target)
    except OSError as error:
        raise ConfigError(
            "cannot write the results", subject=folder, found=str(error), hint="choose another folder, or make room"
        ) from error
