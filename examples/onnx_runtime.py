"""Export a trained run as one ONNX file and run it with ONNX Runtime alone: pixels in, classes out.

Needs `unetzoo[export]`.

python examples/onnx_runtime.py
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import unetzoo
from unetzoo.training import load_run, train
from unetzoo.twins import write

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=80, help="optimizer steps")
steps = parser.parse_args().steps

OUT = Path("runs/examples/onnx-runtime")
shutil.rmtree(OUT, ignore_errors=True)  # from an earlier run

cars = write("carvana", OUT / "cars", count=48)
result = train("carvana", [f"data.root={cars}", f"train.steps={steps}"], out=OUT / "run", fast=True, progress=False)
print(unetzoo.export(load_run(result.out), OUT / "car.onnx").parity)

# Resizing, scaling, network and threshold are in the file, so running it needs neither unetzoo nor torch.
session = onnxruntime.InferenceSession(OUT / "car.onnx", providers=["CPUExecutionProvider"])
names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
samples = list(unetzoo.DATASETS.build("carvana", root=cars, split="val"))
images, truth = (
    np.stack([sample["image"] for sample in samples]),
    np.stack([sample["mask"] for sample in samples]) == 1,
)
found = np.asarray(session.run(["labels"], {"image": images})[0]) == names.index("car")
iou = (truth & found).sum() / (truth | found).sum()
print(f"IoU {iou:.3f} by ONNX Runtime, {result.scores['iou/car']:.3f} at the training size")

shown = [images[0], *(np.dstack([mask[0]] * 3).astype(np.uint8) * 255 for mask in (truth, found))]
Image.fromarray(np.hstack(shown)).save(OUT / "image-truth-prediction.png")
print(f"see {OUT}/image-truth-prediction.png")
