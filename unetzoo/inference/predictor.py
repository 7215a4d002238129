"""`Predictor`: predict label maps, overlays, depth and statistics of image files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from .._version import __version__
from ..bundle import ModelBundle, Preprocess
from ..cleaning import Cleaning
from ..errors import ConfigError, DataError, ImageTooLargeError
from ..images import Pixels
from ..labels import LabelSpec, Mode
from ..modules import fingerprint, is_out_of_memory
from ..precision import Precision, check_precision
from .decide import Decision, Threshold, check_unsure, labels_for, probabilities_of
from .engines import EngineName, run_by
from .ensemble import ensemble
from .files import Results, background_of, backgrounds_of, check_targets, products_of, unwritable
from .image_files import ImageFiles
from .images import PathLike, find_images
from .io_pipeline import io_pipeline
from .results import DEFAULT_PRODUCTS, OBJECT_PRODUCTS, Prediction, SegmentationResult, resized
from .shards import Shard
from .tiling import predict
from .tta import TTALike
from .volumes import VolumeResult, is_volume, predict_volume
from .windows import Blend

if TYPE_CHECKING:
    from .artifact import Artifact


class Predictor:
    """Predicts image files of any size.

    Args:
        network: A network that returns logits, as for `unetzoo.predict`, a `ModelBundle`, or an exported file
            (`unetzoo.load`); or a list of networks or bundles, whose probabilities are averaged
            ([`Ensemble`][unetzoo.inference.ensemble.Ensemble]). A network stays on its device. Labels, preprocessing,
            threshold and mode attached to a trained or loaded network are used unless given here.
        labels: Names and colors of the classes; by default, classes are named by index. A network with one channel has
            two classes, background and foreground.
        preprocess: The preprocessing used in validation: array (H, W, C) → float tensor (C, h, w). If it changes the
            size, the output is resized to the original size.
        tile: See `unetzoo.predict`.
        blend: See `unetzoo.predict`.
        tta: See `unetzoo.predict`; left and right labels (`labels.swapped_by`) are swapped in mirrored views.
        threshold: Probabilities above which a pixel has a class: one number, one number per channel, or a mapping from
            class names to numbers; see `Decision.of`.
        cleaning: Cleanup of small regions and holes. Default: that of the network, if it has one.
        unsure: Probability below which no class is sure, e.g. 0.9. Such pixels get the value 255 in masks, or the
            `ignore_index` of the labels, so that training can ignore them; see `SegmentationResult`.
        mode: "multilabel" if each channel is an independent label, so that a pixel may have several.
        name: Name of the network in the results.
        precision: See `unetzoo.predict`; by default the precision used in training, if the device supports it
            natively.
        pixels: The channels and the range of values of image files, as in training.
        engine: "torch", or "openvino" or "onnx" to compute the network in OpenVINO or ONNX Runtime on the CPU. It is
            converted once, when the `Predictor` is created; tiles and test-time augmentation work as with PyTorch.

    Raises:
        ConfigError: The network cannot be converted for the engine, or a package is missing; the preprocessing is
            unknown, or labels, threshold or cleaning do not match the network's output
            (the latter is raised when the first image is predicted).

    Examples:
        >>> import tempfile, unetzoo
        >>> from PIL import Image
        >>> net = unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 16))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (50, 31)).save(f"{folder}/street.jpg")
        ...     predictor = Predictor(net, preprocess=unetzoo.Preprocess())
        ...     failures = predictor.predict_files(folder, f"{folder}/out")
        ...     failures, sorted(path.name for path in Path(folder, "out").iterdir())
        ([], ['street.json', 'street.png', 'street_overlay.png'])
    """

    def __init__(
        self,
        network: nn.Module | ModelBundle | Artifact | Sequence[nn.Module | ModelBundle],
        labels: LabelSpec | None = None,
        preprocess: Callable[[np.ndarray], Tensor] | None = None,
        *,
        tile: Any = None,
        blend: Blend = "exact",
        tta: TTALike = None,
        threshold: Threshold = None,
        cleaning: Cleaning | None = None,
        unsure: float | None = None,
        mode: Mode | None = None,
        name: str = "",
        precision: Precision | None = None,
        pixels: Pixels | None = None,
        engine: EngineName = "torch",
    ) -> None:
        if isinstance(network, Sequence) and not isinstance(network, ModelBundle):
            network = ensemble([ModelBundle.of(one) for one in network], threshold)
        self.bundle = ModelBundle.of(network).known(
            labels=labels, preprocess=preprocess, threshold=threshold, mode=mode, name=name or None, pixels=pixels,
            cleaning=cleaning,
        )  # fmt: skip
        bundle = self.bundle
        self.net, self.labels, self.preprocess, self.threshold = bundle[:4]
        self.pixels: Pixels | None = bundle.pixels
        self.mode: Mode | None = bundle.mode
        self.cleaning = bundle.cleaning or Cleaning()
        self.unsure = check_unsure(unsure, self.mode)
        self.precision: Precision | None = (
            bundle.predicting_precision() if precision is None else check_precision(precision)
        )
        self.engine: EngineName = engine
        if getattr(self.net, "exported", False) and (precision is not None or engine != "torch"):
            raise ConfigError(
                "an exported file has its own engine and precision",
                found=f"engine={engine!r}, precision={precision!r}",
                hint="leave both out, or give the run in place of the file",
            )
        if engine == "onnx" and precision is None:
            self.precision = "fp32"
        self.net = run_by(self.net, engine, self.precision)
        self.name = bundle.name
        self.files = ImageFiles(self.net, self.pixels)
        self.tile, self.tta = tile, tta
        self.blend: Blend = blend

    def predict_file(self, path: PathLike, background: PathLike | None = None) -> Prediction:
        """Predict one file.

        Args:
            path: An image with 8 bits per channel, grayscale or RGB, which is converted to the network's channels; or
                of the kind that `pixels` declares.
            background: The bare background, for networks that take image and background (6 channels, image first).

        Raises:
            DataError: The file cannot be read, or the two differ in size.
            ConfigError: The network does not accept this kind of input, `labels` do not match the network, or `tile`,
                `blend` or `tta` is invalid.
        """
        return self.segment(path, background).prediction()

    def segment(self, image: PathLike | np.ndarray, background: PathLike | None = None) -> SegmentationResult:
        """Predict the label map, probabilities and depth of one image.

        Args:
            image: A file as for `predict_file`, or a decoded array (H, W) or (H, W, C) with the network's channels:
                uint8, or float32 in 0…1 if `pixels` declares a range.
            background: As for `predict_file`.

        Raises:
            DataError: As for `predict_file`.
            ConfigError: As for `predict_file`.
        """
        path = None if isinstance(image, np.ndarray) else image
        if not isinstance(image, np.ndarray):
            image = self.files.read(image, background)
        elif image.dtype not in self._dtypes or image.ndim not in (2, 3):
            raise DataError(
                "not a decoded image",
                expected=f"{' or '.join(map(str, self._dtypes))} (H, W) or (H, W, C)",
                found=f"{image.dtype} {image.shape}",
                hint="preprocess it yourself, and pass the tensor to unetzoo.predict",
            )
        result = self._decided(*self._run(image if image.ndim == 3 else image[..., None]))
        return result if path is None else self.files.located(result, path)

    def predict_files(
        self,
        inputs: PathLike | Sequence[PathLike],
        out_dir: PathLike,
        background: PathLike | None = None,
        *,
        products: str | Sequence[str] = DEFAULT_PRODUCTS,
        workers: int = 2,
        shard: str | Sequence[int] | None = None,
        resume: bool = False,
        seen: Callable[[int, int, DataError | None], None] = lambda done, total, error: None,
    ) -> list[DataError]:
        """Predict files and write their results; reading and writing overlap with prediction.

        At most `2 * workers` images and `2 * workers` outputs are queued in memory.

        Args:
            inputs: An image, a folder of images, a glob, or several of these.
            out_dir: Folder for the results; created if necessary. Existing results with the same name are replaced.
            background: For networks that take an image and its background: a folder with one file of the same stem per
                image, or one file for all images.
            products: Any of "mask" (`<stem>.png`, a palette image; `<stem>_<label>.png` per label if multilabel),
                "color", "overlay", "depth" (16-bit), "depth_color" (`<stem>_<product>.png`) and "json"
                (`<stem>.json`), and for georeferenced images "geotiff" (`<stem>.tif`, the label map with the same
                georeference; 255 where the image has no data); or "all" of these. Products for which the network has no
                head are skipped. "instances" writes the objects: `<stem>_instances.tif` with a number per object (16
                bits, 32 for more than 65,535), `<stem>_objects.csv` and `<stem>_outlines.png`. Also "coco"
                and "coco_rle": `annotations.coco.json` and `annotations.coco_rle.json`, the predictions for all images
                as COCO JSON, see `coco_record`; and "uncertainty": `uncertainty.csv`, the most uncertain image first,
                with the mean entropy of its pixels (0 certain, 1 undecided) and the share of those without a sure
                class. Of volumes (`pixels.axis`), only the mask, a volume of the same format,
                and "json" are written.
            workers: Number of reader threads, and of writer threads.
            shard: "3/16" or (3, 16) predicts every 16th image, beginning with the third, so that 16 machines share the
                work. Together they write what one call would; files for all images are written by the shard that ends
                last. The shards' records are kept in `shards/` in the folder.
            resume: Skip images that an earlier call has predicted, if it was killed; both calls need `resume` or
                `shard`. Images that could not be read, or have changed, are tried again.
            seen: Called after each image, in order, with the number done, the total, and the error or None.

        Returns:
            One error per image that could not be read, in order, with the file as its subject. The results of all other
            images were written.

        Raises:
            DataError: No images were found, or two of them would be written to the same file.
            ConfigError: A result would overwrite an input, or cannot be written (finished results are kept; earlier
                read errors are added as notes); the results to resume belong to another run; or as for
                `predict_file`.
        """
        self.files.channels(background is not None)
        images = self.files.first_channels(find_images(inputs), inputs)
        backgrounds = backgrounds_of(background)
        inputs_too = [*images, *([] if backgrounds is None else backgrounds.values())]
        results = Results(Path(out_dir), products_of(products), self.labels if self.mode == "multilabel" else None)
        check_targets(images, inputs_too, results, self.files.stem)
        if self.mode == "multilabel" and set(results.products) & set(OBJECT_PRODUCTS):
            raise ConfigError("objects of pixels with several labels", expected="one class per pixel",
                              hint="write mask: one image per label")  # fmt: skip
        part = Shard.of(shard)
        if results.shared() and any(is_volume(path, self.pixels) for path in images):
            raise ConfigError("volumes have no files for all images", subject=inputs, expected="mask or json",
                              found=", ".join(results.shared()), hint="leave it out, or predict images")  # fmt: skip
        failures: list[DataError] = []

        def read(path: Path) -> np.ndarray | Path:
            return path if is_volume(path, self.pixels) else self.files.read(path, background_of(path, backgrounds))

        def work(image: np.ndarray | Path) -> tuple[np.ndarray, Tensor, Tensor | None] | VolumeResult:
            if isinstance(image, Path):
                assert self.pixels is not None
                return predict_volume(image, self.pixels, self.segment)
            return self._run(image)

        def write(path: Path, output: tuple[np.ndarray, Tensor, Tensor | None] | VolumeResult) -> None:
            if isinstance(output, VolumeResult):
                stem, facts = self.files.stem(path), self._facts(path, output)
                output.write(results.folder, stem, path, facts, results.products)
                return note(path, {})
            result = self.files.located(self._decided(*output), path)
            results.write(result, self.files.stem(path), self._facts(path, result))
            note(path, results.record(path, result))

        def note(path: Path, record: dict[str, Any]) -> None:
            if records is not None:
                records.add(numbers[path], path, record)

        numbers = {path: number for number, path in enumerate(images, start=1)}
        recipe = self._recipe(images, results, part) if resume or part.total > 1 else None
        mine = part.take(images)
        with results.records(part, recipe, resume=resume) as records, ExitStack() as ending:
            left = [path for path in mine if records is None or not records.knows(numbers[path], path)]
            outcomes = ending.enter_context(closing(io_pipeline(left, read, work, write, workers=workers)))
            for done, (path, error) in enumerate(zip(left, outcomes, strict=True), start=1 + len(mine) - len(left)):
                if isinstance(error, OSError) and not isinstance(error, DataError):
                    raise unwritable(Path(out_dir), error, done - 1, failures, len(mine)) from error
                if error is not None and not isinstance(error, DataError):
                    raise error
                if error is not None:
                    error = _naming(path, error)
                    failures.append(error)
                seen(done, len(mine), error)
        return failures

    def _run(self, image: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor | None]:
        """Return the image and the network's output: logits, and depth if it has a depth head."""
        try:
            output = predict(
                self.net, self._prepared(image), tile=self.tile, blend=self.blend, tta=self.tta, labels=self.labels,
                precision=self.precision,
            )  # fmt: skip
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = image.shape[:2]
            raise ImageTooLargeError(
                "not enough memory for an image", found=f"{width}×{height}", hint="predict it by tiles: tile=512"
            ) from error
        if isinstance(output, Tensor):
            return image, output, None
        return image, output[0], getattr(output, "depth", None)

    def _prepared(self, image: np.ndarray) -> Tensor:
        assert self.preprocess is not None
        return self.preprocess(image)

    def _decided(self, image: np.ndarray, logits: Tensor, depth: Tensor | None) -> SegmentationResult:
        labels = self._labels_for(len(logits))
        decision = Decision.of(self.threshold, labels, len(logits), self.mode)
        size = image.shape[0], image.shape[1]
        probabilities = probabilities_of(self.net, resized(logits, size), mode=self.mode)
        plane = None if depth is None else resized(depth, size)
        return SegmentationResult.of(image, probabilities, labels, decision, self.cleaning, plane, self.bundle.objects,
                                     self.unsure)  # fmt: skip

    def _recipe(self, images: Sequence[Path], results: Results, shard: Shard) -> dict[str, Any]:
        """Everything that determines the results."""
        names = hashlib.sha256("\n".join(path.name for path in images).encode("utf-8", "surrogateescape"))
        return {
            "network": fingerprint(self.bundle.model),
            "images": [len(images), names.hexdigest()],
            "shards": shard.total,
            "products": results.products,
            "preprocess": repr(self.preprocess) if isinstance(self.preprocess, Preprocess) else None,
            "settings": {**self._settings(), "threshold": repr(self.threshold), "cleaning": self.cleaning.to_dict()},
            "objects": repr(self.bundle.objects),
        }

    def _facts(self, path: Path, result: SegmentationResult | VolumeResult) -> dict[str, Any]:
        decision = Decision.of(self.threshold, result.labels, result.channels, self.mode)
        settings = {**self._settings(), "thresholds": list(decision.thresholds) or None}
        return {"image": str(path), **result.facts(), "settings": settings | self.cleaning.to_dict()}

    def _settings(self) -> dict[str, Any]:
        return {
            "network": self.name,
            "unetzoo": __version__,
            "tile": self.tile,
            "blend": self.blend,
            "tta": None if self.tta is None else str(self.tta),
            "precision": self.precision,
            "engine": self.engine,
            **({} if self.unsure is None else {"unsure": self.unsure}),
        }

    @property
    def _dtypes(self) -> tuple[np.dtype, ...]:
        declared = self.pixels is not None and self.pixels.range is not None
        return (np.dtype(np.uint8), *([np.dtype(np.float32)] if declared else []))

    def _labels_for(self, channels: int) -> LabelSpec:
        return labels_for(self.labels, channels, mode=self.mode)


def predict_labels(network: nn.Module | ModelBundle, image: PathLike | np.ndarray, **options: Any) -> np.ndarray:
    """Predict the label map of an image with a `Predictor`.

    Args:
        network: As for `Predictor`.
        image: A file, or a decoded image uint8 (H, W) or (H, W, C).
        options: Options of `Predictor`.

    Shape:
        Returns class indices uint8 (H, W), or 0 and 1 (K, H, W) if `mode` is "multilabel".

    Raises:
        ConfigError: As for `Predictor`.
        DataError: As for `Predictor.predict_file`.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 16))
        >>> predict_labels(net, np.zeros((20, 31, 3), np.uint8), preprocess=unetzoo.Preprocess()).shape
        (20, 31)
    """
    return Predictor(network, **options).segment(image).label_map


def _naming(path: Path, error: DataError) -> DataError:
    """Add the file to the subject of an error."""
    if str(path) in str(error):
        return error
    subject = path if error.subject is None else f"{path} ({error.subject})"
    return error.replace(subject=subject)
