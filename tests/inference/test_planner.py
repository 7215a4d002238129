"""Windows for the available memory: estimated and actual use."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import small
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from torch import nn

from unetzoo import predict
from unetzoo.errors import ConfigError
from unetzoo.inference import plan_tiles
from unetzoo.inference.footprint import MARGIN, bytes_per_pixel
from unetzoo.inference.planner import parse_memory
from unetzoo.inference.window_predictor import WindowPredictor
from unetzoo.inference.windows import minimum_tile
from unetzoo.models.base import Geometry
from unetzoo.modules import LiveMemory


class Steps(nn.Module):
    """Three tensors of 40 bytes a pixel, of which two live at once, beside the window of 8."""

    geometry = Geometry(minimum=1, stride=1, halo=0)
    in_channels = 2

    def forward(self, x):
        x = x[:, :1].expand(-1, 10, -1, -1) + 1
        for _ in range(2):
            x = x * 2
        return x


def test_tensors_are_followed():
    with LiveMemory() as live:
        kept = torch.zeros(100)  # 400 bytes
        view = kept[:50]
        view += 1
        for _ in range(3):
            torch.ones(25)  # 100 bytes, gone at once
        del view
    assert (live.peak, live.now) == (500, 400)


def test_bytes_of_a_pixel_by_hand():
    assert bytes_per_pixel(WindowPredictor(Steps()), 2) == MARGIN * (8 + 40 + 40)


@pytest.mark.parametrize(
    ("memory", "number"),
    [
        (5, 5),
        ("5", 5),
        ("5B", 5),
        ("2k", 2000),
        ("2KB", 2000),
        ("1.5 MiB", 1572864),
        ("3gb", 3 * 10**9),
        ("1TiB", 2**40),
    ],
)
def test_memory(memory, number):
    assert parse_memory(memory) == number


@pytest.mark.parametrize("memory", [0, -1, 1.5, True, "", "GB", "-2GB", "2 PB", "2IB", "0", "1e9", None, [1]])
def test_invalid_memory_limits_are_refused(memory):
    with refused(ConfigError, found=repr(memory)):
        parse_memory(memory)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(200, 20_000), st.sampled_from(["exact", "gaussian"]))
def test_plans_keep_to_the_memory(height, width, kilobytes, blend):
    fit = plan_tiles(Steps(), (height, width), memory=kilobytes * 1000, blend=blend)
    tall, wide = fit.plan.tile
    assert fit.needed <= kilobytes * 1000 and fit.batch == 1
    assert MARGIN * 88 * tall * wide <= fit.needed
    area = sum((r.stop - r.start) * (c.stop - c.start) for r, c in fit.plan.windows())
    assert fit.plan.overhead == pytest.approx(area / (height * width) - 1)
    if MARGIN * 88 * height * width <= kilobytes * 1000:
        assert (tall, wide) == (height, width) and fit.plan.overhead == 0


@pytest.mark.parametrize("name", ["unet", "bnunet", "r2unet"])
def test_more_memory_never_costs_more(name):
    net = small(name)
    overheads = [plan_tiles(net, (3000, 2000), memory=f"{megabytes}MB").plan.overhead for megabytes in (20, 80, 320)]
    assert overheads == sorted(overheads, reverse=True) and overheads[0] > 1.2 * overheads[-1]


def test_a_cpu_does_not_fill_a_large_memory_with_one_window():
    plans = [plan_tiles(small("bnunet"), (8000, 8000), memory=f"{gigabytes}GB") for gigabytes in (4, 64)]
    assert plans[0] == plans[1] and plans[0].needed < 10**9


def test_the_fewest_pixels_of_all_squares():
    net = small()
    fit = plan_tiles(net, (700, 700), memory="30MB")
    for side in range(minimum_tile(net.geometry), 700, 8):
        try:
            other = plan_tiles(net, (700, 700), memory="30MB", tile=side)
        except ConfigError:
            break
        assert fit.plan.overhead <= other.plan.overhead * 1.1 + 0.02


def test_blended_windows_are_as_square_as_can_be():
    fit = plan_tiles(small(up="bilinear"), (900, 700), memory="20MB", blend="gaussian")
    short, long = sorted(fit.plan.tile)
    assert long < 1.5 * short


def test_predicting_with_little_memory_is_predicting():
    net, image = small(), torch.rand(2, 230, 140)
    whole = predict(net, image)
    for options in ({"memory": "20MB"}, {"memory": "20MB", "tile": "auto"}, {"tile": "auto"}):
        assert torch.allclose(predict(net, image, **options), whole, atol=1e-5)
    assert str(plan_tiles(net, (230, 140), memory="20MB")).startswith("1 window of 232×140, 1 at once")
    assert " windows of 64×64, " in str(plan_tiles(net, (230, 140), tile=64))


def test_tiles_that_cannot_be_planned():
    net = small()
    with refused(ConfigError, subject="52×52", expected="MB", found="0 MB"):
        plan_tiles(net, (500, 500), memory="100KB")
    with refused(ConfigError, subject="276×276"):
        plan_tiles(net, (500, 500), memory="8MB", tile=400)  # two of 276 cover 500 as two of 400 do
    with refused(ConfigError, hint='blend="gaussian"'):
        plan_tiles(small(up="bilinear"), (3000, 3000), memory="20MB")
    with refused(ConfigError, hint="channels="):
        plan_tiles(nn.Identity(), (50, 50))
    with refused(ConfigError, found="'big'"):
        predict(net, torch.rand(2, 50, 50), tile="big")


FLAT = """
import json, sys
import numpy as np, torch, unetzoo
from unetzoo.inference import predict_to

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(l for l in lines if l.startswith("RssAnon")).split()[1]) * 1024

class Watched:
    def __init__(self, side):
        self.shape, self.dtype, self.peak = (side, side, 3), np.dtype(np.uint8), 0
    def __getitem__(self, key):
        self.peak = max(self.peak, anonymous())
        rows, columns = (np.arange(*part.indices(n)).astype(np.uint8) for part, n in zip(key, self.shape))
        return np.add.outer(np.add.outer(rows, columns), np.arange(3, dtype=np.uint8))

torch.set_num_threads(1)
net = unetzoo.build("bnunet", encoder_channels=(2, 2, 4), classes=4)
after_import, found = anonymous(), []
for side in (1024, 3072):
    source = Watched(side)
    streamed = predict_to(net, source, f"{sys.argv[1]}/{side}.tif", memory="60MB", preprocess=unetzoo.Preprocess())
    found.append([source.peak - after_import, streamed.tiling.needed])
print(json.dumps(found))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat_while_the_image_grows(tmp_path):
    command = [sys.executable, "-c", FLAT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    peaks, needed = zip(*json.loads(done.stdout.splitlines()[-1]), strict=True)
    assert max(needed) <= 60e6
    # the logits of 3072² alone would be 151 MB, the image as floats 113; libraries start up and keep what they freed
    assert max(peaks) < 140e6
