"""Deterministic synthetic weights, the ones the stored reference vectors were made with.

Every value is a pure function of (key name, element index): ``crc32(key)`` seeds splitmix64 counters whose top 16 bits,
minus 32768, are a nearly uniform integer. Filters of rank 2 and up are made exactly zero-mean in integer arithmetic, then scaled by
``gain * sqrt(3 / fan_in) / (fan_in * 32768)``; vectors are ``centre + halfwidth * n / 32768``. All in float64, cast once.
The gains are part of the recipe: change one and the vectors no longer apply.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

LAYOUT = Path(__file__).parent / "golden" / "state_dict_xmem.json"
DIGEST = "deec002f122207b3070ffcabd0ea79a7099b0a80f2367f8b52bce6d00253b806"

# each rule: prefix, suffix, gain; the first that matches both wins
WEIGHT_GAINS = [
    ("key_proj.key_proj.", "weight", 3.0),
    ("key_proj.d_proj.", "weight", 0.7),
    ("key_proj.e_proj.", "weight", 2.5),
    ("decoder.pred.", "weight", 2.0),
    ("", "weight", 1.4),
]
# each rule: prefix, suffix, centre, half width
VECTOR_RULES = [
    ("key_encoder.", "bn3.weight", 0.5, 0.1),
    ("value_encoder.", "bn2.weight", 0.5, 0.1),
    ("", "running_var", 1.0, 0.2),
    ("", "running_mean", 0.0, 0.1),
    ("decoder.pred.", "bias", -0.9, 0.0),
    ("", "bias", 0.0, 0.05),
    ("", "weight", 1.0, 0.2),
]


def _integers(key: str, count: int) -> np.ndarray:
    seed = np.uint64(zlib.crc32(key.encode("ascii")))
    with np.errstate(over="ignore"):
        z = ((seed << np.uint64(32)) + np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(48)).astype(np.int64) - 32768


def _first_match(rules: list[tuple], key: str) -> tuple:
    return next(rule[2:] for rule in rules if key.startswith(rule[0]) and key.endswith(rule[1]))


def make_tensor(key: str, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    if dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    count = math.prod(shape)
    integers = _integers(key, count)
    if len(shape) < 2:
        centre, half = _first_match(VECTOR_RULES, key)
        values = centre + integers.astype(np.float64) * (half / 32768.0)
    else:
        fan_in = count // shape[0]
        filters = integers.reshape(shape[0], fan_in)
        zero_mean = filters * fan_in - filters.sum(axis=1, keepdims=True)
        (gain,) = _first_match(WEIGHT_GAINS, key)
        values = zero_mean.astype(np.float64) * (gain * math.sqrt(3.0 / fan_in) / (fan_in * 32768.0))
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def fetch_layout() -> list[dict]:
    return json.loads(LAYOUT.read_text())["keys"]


def make_state_dict() -> dict[str, torch.Tensor]:
    return {e["key"]: make_tensor(e["key"], tuple(e["shape"]), e["dtype"]) for e in fetch_layout()}


def digest(state: dict[str, torch.Tensor]) -> str:
    running = hashlib.sha256()
    for key, value in state.items():
        running.update(key.encode())
        running.update(value.numpy().tobytes())
    return running.hexdigest()
