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

from ..inference.pictures import class_map, palette_picture
from ..labels import LabelSpec
from .heads import heads_of, without_labels

Picture = NDArray[np.uint8]
CAPTION = 14  # height of a caption in pixels
SHEET = 6  # samples on the sheet of all


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
    """Write input | truth | prediction of each sample, and the predicted labels alone.

    Args:
        answers: (batch, output) pairs, as `Trainer.answers` gives them.
        labels: Colours and names.
        folder: Where to write `<id>.png` and, with the predicted class indices, `<id>-labels.png`; beside it, the
            first few go into one picture, `<folder>.png`.
        most: How many samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Image.Image] = []
    for batch, output in answers:
        heads = heads_of(without_labels(output))
        for index in range(len(batch["image"])):
            if len(rows) == most:
                break
            name = re.sub(r"[^\w.-]+", "_", str(batch["id"][index])) if "id" in batch else f"{len(rows):03d}"
            predicted = class_map(heads["mask"][index])
            panels = pictures_of(batch["image"][index]) | {
                "truth": colored(batch["mask"][index].cpu().numpy(), labels),
                "prediction": colored(predicted, labels),
            }
            if "depth" in heads and "depth" in batch:
                panels |= {"true depth": grey(batch["depth"][index]), "predicted depth": grey(heads["depth"][index])}
            rows.append(side_by_side(panels))
            rows[-1].save(folder / f"{name}.png")
            palette_picture(predicted, labels).save(folder / f"{name}-labels.png")
        if len(rows) == most:
            break
    below(rows[:SHEET]).save(folder.with_suffix(".png"))


def colored(mask: NDArray[Any], labels: LabelSpec) -> Picture:
    """Class indices → RGB; ignored pixels are grey."""
    table = np.full((256, 3), 128, np.uint8)
    table[: len(labels.palette)] = labels.palette
    if labels.classes == 2 and labels.palette[0] == (0, 0, 0):
        table[1] = 255  # a binary mask reads best in black and white
    return table[np.clip(mask, 0, 255)]


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


def below(rows: list[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures one below the other."""
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height + gap for row in rows) - gap), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + gap
    return sheet


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
