"""How the page looks: light and dark, on paper and on a phone, with contrast enough to be read."""

from __future__ import annotations

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
SHADES = 11  # of a confusion matrix: 0 %, 10 % … 100 %

Color = tuple[float, float, float]


def rgb(color: str) -> Color:
    """The parts of `#rrggbb`, 0…255."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """The contrast of two colors, 1…21; text needs 4.5, lines 3.

    Examples:
        >>> contrast("#000000", "#ffffff"), contrast("#777777", "#777777")
        (21.0, 1.0)

    Source:
        Web Content Accessibility Guidelines 2.2, "contrast ratio" and "relative luminance".
    """
    lights = sorted(_luminance(rgb(color)) for color in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def shades(ground: str, accent: str) -> list[tuple[str, str]]:
    """From ground to accent: colors of cells, each with black or white text, whichever reads better."""
    made = []
    for place in range(SHADES):
        part = place / (SHADES - 1)
        mixed = bytes(round(g + (a - g) * part) for g, a in zip(rgb(ground), rgb(accent), strict=True))
        color = "#" + mixed.hex()
        made.append((color, max("#000000", "#ffffff", key=lambda text: contrast(color, text))))
    return made


def stylesheet() -> str:
    """All of the page's CSS."""
    return (
        f":root{{color-scheme:light dark;{_theme(LIGHT, CURVES_LIGHT)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{_theme(DARK, CURVES_DARK)}}}}}"
        + "".join(f".s{n}{{stroke:var(--c{n})}}.c{n}{{fill:var(--c{n})}}" for n in range(len(CURVES_LIGHT)))
        + "".join(f".d{n}{{background:var(--d{n});color:var(--t{n})}}" for n in range(SHADES))
        + RULES
    )


RULES = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--ground);color:var(--text);
 font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;border-bottom:1px solid var(--rule);padding-bottom:.25rem}
h3{font-size:1rem;margin:1rem 0 .5rem}
p,ul{margin:.5rem 0}
small,figcaption,.quiet{color:var(--quiet);font-size:.875rem;font-weight:400}
a{color:var(--accent)}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0}
code,pre{font-family:ui-monospace,monospace;font-size:.875rem}
pre{background:var(--panel);padding:.75rem;overflow-x:auto;border-radius:4px}
.warn{background:var(--warn-ground);color:var(--warn);border-left:4px solid;padding:.5rem 1rem;border-radius:4px}
.lead{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}
.lead div{background:var(--panel);border-radius:4px;padding:.5rem 1rem}
.lead dt{color:var(--quiet);font-size:.875rem}.lead dd{margin:0;font-size:1.375rem;font-variant-numeric:tabular-nums}
dl.facts{display:grid;grid-template-columns:minmax(7rem,auto) 1fr;gap:.25rem 1rem;margin:.5rem 0}
.facts dt{color:var(--quiet)}.facts dd{margin:0}
.wide{overflow-x:auto;margin:.75rem 0}
.wide:focus-visible,pre:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--accent)}
table{border-collapse:collapse;font-size:.9375rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:right;unicode-bidi:isolate}
th{font-weight:600}
th[scope=row],thead th:first-child{text-align:left;position:sticky;left:0;background:var(--ground);max-width:14rem}
.best td,.best th{font-weight:700}
.swatch{display:inline-block;width:.9em;height:.9em;border:1px solid var(--quiet);border-radius:2px;margin-right:.5em;
 vertical-align:-.1em}
.charts{display:grid;gap:1.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}
figure{margin:0 0 1.25rem}
.chart svg[role=img]{width:100%;height:auto;display:block}
svg text{fill:var(--quiet);font-size:12px}
svg .grid{stroke:var(--rule);stroke-width:1;opacity:.6}svg .base{stroke:var(--quiet)}
svg [class^=s]{fill:none;stroke-width:2;stroke-linejoin:round}
.keys{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.875rem}
.keys svg{margin-right:.4rem}
.confusion td{padding:.15rem .3rem;min-width:1.9rem;text-align:center;border:1px solid var(--ground);font-size:.8125rem}
.confusion thead th:not(:first-child){writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;
 padding:.3rem .1rem;font-weight:400;max-height:10rem;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.many td{font-size:.6875rem;min-width:1.5rem;padding:.05rem}
.panels{display:grid;gap:.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,8.5rem),1fr));max-width:56rem}
.panels img{width:100%;height:auto;display:block;image-rendering:pixelated;background:var(--panel)}
.panels .photo{image-rendering:auto}
.scale{display:flex;gap:.5rem;align-items:center;font-size:.875rem;max-width:24rem}
.scale i{flex:1;height:.8rem;border-radius:2px}
@media print{.wide{overflow:visible}details>*{display:block}}
"""


def _theme(colors: dict[str, str], curves: tuple[str, ...]) -> str:
    named = colors | {f"c{n}": color for n, color in enumerate(curves)}
    for n, (color, text) in enumerate(shades(colors["ground"], colors["accent"])):
        named |= {f"d{n}": color, f"t{n}": text}
    return "".join(f"--{name}:{color};" for name, color in named.items())


def _luminance(color: Color) -> float:
    parts = [part / 255 for part in color]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
