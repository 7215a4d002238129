"""The global random states of a process: Python, NumPy, and torch on CPU and CUDA."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed all global random generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def take() -> dict[str, Any]:
    """Return the states, to be restored with `give`. The host does not wait for the device."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "torch": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def give(states: Mapping[str, Any]) -> None:
    """Restore the states returned by `take`."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def pack(states: Mapping[str, Any]) -> dict[str, Any]:
    """Convert states to JSON-serializable values."""
    version, numbers, gauss = states["python"]
    numpy = states["numpy"]
    packed = {
        "python": [version, list(numbers), gauss],
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
    }
    for name in {"torch", "cuda"} & set(states):
        packed[name] = base64.b64encode(states[name].numpy().tobytes()).decode()
    return packed


def unpack(packed: Mapping[str, Any]) -> dict[str, Any]:
    """Restore states converted by `pack`, whether or not they went through JSON."""
    version, numbers, gauss = packed["python"]
    numpy = packed["numpy"]
    key = np.asarray(numpy["state"]["key"], np.uint32)
    states: dict[str, Any] = {
        "python": (version, tuple(numbers), gauss),
        "numpy": {**numpy, "state": {**numpy["state"], "key": key}},
    }
    for name in {"torch", "cuda"} & set(packed):
        states[name] = torch.frombuffer(bytearray(base64.b64decode(packed[name])), dtype=torch.uint8)
    return states
