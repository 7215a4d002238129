"""One page per dataset: how to get it, its layout on disk, labels, pitfalls, recipes."""

from __future__ import annotations

import functools
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unetzoo.labels import LabelSpec
from unetzoo.registry import DATASETS, RECIPES
from unetzoo.twins import LAYOUTS, write

from .markdown import first_paragraph, page, swatch, table

TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PUBLISHED = ("isbi2012", "helen", "celebamask", "cityscapes", "carvana", "camvid", "dsb2018")
TERMS = " The terms of its owners apply."


def files() -> Iterator[tuple[str, Callable[[], str]]]:
    """Every generated file with the function that creates it."""
    for name in TEXTS:
        yield f"datasets/{name}.md", functools.partial(dataset_page, name)


def dataset_page(name: str) -> str:
    """The page of a dataset."""
    target = DATASETS.get(name)
    source = first_paragraph((sys.modules[target.__module__].__doc__ or "").partition("\n\n")[2])
    how = getattr(target, "how_to_get", "")
    twins = [layout for layout in LAYOUTS if LAYOUTS[layout].dataset == name]
    return page(
        TEXTS[name]["title"],
        first_paragraph(target.__doc__),
        source,
        f"**Data:** {how}." + (TERMS if name in PUBLISHED else "") if how else "",
        f"Arguments: [{target.__name__}][{target.__module__}.{target.__qualname__}].",
        "## On disk" if twins else "",
        *_on_disk(twins),
        *_labels(name, twins),
        "## Pitfalls",
        "\n".join(f"- {pitfall}" for pitfall in TEXTS[name]["pitfalls"]),
        *_use(name, twins),
    )


def _on_disk(twins: list[str]) -> Iterator[str]:
    """The layouts, each with an example; twins with the same files share one."""
    examples: dict[str, list[str]] = {}
    for twin in twins:
        examples.setdefault(_example_of(twin), []).append(twin)
    for example, names in examples.items():
        files = [] if LAYOUTS[names[0]].layout.table else LAYOUTS[names[0]].layout.files
        commands = ", ".join(f"`unetzoo twin {name} OUT`" for name in names)
        yield "\n".join(f"- {file.role}: `{file.path}`" for file in files)
        yield f"Example (created by {commands}):\n\n```text\n{example}\n```"


def _example_of(twin: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        root = write(twin, Path(folder) / "root", count=LAYOUTS[twin].least)
        return "\n".join(["root/", *_tree(root)])


def _tree(folder: Path, indent: str = "  ") -> Iterator[str]:
    """Up to two folders and three files of each folder."""
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    for kind, most in ((Path.is_dir, 2), (Path.is_file, 3)):
        chosen = [path for path in entries if kind(path)]
        for path in chosen[:most]:
            yield indent + path.name + ("/" if path.is_dir() else "")
            if path.is_dir():
                yield from _tree(path, indent + "  ")
        if len(chosen) > most:
            yield f"{indent}…"


def _labels(name: str, twins: list[str]) -> list[str]:
    if name == "nnunet":
        return ["## Labels", "Labels are read from `dataset.json`; a label named `ignore` becomes 255."]
    if name in ("folder", "csv"):
        numbers = "`names` and `ids` (see [Transforms and label sets](../transforms.md))"
        colors = "[`colors`](../datasets.md#color-masks)"
        instances = "[`instances`](../datasets.md#instances)"
        return ["## Labels", f"Declare them with {numbers}, {colors} or {instances}."]
    spec = _spec(name, twins)
    rows = [
        (index, " ".join(map(str, _values(spec, index))), names, swatch(spec.palette[index]))
        for index, names in enumerate(spec.names)
    ]
    parts = ["## Labels", table(["class", "value in files", "name", "color (red, green, blue)"], rows)]
    if spec.ignore_ids:
        parts.append(
            f"Ignored values: {', '.join(map(str, spec.ignore_ids))} in files, {spec.ignore_index} in loaded masks."
        )
    if spec.swap_pairs:
        pairs = ", ".join(f"{spec.names[a]} with {spec.names[b]}" for a, b in spec.swap_pairs)
        parts.append(f"Swapped when the image is flipped (left and right are the {spec.side}'s): {pairs}.")
    if spec.groups:
        groups = (f"{group} = {' + '.join(spec.names[i] for i in members)}" for group, members in spec.groups.items())
        parts.append(f"Groups, which are also scored as merged regions: {'; '.join(groups)}.")
    return parts


def _values(spec: LabelSpec, index: int) -> list[int]:
    return [spec.ids[index], *(raw for raw, merged in spec.remap.items() if merged == index)]


def _spec(name: str, twins: list[str]) -> LabelSpec:
    if not twins or name == "composites":
        return DATASETS.build(name).labels
    layout = LAYOUTS[twins[0]]
    with tempfile.TemporaryDirectory() as folder:
        root = write(twins[0], Path(folder) / "root", count=layout.least)
        return DATASETS.build(name, root=root, **layout.options).labels


def _use(name: str, twins: list[str]) -> list[str]:
    recipes = [recipe for recipe in RECIPES.names() if _trains_on(recipe, name)]
    lines = [f"- [`{recipe}`](../recipes.md): `unetzoo train {recipe}{_root(name)}`" for recipe in recipes]
    return [
        "## Use",
        f"```python\n{_example(name, twins)}\n```",
        *(["Recipes:\n\n" + "\n".join(lines)] if lines else []),
    ]


def _root(name: str) -> str:
    return "" if name == "composites" else " --set data.root=PATH"


def _trains_on(recipe: str, dataset: str) -> bool:
    entry = RECIPES.entry(recipe)
    return entry.builtin and tomllib.loads(Path(RECIPES.get(recipe)).read_text())["data"]["name"] == dataset


def _example(name: str, twins: list[str]) -> str:
    if name == "composites" or not twins:
        return f'import unetzoo\n\ndata = unetzoo.DATASETS.build("{name}", size=96, split="val")\nassert len(data) > 0'
    layout = LAYOUTS[twins[0]]
    options: dict[str, Any] = {"split": layout.splits[0], **layout.options}
    arguments = [f'"{name}"', "root=root", *(f"{k}={v!r}".replace("'", '"') for k, v in options.items())]
    call = ", ".join(arguments) if len(", ".join(arguments)) < 85 else "\n    " + ",\n    ".join(arguments) + ",\n"
    return "\n".join(
        [
            "import tempfile",
            "",
            "import unetzoo",
            "from unetzoo.twins import write",
            "",
            f'root = write("{twins[0]}", tempfile.mkdtemp())  # replace with the folder of your data',
            f"data = unetzoo.DATASETS.build({call})",
            'assert data[0]["image"].shape[:2] == data[0]["mask"].shape[:2]',
        ]
    )
