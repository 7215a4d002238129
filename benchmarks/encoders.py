"""Our encoders in SMP's decoders: which combinations work, with which settings, and what the others raise.

`python -m benchmarks.encoders` builds every pair and writes the table into `docs/smp.md`, between two markers. The
networks are built on torch's meta device, which only tracks shapes.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch

import unetzoo.models  # noqa: F401 -- puts our encoders into SMP's table
from unetzoo.registry import ENCODERS

PAGE = Path(__file__).parents[1] / "docs" / "smp.md"
MARKS = "<!-- encoders: made by python -m benchmarks.encoders -->\n", "<!-- /encoders -->\n"
NAMES = [name for name in ENCODERS.names() if ENCODERS.entry(name).builtin]
SIDE, CLASSES = 128, 2
DILATED = [{"encoder_depth": depth, "encoder_output_stride": 2**depth} for depth in (4, 3)]  # by pooling alone


@dataclass(frozen=True)
class Fit:
    """The result of one encoder in one decoder.

    Args:
        settings: The keywords it takes; None where there are none.
        reason: What is raised under the decoder's own defaults; "" where nothing is.
    """

    settings: dict[str, Any] | None
    reason: str


def fit(architecture: type, encoder: str) -> Fit:
    """Try the decoder's defaults first, then shallower encoders if it needs a dilated one."""
    dilates = "encoder_output_stride" in inspect.signature(architecture).parameters
    reasons: list[str] = []
    for settings in ({}, *(DILATED if dilates else ())):
        reason = refusal(architecture, encoder, settings)
        reasons.append(reason)
        if not reason:
            return Fit(settings, reasons[0])
    return Fit(None, reasons[0])


def refusal(architecture: type, encoder: str, settings: dict[str, Any]) -> str:
    """The error that is raised, or what is wrong with the output; empty if all is well."""
    try:
        with torch.device("meta"):
            net = architecture(encoder, encoder_weights=None, classes=CLASSES, **settings).eval()
            output = net(torch.zeros(2, 3, SIDE, SIDE))
    except Exception as error:  # SMP raises several kinds
        return f"{type(error).__name__}: {error}"
    whole = (2, CLASSES, SIDE, SIDE)
    return "" if output.shape == whole else f"an output of {tuple(output.shape)}, not {whole}"


def table() -> str:
    """The table as Markdown."""
    rows = [f"| decoder | {' | '.join(f'`{name}`' for name in NAMES)} | with | why not by its defaults |"]
    rows.append("|---" * (len(NAMES) + 3) + "|")
    for architecture in smp.MODEL_ARCHITECTURES_MAPPING.values():
        fits = [fit(architecture, name) for name in NAMES]
        marks = " | ".join("–" if one.settings is None else "✓" for one in fits)
        settings = {", ".join(f"`{key}={value}`" for key, value in (one.settings or {}).items()) for one in fits}
        reasons = {one.reason.partition(". Fix")[0].replace(name, "…") for one, name in zip(fits, NAMES, strict=True)}
        texts = ["; ".join(sorted(filter(None, notes))) for notes in (settings, reasons)]
        rows.append(f"| `{architecture.__name__}` | {marks} | {texts[0]} | {texts[1]} |")
    return "\n".join(rows) + "\n"


def parts(page: str) -> tuple[str, str, str]:
    """The text before the table, the table, and the text after it."""
    before, first, rest = page.partition(MARKS[0])
    found, last, after = rest.partition(MARKS[1])
    return before + first, found, last + after


if __name__ == "__main__":
    before, _, after = parts(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(before + table() + after, encoding="utf-8")
    print(f"written into {PAGE}")
