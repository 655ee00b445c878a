"""How the weights' gradients are summed: in runs of steps, each row with the h before it."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, _core, _products, _stack
from fastlstm._gradients import Run, previous_h
from fastlstm._recompute import whole
from fastlstm.packing import Packing
from tests.support import Array, assert_close, assert_same_bits, normal, random_state


@pytest.mark.parametrize(
    ("bidirectional", "with_lengths", "with_state"), [*product((False, True), repeat=3)]
)
def test_gradients_summed_in_many_runs_are_those_of_one(
    bidirectional: bool, with_lengths: bool, with_state: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which finite differences confirm, of sequences short enough for one run."""
    rng = np.random.default_rng(0)
    lstm = LSTM(2, 3, 2, bidirectional=bidirectional, dtype=np.float64, rng=rng)
    x, d_output = normal(rng, (203, 7, 2)), normal(rng, (203, 7, 6 if bidirectional else 3))
    state = random_state(rng, lstm, 7) if with_state else None
    lengths = rng.integers(0, 204, 7) if with_lengths else None

    def gradients() -> dict[str, Array]:
        tape = lstm.forward(x, state, lengths=lengths)[-1]
        return lstm.backward(tape, d_output)[-1]

    expected = gradients()
    summed: list[int] = []
    matmul = _products.matmul

    def note(a: Array, b: Array, **options: Any) -> Array:
        if options.get("transpose_a"):
            summed.append(len(a))
        return matmul(a, b, **options)

    monkeypatch.setattr(_stack, "RUN_BYTES", 1)
    monkeypatch.setattr(_products, "matmul", note)
    for name, array in gradients().items():
        assert_close(array, expected[name], 1e-12, name)
    assert max(summed) <= 64
    assert len(summed) > 40


@pytest.mark.parametrize(
    ("backwards", "with_lengths", "zero_state"), [*product((False, True), repeat=3)]
)
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_each_row_meets_the_h_before_it(
    backwards: bool, with_lengths: bool, zero_state: bool, strided: bool, steps: int
) -> None:
    """As views where rows of equal lengths lie close together; a zero state may be left out."""
    rng = np.random.default_rng(0)
    lengths = np.array([steps, steps // 2, 0]) if with_lengths else None
    packing = Packing(steps, 3, lengths)
    h = normal(rng, (packing.rows, 8))[:, :4] if strided else normal(rng, (packing.rows, 4))
    h_0 = np.zeros((3, 4)) if zero_state else normal(rng, (3, 4))
    run = Run(h, h, h_0, zero_state, whole(packing, 64), {}, None, None)
    expected = np.empty((packing.rows, 4))
    _core.previous_h(expected, h, h_0, packing.offsets, 0, len(packing.active), backwards)
    scratch = None if packing.equal and not strided else np.empty((packing.rows, 4))
    for cut in range(steps + 1):
        found = np.zeros((packing.rows, 4))
        steps_of_rows = min(cut, len(packing.active)), len(packing.active)
        for first, last in ((0, steps_of_rows[0]), steps_of_rows):
            if first == last:
                continue
            for rows, h_prev in previous_h(packing, run, first, last, backwards, scratch):
                assert packing.offsets[first] <= rows.start < rows.stop <= packing.offsets[last]
                if scratch is None:
                    assert np.shares_memory(h_prev, h) or np.shares_memory(h_prev, h_0)
                found[rows] += h_prev
        assert_same_bits(found, expected)
