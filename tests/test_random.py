"""Random draws: their ranges and frequencies, and that a seed means the same to both dtypes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastlstm._random import dropout_mask, uniform_arrays
from tests.support import assert_same_bits

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def test_uniform_arrays_fill_their_range_evenly() -> None:
    shapes = {"weight": (200, 300), "bias": (7,)}
    drawn = uniform_arrays(np.random.default_rng(0), shapes, 0.25, DOUBLE)
    assert {name: array.shape for name, array in drawn.items()} == shapes
    counts, _ = np.histogram(drawn["weight"], 10, (-0.25, 0.25))
    assert counts.sum() == drawn["weight"].size
    # Each of ten bins: 6000 ± 73.
    assert np.abs(counts - 6000).max() < 5 * math.sqrt(60_000 * 0.1 * 0.9)


def test_a_seed_gives_the_same_weights_in_both_dtypes() -> None:
    shapes = {"weight": (5, 6), "bias": (7,)}
    single = uniform_arrays(np.random.default_rng(3), shapes, 0.5, SINGLE)
    double = uniform_arrays(np.random.default_rng(3), shapes, 0.5, DOUBLE)
    for name in shapes:
        assert_same_bits(single[name], double[name].astype(np.float32), name)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_a_mask_holds_zero_and_what_keeps_the_mean(p: float) -> None:
    single = dropout_mask(np.random.default_rng(3), (100, 700), p, SINGLE)
    double = dropout_mask(np.random.default_rng(3), (100, 700), p, DOUBLE)
    assert_same_bits(single, double.astype(np.float32))
    dropped = (double == 0).mean()
    assert abs(dropped - p) <= 5 * math.sqrt(p * (1 - p) / double.size)
    if p < 1:
        np.testing.assert_array_equal(double[double != 0], 1 / (1 - p))
