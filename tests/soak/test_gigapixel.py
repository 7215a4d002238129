"""Time per pixel and memory while images grow 256-fold, and streams that are killed.

Extrapolated to 32768²: what is constant per pixel and flat in memory from 1k² to 16k² has no term that could grow.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.soak

GROW = """
import json, sys, time
import numpy as np, torch, unetzoo
from unetzoo.inference import predict_to

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(l for l in lines if l.startswith(key)).split()[1]) * 1024

class Grown:
    dtype = np.dtype(np.uint8)
    def __init__(self, side):
        self.shape, self.peak = (side, side, 3), 0
    def __getitem__(self, key):
        self.peak = max(self.peak, status("RssAnon"))
        rows, columns = (range(*part.indices(n)) for part, n in zip(key, self.shape))
        return np.add.outer(np.add.outer(np.array(rows), np.array(columns)), np.arange(3)).astype(np.uint8)

torch.set_num_threads(1)
torch.manual_seed(0)
net = unetzoo.build("bnunet", encoder_channels=(2, 2, 4), classes=int(sys.argv[3]))
after_import = status("RssAnon")
for side in json.loads(sys.argv[2]):
    source, seconds = Grown(side), []
    for repeat in range(3 if side < 4096 else 1):
        target = f"{sys.argv[1]}/{side}-{repeat}.tif"
        options = {"memory": "1GB", "tile": 256, "blend": sys.argv[4], "preprocess": unetzoo.Preprocess()}
        streamed = predict_to(net, source, target, **options)
        seconds.append(streamed.seconds)
    print(json.dumps([side, min(seconds) / (side / 1024) ** 2, source.peak - after_import]), flush=True)
"""

KILLED = """
import sys
import numpy as np, torch, unetzoo
from unetzoo.inference import predict_to

torch.set_num_threads(1)
torch.manual_seed(0)
net = unetzoo.build("bnunet", encoder_channels=(2, 2, 4), classes=3)
source = np.load(sys.argv[1], mmap_mode="r")
print("ready", flush=True)
predict_to(net, source, sys.argv[2], tile=128, resume=True, preprocess=unetzoo.Preprocess())
"""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("classes", "blend"), [(3, "exact"), (19, "gaussian")])
def test_time_and_memory_from_one_to_256_megapixels(tmp_path, classes, blend):
    sides = [1024, 2048, 4096, 8192, 16384] if blend == "exact" else [1024, 4096]
    command = [sys.executable, "-c", GROW, str(tmp_path), json.dumps(sides), str(classes), blend]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for side, seconds, peak in rows:
        print(f"{side}²: {seconds:.3f} s a megapixel, {peak / 1e6:.0f} MB of anonymous memory above import")
    assert max(peak for _, _, peak in rows) < 1e9
    times = [seconds for _, seconds, _ in rows]
    assert max(times) / min(times) <= (1.1 if blend == "exact" else 1.3), times


@pytest.mark.timeout(1200)
def test_streams_that_are_killed_lose_nothing(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (2000, 700, 3), np.uint8)
    np.save(tmp_path / "in.npy", image)

    def start(target):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "in.npy"), str(target)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"ready\n"
        return process

    with start(tmp_path / "once.tif") as process:
        began = time.monotonic()
        assert process.wait() == 0
    whole = time.monotonic() - began
    rng, kills = np.random.default_rng(1), 0
    for number in range(20):
        target = tmp_path / f"{number}.tif"
        while not target.exists():
            with start(target) as process:
                try:
                    process.wait(rng.uniform(0.05, whole))
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    kills += 1
        assert target.read_bytes() == (tmp_path / "once.tif").read_bytes()
        target.unlink()
        assert not list(tmp_path.glob(f"{number}.tif.*"))
    assert kills >= 10
