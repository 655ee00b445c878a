"""One direction that runs from the last valid step to the first: ``LSTM(reverse=True)``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, _core, load, reference, save
from tests.finite_differences import gradient
from tests.support import (
    Array,
    assert_close,
    assert_same_bits,
    normal,
    random_state,
    tolerance_of,
)

ROUNDING = 1e-12
TOLERANCE = 1e-6  # of central differences


def turned(x: Array, lengths: Array) -> Array:
    """(T, B, features): each sequence from its last step to its first, zeros past its end."""
    result = np.zeros_like(x)
    for b, length in enumerate(lengths):
        result[:length, b] = x[:length, b][::-1]
    return result


def assert_same(actual: Array, expected: Array, name: str = "array") -> None:
    """To the bit where kernels are packed: BLAS rounds otherwise where h has other strides."""
    if _core.VECTOR[4]:
        assert_same_bits(actual, expected, name)
    else:
        assert_close(actual, expected, tolerance_of(actual.dtype), name)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(1, 3),
    st.booleans(),
)
def test_it_is_an_lstm_that_sees_all_turned_round(
    seed: int, steps: int, batch: int, num_layers: int, with_state: bool
) -> None:
    """... forward and backward, with outputs and their gradients turned back."""
    rng = np.random.default_rng(seed)
    lstm = LSTM(3, 4, num_layers, reverse=True, dtype=np.float64, rng=rng)
    forwards = LSTM(3, 4, num_layers, dtype=np.float64, rng=rng)
    forwards.load_state_dict(lstm.state_dict())
    lengths = rng.integers(0, steps + 1, batch)
    x, d_output = normal(rng, (steps, batch, 3)), normal(rng, (steps, batch, 4))
    state = random_state(rng, lstm, batch) if with_state else None
    d_state = random_state(rng, lstm, batch)

    output, states, tape = lstm.forward(x, state, lengths=lengths)
    expected, expected_states, expected_tape = forwards.forward(
        turned(x, lengths), state, lengths=lengths
    )
    assert_close(output, turned(expected, lengths), ROUNDING, "output")
    d_x, d_state_0, grads = lstm.backward(tape, d_output, d_state)
    expected_d_x, expected_d_state_0, expected_grads = forwards.backward(
        expected_tape, turned(d_output, lengths), d_state
    )
    assert_close(d_x, turned(expected_d_x, lengths), ROUNDING, "d_x")
    for actual, wanted in zip(
        (*states, *d_state_0, *grads.values()),
        (*expected_states, *expected_d_state_0, *expected_grads.values()),
        strict=True,
    ):
        assert_close(actual, wanted, ROUNDING)


@pytest.mark.parametrize("padding", ["none", "lengths", "mask"])
def test_it_is_the_second_direction_of_a_bidirectional_lstm(padding: str) -> None:
    rng = np.random.default_rng(0)
    lstm = LSTM(5, 7, reverse=True, rng=rng)
    both = LSTM(5, 7, bidirectional=True, rng=rng)
    with both.editing() as parameters:
        for name, array in lstm.parameters().items():
            parameters[f"{name}_reverse"][...] = array
    x, d_output = normal(rng, (6, 4, 5), np.float32), normal(rng, (6, 4, 14), np.float32)
    d_output[..., :7] = 0
    (h, c), (d_h, d_c) = random_state(rng, both, 4), random_state(rng, both, 4)
    d_h[0], d_c[0] = 0, 0
    options = {
        "none": {},
        "lengths": {"lengths": np.array([3, 6, 0, 1])},
        "mask": {"mask": rng.random((6, 4)) < 0.6},
    }[padding]
    output, (h_n, c_n), tape = lstm.forward(x, (h[1:], c[1:]), **options)
    expected, (expected_h_n, expected_c_n), expected_tape = both.forward(x, (h, c), **options)
    assert_same(output, expected[..., 7:])
    assert_same(h_n, expected_h_n[1:])
    assert_same(c_n, expected_c_n[1:])
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output[..., 7:], (d_h[1:], d_c[1:]))
    expected_d_x, (expected_d_h, expected_d_c), expected_grads = both.backward(
        expected_tape, d_output, (d_h, d_c)
    )
    assert_same(d_x, expected_d_x)
    assert_same(d_h_0, expected_d_h[1:])
    assert_same(d_c_0, expected_d_c[1:])
    for name, actual in grads.items():
        assert_same(actual, expected_grads[f"{name}_reverse"], name)


def test_it_is_what_the_definition_says() -> None:
    rng = np.random.default_rng(1)
    lstm = LSTM(3, 4, reverse=True, dtype=np.float64, rng=rng)
    x, lengths = normal(rng, (5, 3, 3)), np.array([5, 2, 4])
    (h_0,), (c_0,) = state = random_state(rng, lstm, 3)
    weights = list(lstm.parameters().values())
    expected, h_n, c_n, _ = reference.forward(x, h_0, c_0, *weights, lengths=lengths, reverse=True)
    output, states = lstm(x, state, lengths=lengths)
    assert_close(output, expected, ROUNDING)
    assert_close(states[0][0], h_n, ROUNDING)
    assert_close(states[1][0], c_n, ROUNDING)
    assert_same_bits(output[0], states[0][0])  # it ends at the first step


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("padding", ["none", "lengths", "mask"])
def test_gradients_element_by_element(num_layers: int, padding: str) -> None:
    rng = np.random.default_rng(2)
    lstm = LSTM(2, 2, num_layers, reverse=True, batch_first=True, dtype=np.float64, rng=rng)
    options = {
        "none": {},
        "lengths": {"lengths": np.array([2, 0, 4])},
        "mask": {"mask": np.array([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]], bool)},
    }[padding]
    h_0, c_0 = random_state(rng, lstm, 3)
    d_output, d_state = normal(rng, (3, 4, 2)), random_state(rng, lstm, 3)
    arrays = {"x": normal(rng, (3, 4, 2)), "h_0": h_0, "c_0": c_0} | lstm.state_dict()

    def loss(moved: dict[str, Array]) -> float:
        lstm.load_state_dict({name: moved[name] for name in lstm.parameters()})
        output, (h_n, c_n) = lstm(moved["x"], (moved["h_0"], moved["c_0"]), **options)
        sums = (output * d_output).sum() + (h_n * d_state[0]).sum() + (c_n * d_state[1]).sum()
        return float(sums)

    expected = gradient(loss, arrays)
    lstm.load_state_dict({name: arrays[name] for name in lstm.parameters()})
    _, _, tape = lstm.forward(arrays["x"], (h_0, c_0), **options)
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output, d_state)
    for name, actual in ({"x": d_x, "h_0": d_h_0, "c_0": d_c_0} | grads).items():
        assert_close(actual, expected[name], TOLERANCE, name)


def test_parameters_are_named_as_those_of_one_direction() -> None:
    assert list(LSTM(2, 3, 2, reverse=True).parameters()) == list(LSTM(2, 3, 2).parameters())


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    lstm = LSTM(2, 3, 2, reverse=True, rng=3)
    save(lstm, tmp_path / "reverse.safetensors")
    loaded = load(tmp_path / "reverse.safetensors")
    assert repr(loaded) == repr(lstm) == "LSTM(2, 3, 2, reverse=True)"
    x = normal(np.random.default_rng(4), (4, 2, 2), np.float32)
    assert_same_bits(loaded(x)[0], lstm(x)[0])


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(ValueError, match="reverse: expected False with bidirectional=True"):
        LSTM(2, 3, reverse=True, bidirectional=True)
    with pytest.raises(TypeError, match="reverse: expected True or False, got 1"):
        LSTM(2, 3, reverse=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stream: expected an LSTM that begins at the first step"):
        LSTM(2, 3, reverse=True).stream()
