"""Pictures of a run: its curves, and what the network answers beside the truth."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ..labels import LabelSpec
from .heads import fit_targets, heads_of, without_labels

Picture = NDArray[np.uint8]
CAPTION = 14  # height of a caption in pixels


def curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw the losses and the scores over the epochs."""
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    losses = [key for key in history[0] if key.startswith(("train/", "val/"))] if history else []
    scores = [key for key in ("miou", "mdice", "pixel_accuracy", "depth/rmse") if history and key in history[0]]
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, keys, title in zip(figure.subplots(1, 2), (losses, scores), ("Loss", "Validation scores"), strict=True):
        for key in keys:
            axes.plot([row["epoch"] for row in history], [row[key] for row in history], label=key)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if keys:
            axes.legend()
    figure.savefig(path, dpi=110)


def predictions(answers: Iterable[tuple[dict[str, Any], Any]], labels: LabelSpec, folder: Path, most: int = 12) -> None:
    """Write, a picture a sample, input | truth | prediction (and the same of the depth), and the labels alone.

    Args:
        answers: (batch, output) pairs, as `Trainer.answers` gives them.
        labels: Colours and names.
        folder: Where to write `<id>.png`, and `<id>-labels.png` with the predicted class indices.
        most: How many samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for batch, output in answers:
        output = without_labels(output)
        heads = heads_of(output)
        images = fit_targets({**batch, "depth": batch["image"]}, heads["mask"], None)["depth"]
        for index in range(len(images)):
            if written == most:
                return
            name = re.sub(r"[^\w.-]+", "_", str(batch["id"][index])) if "id" in batch else f"{written:03d}"
            predicted = to_labels(heads["mask"][index])
            panels = pictures_of(images[index]) | {
                "truth": colored(batch["mask"][index].cpu().numpy(), labels),
                "prediction": colored(predicted, labels),
            }
            if "depth" in heads and "depth" in batch:
                panels |= {"true depth": grey(batch["depth"][index]), "predicted depth": grey(heads["depth"][index])}
            side_by_side(panels).save(folder / f"{name}.png")
            indexed(predicted, labels).save(folder / f"{name}-labels.png")
            written += 1


def to_labels(logits: Tensor) -> NDArray[np.uint8]:
    """Logits (C, H, W) → class indices: arg max, or logit > 0 where there is one channel."""
    chosen = logits[0] > 0 if logits.shape[0] == 1 else logits.argmax(0)
    return chosen.to(torch.uint8).cpu().numpy()


def colored(mask: NDArray[Any], labels: LabelSpec) -> Picture:
    """Class indices → RGB; ignored pixels are grey."""
    table = np.full((256, 3), 128, np.uint8)
    table[: len(labels.palette)] = labels.palette
    if labels.classes == 2 and labels.palette[0] == (0, 0, 0):
        table[1] = 255  # a binary mask reads best in black and white
    return table[np.clip(mask, 0, 255)]


def indexed(mask: NDArray[np.uint8], labels: LabelSpec) -> Image.Image:
    """Class indices → a palette PNG that any viewer shows in colours."""
    picture = Image.fromarray(mask)
    picture.putpalette([value for color in labels.palette for value in color])
    return picture


def pictures_of(image: Tensor) -> dict[str, Picture]:
    """A network's input (C, H, W) as pictures, three channels (or one) each, stretched to the full range."""
    array = image.detach().float().cpu().numpy()
    low, high = array.min(), array.max()
    array = ((array - low) / (high - low + 1e-12) * 255).astype(np.uint8)
    if array.shape[0] == 6:
        return {"input": array[:3].transpose(1, 2, 0), "background": array[3:].transpose(1, 2, 0)}
    channels = array[:3] if array.shape[0] >= 3 else array[:1].repeat(3, 0)
    return {"input": channels.transpose(1, 2, 0)}


def grey(plane: Tensor) -> Picture:
    """A plane in [0, 1], such as a depth (1, H, W), as a grey picture."""
    array = (plane.detach().float().clamp(0, 1) * 255).to(torch.uint8).cpu().numpy().squeeze(0)
    return np.repeat(array[..., None], 3, axis=2)


def side_by_side(panels: dict[str, Picture], gap: int = 4) -> Image.Image:
    """Pictures in a row, each under its caption."""
    height = max(panel.shape[0] for panel in panels.values())
    width = sum(panel.shape[1] + gap for panel in panels.values()) - gap
    sheet = Image.new("RGB", (width, height + CAPTION), "white")
    pen, left = ImageDraw.Draw(sheet), 0
    for caption, panel in panels.items():
        pen.text((left + 2, 1), caption, fill="black")
        sheet.paste(Image.fromarray(np.ascontiguousarray(panel)), (left, CAPTION))
        left += panel.shape[1] + gap
    return sheet
