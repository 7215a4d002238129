"""Light and dark colors of the report, with sufficient contrast for reading."""

from __future__ import annotations

from collections.abc import Mapping

LIGHT = {
    "ground": "#ffffff", "panel": "#f4f6f8", "text": "#1a1d21", "quiet": "#555d66", "rule": "#c9d0d6",
    "accent": "#1f5fa8", "warn": "#8a3b00", "warn-ground": "#fff1e3",
}  # fmt: skip
DARK = {
    "ground": "#14171b", "panel": "#1d2227", "text": "#e8eaed", "quiet": "#a8b0b8", "rule": "#414a53",
    "accent": "#6fb0f5", "warn": "#ffbf85", "warn-ground": "#3a2413",
}  # fmt: skip
CURVES_LIGHT = ("#0b62a4", "#b5480a", "#12794f", "#8a3c8f", "#7a5a00", "#b3204a", "#3f5f6f", "#5b4bc4")
CURVES_DARK = ("#6ab0f3", "#ff9d5c", "#4fcf9a", "#d998de", "#e0b94a", "#ff8fa6", "#a9c1cc", "#a99df5")
SHADES = 11  # shades of a confusion matrix: 0%, 10%, …, 100%

Color = tuple[float, float, float]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colors, 1 to 21; text needs 4.5, lines need 3.

    Examples:
        >>> contrast("#000000", "#ffffff"), contrast("#777777", "#777777")
        (21.0, 1.0)

    Source:
        Web Content Accessibility Guidelines 2.2, "contrast ratio" and "relative luminance".
    """
    lights = sorted(_luminance(_rgb(color)) for color in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def shades(colors: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return cell colors from ground to accent, each with the text color, black or white, of higher contrast."""
    ground, accent = _rgb(colors["ground"]), _rgb(colors["accent"])
    made = []
    for place in range(SHADES):
        part = place / (SHADES - 1)
        color = "#" + bytes(round(g + (a - g) * part) for g, a in zip(ground, accent, strict=True)).hex()
        made.append((color, max("#000000", "#ffffff", key=lambda text: contrast(color, text))))
    return made


def _rgb(color: str) -> Color:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _luminance(color: Color) -> float:
    parts = [part / 255 for part in color]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
