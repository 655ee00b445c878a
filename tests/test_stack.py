"""Layers and directions: which states, names and columns are whose, and where the work is cut."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fastlstm import LSTM, _stack
from fastlstm._stack import Stack
from tests.support import assert_close, normal, plain_lstm, random_state


def stack_of(num_layers: int, bidirectional: bool) -> Stack:
    return Stack(3, 4, num_layers, bidirectional, True, np.dtype(np.float32))


def test_directions_are_numbered_layer_by_layer() -> None:
    """As the first axis of h_n and the output's last one have them in PyTorch."""
    stack = stack_of(2, True)
    found = [(d.index, d.suffix, d.backwards, d.columns) for layer in stack.layers for d in layer]
    assert found == [
        (0, "_l0", False, slice(0, 4)),
        (1, "_l0_reverse", True, slice(4, 8)),
        (2, "_l1", False, slice(0, 4)),
        (3, "_l1_reverse", True, slice(4, 8)),
    ]
    assert stack.width == 8


def test_layers_above_the_first_take_what_the_one_below_gives() -> None:
    one, two = stack_of(3, False).parameter_shapes(), stack_of(3, True).parameter_shapes()
    assert [one[f"weight_ih_l{k}"] for k in range(3)] == [(16, 3), (16, 4), (16, 4)]
    assert [two[f"weight_ih_l{k}_reverse"] for k in range(3)] == [(16, 3), (16, 8), (16, 8)]


@pytest.mark.parametrize(
    ("bidirectional", "with_lengths", "with_state"), [*product((False, True), repeat=3)]
)
def test_a_sequence_of_many_chunks_is_one_sequence(
    bidirectional: bool, with_lengths: bool, with_state: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks hold 64 rows at the least: here some twenty of them, the last one not full."""
    monkeypatch.setattr(_stack, "CHUNK_BYTES", 1)
    rng = np.random.default_rng(0)
    lstm = LSTM(2, 3, 2, bidirectional=bidirectional, dtype=np.float64, rng=rng)
    x = normal(rng, (203, 7, 2))
    state = random_state(rng, lstm, 7) if with_state else None
    lengths = rng.integers(0, 204, 7) if with_lengths else None
    expected, expected_final = plain_lstm(lstm, x, state, lengths)
    for output, final, *_ in (
        lstm(x, state, lengths=lengths),
        lstm.forward(x, state, lengths=lengths),
    ):
        assert_close(output, expected, 1e-12, "output")
        assert_close(final[0], expected_final[0], 1e-12, "h_n")
        assert_close(final[1], expected_final[1], 1e-12, "c_n")


def test_the_default_chunks_cut_long_sequences() -> None:
    """Or the test above would be about something that never happens."""
    lstm = LSTM(2, 64, dtype=np.float64)
    rows = 1500 * 4
    assert rows * 4 * 64 * 8 > 2 * _stack.CHUNK_BYTES
    rng = np.random.default_rng(0)
    x = normal(rng, (1500, 4, 2))
    expected, _ = plain_lstm(lstm, x)
    assert_close(lstm(x)[0], expected, 1e-12)
