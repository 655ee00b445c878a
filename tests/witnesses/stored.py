"""Reads lstm.npz, dropped.npz and variants.npz, which the make_….py of these names wrote."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.witnesses.cases import SMALL, WELL_CONDITIONED, Array, Case, draw
from tests.witnesses.dropped import draw_dropped
from tests.witnesses.variants import draw_variant


class Results:
    """The results of many cases, one behind the other, taken apart again."""

    def __init__(self, values: Array, cases: int, case_of: Callable[[int], Case]) -> None:
        self._values, self._case_of = values, case_of
        self._starts = np.cumsum([0, *(case_of(seed).size() for seed in range(cases))])

    def of(self, seed: int) -> dict[str, Array]:
        """Under the names of the case."""
        values = self._values[self._starts[seed] : self._starts[seed + 1]]
        results = {}
        for name, shape in self._case_of(seed).result_shapes().items():
            size = math.prod(shape)
            results[name] = values[:size].reshape(shape)
            values = values[size:]
        return results


with np.load(Path(__file__).with_name("lstm.npz"), allow_pickle=False) as _file:
    _small, _large = _file["small"], _file["large"]
    _results = Results(_file["values"], len(_small), lambda seed: draw(seed, SMALL))
with np.load(Path(__file__).with_name("dropped.npz"), allow_pickle=False) as _file:
    _dropped = _file["conditioning"]
    _dropped_results = Results(_file["values"], len(_dropped), lambda seed: draw_dropped(seed).case)
with np.load(Path(__file__).with_name("variants.npz"), allow_pickle=False) as _file:
    VARIANT_CONDITIONING = _file["conditioning"]
    _variant_results = Results(_file["values"], len(VARIANT_CONDITIONING), draw_variant)

SMALL_SEEDS = range(len(_small))
LARGE_SEEDS = range(len(_large))
DROPPED_SEEDS = range(len(_dropped))
VARIANT_SEEDS = range(len(VARIANT_CONDITIONING))
# Those whose results mean something in float32; see cases.WELL_CONDITIONED.
SMALL_SEEDS_FLOAT32 = np.flatnonzero(_small <= WELL_CONDITIONED).tolist()
LARGE_SEEDS_FLOAT32 = np.flatnonzero(_large <= WELL_CONDITIONED).tolist()
DROPPED_SEEDS_FLOAT32 = np.flatnonzero(_dropped <= WELL_CONDITIONED).tolist()
VARIANT_SEEDS_FLOAT32 = np.flatnonzero(VARIANT_CONDITIONING <= WELL_CONDITIONED).tolist()


def stored_results(seed: int) -> dict[str, Array]:
    """What torch.nn.LSTM computed in float64 for draw(seed, SMALL)."""
    return _results.of(seed)


def stored_dropped(seed: int) -> dict[str, Array]:
    """What it computed under the masks of draw_dropped(seed)."""
    return _dropped_results.of(seed)


def stored_variant(seed: int) -> dict[str, Array]:
    """What PyTorch computed for draw_variant(seed)."""
    return _variant_results.of(seed)
