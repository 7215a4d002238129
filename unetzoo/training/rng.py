"""The global random states of a process: Python's, NumPy's, torch's on CPU and device."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Start every global stream anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def take() -> dict[str, Any]:
    """The states, to be given back by `give`; the host does not wait for the device."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "torch": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def give(states: Mapping[str, Any]) -> None:
    """Set the states that `take` took."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def pack(states: Mapping[str, Any]) -> dict[str, Any]:
    """States as JSON can hold them."""
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
    """What `pack` packed, through JSON or not."""
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
