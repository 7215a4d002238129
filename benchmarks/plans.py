"""The plan beside recipes and scripts written by hand, at equal time, on images that chose nothing.

`python -m benchmarks.plans DATASET… --data PATH --minutes 10` trains each method on each data set and stores
`results/plans-<cpu|cuda>.json` after each run; started again, it continues with the missing runs. A data set is first
divided: training images, images that choose the best epoch, and images that are only scored.

The time is that of training; reading, planning and scoring come on top and are the same for all. Methods:

- plan: `unetzoo.plan`, then `unetzoo.train`
- hand: the repository's recipe for this data set, with as many epochs as fit into the time
- smp: the settings of SMP's example scripts with `Unet("resnet18", encoder_weights=None)`
- milesial: the network and defaults of the script at github.com/milesial/Pytorch-UNet
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch.nn import functional as F

import unetzoo
from unetzoo.datasets import Folder, Transform
from unetzoo.training import evaluate
from unetzoo.training.recipe import Recipe, load

from .harness import RESULTS, environment
from .peers import CommonUNet

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
IGNORED = 250  # value of unlabeled pixels in the written masks
Pair = tuple[Path, Path]
Parts = dict[str, list[Pair]]  # train, val, and further parts that are only scored


@dataclass(frozen=True)
class Data:
    """A data set: how it is divided, its labels, and the recipe by hand.

    Args:
        folder: Its folder below `--data`.
        divide: Returns the pairs of image and mask of every part.
        mask: Returns the class of every pixel for an image and its mask file.
        names: Class names.
        score: The score by which the best epoch is chosen, and which is compared.
        recipe: Recipe by hand: a name, a file or the table `GUIDE`.
        changes: Overrides of this recipe.
    """

    folder: str
    divide: Callable[[Path], Parts]
    mask: Callable[[Pair], np.ndarray]
    names: tuple[str, ...]
    score: str
    recipe: str | Path | None = None
    changes: tuple[str, ...] = field(default=())

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `folder` for the divided data."""
        return {"names": list(self.names), "ignore_ids": [IGNORED], "ignore_index": 255}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans")
    parser.add_argument("datasets", nargs="+", choices=DATA)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the data sets")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    path = RESULTS / f"plans-{'cuda' if torch.cuda.is_available() else 'cpu'}.json"
    runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    finished = {(run["data"], run["method"], run["minutes"], run["seed"]) for run in runs}
    console = Console(highlight=False)
    names: list[str] = options.datasets
    methods: list[str] = options.methods
    for seed, name, method in itertools.product(range(options.seeds), names, methods):
        if (name, method, options.minutes, seed) in finished:
            continue
        with tempfile.TemporaryDirectory() as folder:
            write(DATA[name], options.data / DATA[name].folder, Path(folder))
            row = METHODS[method](DATA[name], Path(folder), options.minutes, seed)
        runs.append({"data": name, "method": method, "minutes": options.minutes, "seed": seed, **row})
        console.print(name, method, seed, row["scores"])
        record = {
            "what": "plans, recipes by hand and scripts at equal time",
            "date": date.today().isoformat(),
            "command": "python -m benchmarks.plans DATASET… --data PATH",
            "environment": environment(),
            "runs": runs,
        }
        path.write_text(json.dumps(record, indent=1) + "\n")


def write(data: Data, source: Path, root: Path) -> None:
    """Write the parts as folders of images and masks: `root/seen` for training, `root/kept` to be scored only."""
    for part, pairs in data.divide(source).items():
        place = root / ("seen" if part in ("train", "val") else "kept")
        for kind in ("images", "masks"):
            (place / kind / part).mkdir(parents=True)
        for pair in pairs:
            with Image.open(pair[0]) as image:
                image.convert("RGB").save(place / "images" / part / f"{pair[0].stem}.png", compress_level=1)
            mask = data.mask(pair).astype(np.uint8)
            Image.fromarray(mask).save(place / "masks" / part / f"{pair[0].stem}.png")


def by_plan(data: Data, root: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Plan and train."""
    begun = time.perf_counter()
    recipe = unetzoo.plan(root / "seen", minutes, dataset="folder", options=data.options)
    planning = time.perf_counter() - begun
    return {"planning": round(planning, 1), **trained(data, recipe, root, seed)}


def by_hand(data: Data, root: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Train the recipe by hand for as many epochs as fit into the time, measured over its second epoch."""
    sets = [f"data.root={root / 'seen'}", *data.changes]
    table = load(data.recipe, sets).model_dump(exclude_none=True) if data.recipe else guide(data)
    borders = {key: table["data"][key] for key in ("border_weights",) if key in table["data"]}
    table["data"] = {"name": "folder", "root": str(root / "seen"), **data.options, **borders}
    recipe = Recipe.model_validate(table)
    with tempfile.TemporaryDirectory() as folder:
        unetzoo.train(recipe, ["train.epochs=2"], out=Path(folder) / "run", progress=False)
        seconds = lines(Path(folder) / "run")[-1]["seconds"]
    recipe.train.epochs = max(1, round(60 * minutes / seconds))
    return trained(data, recipe, root, seed)


def trained(data: Data, recipe: Recipe, root: Path, seed: int) -> dict[str, Any]:
    """Train a recipe and score its best epoch on the parts that were kept."""
    run, begun = root / "run", time.perf_counter()
    unetzoo.train(recipe, [f"train.seed={seed}"], out=run, progress=False)
    seconds = time.perf_counter() - begun
    scores = {}
    for part in kept(root):
        metrics = '[{name="segmentation"}, {name="sweep"}]' if len(data.names) == 2 else '[{name="segmentation"}]'
        sets = [f"data.root={root / 'kept'}", f"data.val.split={part}", f"metrics.mask={metrics}"]
        scores[part] = chosen(evaluate(run, sets, progress=False))
    model = recipe.model_dump(exclude_none=True)["model"]
    return {"epochs": len(lines(run)), "seconds": round(seconds, 1), "model": model, "scores": scores}


def kept(root: Path) -> list[str]:
    """The parts that are only scored."""
    return sorted(path.name for path in (root / "kept" / "images").iterdir())


def lines(run: Path) -> list[dict[str, Any]]:
    """The rows of a run, one per epoch."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def chosen(scores: dict[str, float]) -> dict[str, float]:
    """The scores that are stored: overlap per class, averages and the area under the curve."""
    prefixes = ("f1/", "iou/", "miou", "pixel_accuracy", "roc_auc", "best_f1")
    return {name: round(float(value), 5) for name, value in scores.items() if name.startswith(prefixes)}


def guide(data: Data) -> dict[str, Any]:
    """The recipe of docs/guides/own-data.md."""
    return {
        "model": {"name": "bnunet", "classes": 1, "encoder_channels": [16, 32, 64, 128]},
        "data": {},
        "transform": {"normalize": "standard", "train": {"crop": 64, "hflip": 0.5, "vflip": 0.5, "rot90": True}},
        "loss": {"dice_ce": 1.0},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "metrics": {"mask": {"name": "segmentation"}},
        "train": {"batch_size": 8, "monitor": data.score},
    }


def smp_script(data: Data, root: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Adam at 2e-4 with a cosine, Dice loss, mirrored crops of 320 or whole images: SMP's example scripts."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(seed)
    classes = 1 if len(data.names) == 2 else len(data.names)
    net = smp.Unet("resnet18", encoder_weights=None, classes=classes)
    dice = smp.losses.DiceLoss("binary" if classes == 1 else "multiclass", ignore_index=255)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)

    def rate(spent: float) -> float:
        return 1e-5 + (2e-4 - 1e-5) * (1 + np.cos(np.pi * spent)) / 2

    transform = {"crop": side_of(root, 320), "hflip": 0.5, "normalize": IMAGENET}
    return scripted(data, root, minutes, seed, net, dice, optimizer, rate, transform, batch=8)


def milesial_script(data: Data, root: Path, minutes: float, seed: int) -> dict[str, Any]:
    """RMSprop at 1e-5, momentum 0.999, cross-entropy and Dice, single images at half their size, no augmentation."""
    torch.manual_seed(seed)
    classes = 1 if len(data.names) == 2 else len(data.names)
    net = CommonUNet(3, classes)
    loss = unetzoo.LOSSES.build("dice_ce", mode="binary" if classes == 1 else "multiclass", ignore_index=255)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-5, weight_decay=1e-8, momentum=0.999, foreach=True)
    return scripted(data, root, minutes, seed, net, loss, optimizer, lambda spent: 1e-5,
                    {"normalize": "unit"}, batch=1, scale=0.5, clip=1.0)  # fmt: skip


def side_of(root: Path, most: int) -> int:
    """The side of crops: a multiple of 32 that no image is smaller than."""
    sizes = []
    for path in (root / "seen" / "images" / "train").iterdir():
        with Image.open(path) as image:
            sizes.append(min(image.size))
    return min(most, min(sizes) // 32 * 32)


def scripted(
    data: Data, root: Path, minutes: float, seed: int, net: torch.nn.Module, loss: Callable[..., Any],
    optimizer: torch.optim.Optimizer, rate: Callable[[float], float], transform: dict[str, Any], *, batch: int,
    scale: float = 1.0, clip: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A plain training loop until the time is over; as in both scripts, the last epoch is scored."""
    train = Folder(root / "seen", "train", **data.options)
    transformed = Transform(labels=train.labels, **transform)
    rng, order = np.random.default_rng(seed), random.Random(seed)
    steps, end, begun = 0, 60 * minutes, time.perf_counter()
    net.train()
    while (spent := time.perf_counter() - begun) < end:
        for group in optimizer.param_groups:
            group["lr"] = rate(spent / end)
        drawn = [transformed(train[i], rng) for i in order.sample(range(len(train)), min(batch, len(train)))]
        image, mask = (torch.stack([torch.as_tensor(sample[key]) for sample in drawn]) for key in ("image", "mask"))
        output = resized(net, image, scale, multiple=32)
        value = loss(output, mask.long()) if output.shape[1] > 1 else loss(output, mask.long()[:, None])
        value.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    scores = {part: score(data, root / "kept", part, net, transform, scale) for part in kept(root)}
    return {"steps": steps, "seconds": round(time.perf_counter() - begun, 1), "scores": scores}


@torch.no_grad()
def score(
    data: Data, root: Path, part: str, net: torch.nn.Module, transform: dict[str, Any], scale: float
) -> dict[str, float]:
    """Scores of whole images at their own size."""
    dataset = Folder(root, part, **data.options)
    plain = Transform(train=False, labels=dataset.labels, normalize=transform["normalize"])
    metrics = [unetzoo.METRICS.build("segmentation", labels=dataset.labels)]
    if len(data.names) == 2:
        metrics.append(unetzoo.METRICS.build("sweep", labels=dataset.labels))
    net.eval()
    for index in range(len(dataset)):
        sample = plain(dataset[index], np.random.default_rng(0))
        output = resized(net, torch.as_tensor(sample["image"])[None], scale, multiple=32)
        for metric in metrics:
            metric.update(output, torch.as_tensor(sample["mask"])[None].long())
    net.train()
    return chosen({name: value for metric in metrics for name, value in metric.compute().items()})


def resized(net: torch.nn.Module, image: torch.Tensor, scale: float, multiple: int) -> torch.Tensor:
    """Logits at the size of the image, from a network that sees it scaled and padded to a multiple."""
    small = F.interpolate(image, scale_factor=scale, mode="bicubic") if scale != 1 else image
    height, width = small.shape[-2:]
    padded = F.pad(small, (0, -width % multiple, 0, -height % multiple))
    output = net(padded)[..., :height, :width]
    return F.interpolate(output, image.shape[-2:], mode="bilinear") if scale != 1 else output


def pairs(images: Path, masks: Path, name: Callable[[str], str] = "{}.png".format) -> list[Pair]:
    """Pairs of image and mask, in the order of their names."""
    return [(path, masks / name(path.stem)) for path in sorted(images.iterdir())]


def ordered(found: Sequence[Pair], val: int, test: int) -> Parts:
    """Contiguous blocks: neighbors in time or depth are not independent."""
    first, second = len(found) - val - test, len(found) - test
    return {"train": list(found[:first]), "val": list(found[first:second]), "test": list(found[second:])}


def stratified(found: Sequence[Pair], kinds: dict[str, str], share: float = 0.2) -> Parts:
    """Of every kind, a share that chooses and a share that is only scored, which are also parts of their own."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in found:
        groups[kinds[pair[0].stem]].append(pair)
    parts: Parts = {"train": [], "val": [], "test": []}
    for kind, members in sorted(groups.items()):
        shuffled = random.Random(0).sample(members, len(members))
        count = max(1, round(share * len(members)))
        parts["test"] += shuffled[:count]
        parts["val"] += shuffled[count : 2 * count]
        parts["train"] += shuffled[2 * count :]
        parts[f"test-{kind}"] = shuffled[:count]
    return parts


def _dsb(root: Path) -> Parts:
    with (root / "kinds.csv").open() as file:
        kinds = {row["id"]: row["kind"] for row in csv.DictReader(file)}
    return stratified(pairs(root / "images", root / "instances"), kinds)


def _frames(masks: str, val: int) -> Callable[[Path], Parts]:
    """The last training frames choose the epoch; the published val is only scored."""

    def divide(root: Path) -> Parts:
        seen = ordered(pairs(root / "images" / "train", root / masks / "train"), val, 0)
        return {**seen, "test": pairs(root / "images" / "val", root / masks / "val")}

    return divide


def _drive(root: Path) -> Parts:
    training = root / "training"
    name = lambda stem: stem.replace("_training", "_manual1") + ".gif"  # noqa: E731
    return ordered(pairs(training / "images", training / "1st_manual", name), 2, 4)


def _values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image if image.mode != "1" else image.convert("L"))


def _vessels(pair: Pair) -> np.ndarray:
    field_of_view = pair[0].parent.parent / "mask" / f"{pair[0].stem}_mask.gif"
    return np.where(_values(field_of_view) > 0, _values(pair[1]) > 0, IGNORED)


def _camvid(pair: Pair) -> np.ndarray:
    values = _values(pair[1])
    return np.where(values == 11, IGNORED, values)


CAMVID = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "signsymbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
DATA = {
    "dsb2018": Data("dsb2018", _dsb, lambda pair: _values(pair[1]) > 0, ("background", "nucleus"), "iou/nucleus"),
    "camvid": Data("camvid", _frames("labels", 60), _camvid, CAMVID, "miou", RECIPES / "camvid-bnunet.toml"),
    "drive": Data("drive", _drive, _vessels, ("background", "vessel"), "iou/vessel"),
    "isbi2012": Data(
        "isbi2012", lambda root: ordered(pairs(root / "images", root / "labels"), 4, 6),
        lambda pair: _values(pair[1]) > 0, ("membrane", "cell"), "iou/cell", "isbi2012",
        ("model.encoder_channels=[16,32,64,128,256]", "model.in_channels=3", "transform.train.crop=316"),
    ),
    "cars": Data(
        "cars/camvid_car_crops", _frames("masks", 40), lambda pair: _values(pair[1]) > 0, ("background", "car"),
        "f1/car", RECIPES / "cars.toml",
    ),
}  # fmt: skip
METHODS = {"plan": by_plan, "hand": by_hand, "smp": smp_script, "milesial": milesial_script}

if __name__ == "__main__":
    main()
