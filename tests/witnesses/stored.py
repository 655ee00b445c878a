"""Reads lstm.npz, which make_witnesses.py wrote."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tests.witnesses.cases import SMALL, WELL_CONDITIONED, Array, draw

with np.load(Path(__file__).with_name("lstm.npz"), allow_pickle=False) as _file:
    _values, _small, _large = _file["values"], _file["small"], _file["large"]

_sizes = [draw(seed, SMALL).size() for seed in range(len(_small))]
_starts = np.concatenate([[0], np.cumsum(_sizes)])

SMALL_SEEDS = range(len(_small))
LARGE_SEEDS = range(len(_large))
# Those whose results mean something in float32; see cases.WELL_CONDITIONED.
SMALL_SEEDS_FLOAT32 = np.flatnonzero(_small <= WELL_CONDITIONED).tolist()
LARGE_SEEDS_FLOAT32 = np.flatnonzero(_large <= WELL_CONDITIONED).tolist()


def stored_results(seed: int) -> dict[str, Array]:
    """What torch.nn.LSTM computed in float64 for draw(seed, SMALL)."""
    values = _values[_starts[seed] : _starts[seed + 1]]
    results = {}
    for name, shape in draw(seed, SMALL).result_shapes().items():
        size = math.prod(shape)
        results[name] = values[:size].reshape(shape)
        values = values[size:]
    return results
