"""Run one of six published systems end to end by its recipe, in minutes on a CPU.

A twin (a miniature of the data set in its official layout, with synthetic images) replaces data that must be
downloaded, and the fast variant of the recipe replaces the full one. With the data and without `--fast`, the same steps
reproduce the system.

    python examples/six_systems.py helen
    python examples/six_systems.py carvana train.steps=300 optimizer.lr=2e-3
"""

import argparse
import subprocess
import sys
from pathlib import Path

from unetzoo.training import train
from unetzoo.twins import write

SYSTEMS = {  # name: (layout of its data, recipes)
    "isbi2012": ("isbi2012", ["isbi2012"]),
    "helen": ("helen", ["helen"]),
    "celebamask": ("celebamask", ["celebamask-eyes-lips"]),
    "cityscapes": ("cityscapes", ["unet-cityscapes", "r2unet-cityscapes", "ddunet-cityscapes"]),
    "carvana": ("carvana", ["carvana"]),
    "eva": ("composites", ["eva-mask-depth"]),
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("system", choices=SYSTEMS)
parser.add_argument("changes", nargs="*", help="changes of the recipe, as for `unetzoo train --set`")
options = parser.parse_args()
layout, recipes = SYSTEMS[options.system]

data = Path("runs/examples/twins") / layout
if not data.exists():
    write(layout, data, count=60)  # unetzoo twin helen runs/examples/twins/helen --count 60

runs = []
for recipe in recipes:  # unetzoo train helen --fast --set data.root=runs/examples/twins/helen
    result = train(recipe, [f"data.root={data}", *options.changes], fast=True, say=print)
    runs.append(result.out)
    shown = [name for name in result.scores if "/" not in name or name.startswith(("iou/", "f1/", "depth/"))]
    print("  ".join(f"{name} {result.scores[name]:.3f}" for name in shown))
    print(f"see {result.out}/report.html, with curves.png and predictions.png beside it\n")

if len(runs) > 1:  # one figure of all networks, and what differs in their recipes
    folder = runs[0].with_name(f"{options.system}-compared")
    command = [sys.executable, "-m", "unetzoo.cli", "compare", *map(str, runs), "--out", str(folder)]
    subprocess.run(command, check=True)
